"""A pickle reader that knows tensors, dicts and numbers, and can do nothing else.

A pickle is a program; the standard reader runs whatever it names.  This one takes the
instructions apart with pickletools (which runs nothing) and follows only those that
torch.save writes for tensors and for what people save beside them.  Names are looked up in
one short table of inert stand-ins; the name of any other data type becomes a `Foreign`, which
holds nothing but that name.  Names that run or load something mark a hostile file, which is
refused as a whole.  Nothing in the file can reserve more memory than the file is long.
"""

from __future__ import annotations

import dataclasses
import io
import math
import mmap
import pickletools
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np


class WeightsFileError(ValueError):
    """A weight file that is damaged, or of a kind that is not read; names the file."""


class UnsafeFileError(WeightsFileError):
    """A pickle that names a program, or is a program; nothing of it was run."""


STORAGES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
MAX_RANK = 64  # of NumPy
# Modules whose names run or load something.  Nothing is run either way: the list only tells
# a hostile file from one with a date or a path beside its tensors.
PROGRAMS = {
    "os", "posix", "nt", "subprocess", "sys", "pty", "shutil", "socket", "webbrowser", "runpy",
    "importlib", "ctypes", "pickle", "_pickle", "marshal", "dill", "cloudpickle", "joblib", "code",
    "types", "inspect", "functools", "operator", "builtins", "__builtin__", "torch", "timeit",
    "pdb", "bdb", "asyncio", "multiprocessing", "threading", "signal", "platform", "pip", "pydoc",
    "http", "urllib", "requests",
}  # fmt: skip
PLAIN = ("set", "frozenset", "complex", "slice", "range", "bytearray", "object", "list", "dict",
         "tuple")  # fmt: skip
# Of those modules: plain data.
DATA = {f"{module}.{name}" for module in ("builtins", "__builtin__") for name in PLAIN}
DATA |= {"torch.device", "torch.Generator"}
DTYPES = ("float16", "float32", "float64", "bfloat16", "int8", "int16", "int32", "int64", "uint8",
          "bool")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Storage:
    """A run of numbers in the file, not yet read."""

    key: str
    dtype: np.dtype
    count: int

    @property
    def nbytes(self) -> int:
        """Bytes that the file must hold for it."""
        return self.count * self.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class Foreign:
    """A value of a type that is no part of tensors: a date, a path, settings.  Only its name."""

    name: str


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A view of a storage; offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor written out in full."""
        return math.prod(self.shape) * self.storage.dtype.itemsize

    def array(self, data: np.ndarray) -> np.ndarray:
        """Return the tensor as a new array, given its storage's numbers [count].

        Raises:
          WeightsFileError: the tensor reaches beyond its storage.
        """
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True))
        empty = 0 in self.shape
        if not empty and last >= len(data):
            raise WeightsFileError(
                f"shape {self.shape}, strides {self.stride} and offset {self.offset} reach beyond "
                f"the {len(data)} elements of storage {self.storage.key[:50]!r}"
            )
        if empty:
            return np.zeros(self.shape, data.dtype)
        steps = [s * data.itemsize for s in self.stride]
        view = np.lib.stride_tricks.as_strided(data[self.offset :], self.shape, steps)
        return np.array(view, order="C")


def read_pickle(
    stream: io.BytesIO | mmap.mmap, name: str, *, fields: int = 5
) -> tuple[Any, dict[str, Storage]]:
    """Read one pickle; the stream then stands at its end.

    Args:
      stream: bytes in memory or a mapped file, positioned at a pickle.
      name: what to call the file in messages.
      fields: length of a storage's persistent id (5, or 6 in files before torch 1.6).

    Returns:
      (object, storages): the object is made of dicts, lists, tuples, numbers, strings,
      `Tensor` and `Foreign`; storages are those it refers to, by key.

    Raises:
      UnsafeFileError: a global or an instruction that files of tensors do not need.
      WeightsFileError: damaged or truncated data.
    """
    start = stream.tell()
    stream.seek(0, io.SEEK_END)
    machine = _Machine(fields, limit=stream.tell())
    stream.seek(start)
    try:
        for opcode, argument, position in pickletools.genops(stream):
            if opcode.name == "STOP":
                return machine.pop(), machine.storages
            machine.step(opcode.name, argument, position)
    except UnsafeFileError as error:
        raise UnsafeFileError(f"{name}: refused: {error}; nothing of it was run") from None
    except Exception as error:  # damaged pickles raise nearly anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise WeightsFileError(f"{name}: damaged or truncated pickle ({reason})") from None
    raise WeightsFileError(f"{name}: damaged or truncated pickle (no end)")


class _Machine:
    """The stack machine of the pickle format, reduced to what tensors need."""

    def __init__(self, fields: int, limit: int):
        self.fields = fields
        self.limit = limit  # of what calls may look at: one list can be an argument many times
        self.storages: dict[str, Storage] = {}
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        if self.marks and len(self.stack) <= self.marks[-1]:
            raise WeightsFileError("nothing on the stack")
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        at = self.marks.pop()
        items = self.stack[at:]
        del self.stack[at:]
        return items

    def step(self, opcode: str, argument: Any, position: int) -> None:
        push = self.stack.append
        match opcode:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                self.marks.append(len(self.stack))
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                push({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode])
            case (
                "BININT" | "BININT1" | "BININT2" | "LONG1" | "LONG4" | "BINFLOAT" | "BINUNICODE"
                | "SHORT_BINUNICODE" | "BINSTRING" | "SHORT_BINSTRING" | "BINBYTES"
                | "SHORT_BINBYTES"
            ):  # fmt: skip
                push(argument)
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE":
                push({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[opcode]())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                push(tuple([self.pop() for _ in range(int(opcode[-1]))][::-1]))
            case "TUPLE":
                push(tuple(self.pop_mark()))
            case "SETITEM" | "SETITEMS":
                items = self.pop_mark() if opcode == "SETITEMS" else [self.pop(), self.pop()][::-1]
                if type(self.stack[-1]) is not Foreign:
                    _expect(self.stack[-1], dict).update(_pairs(items[::2], items[1::2]))
            case "APPEND" | "APPENDS":
                items = self.pop_mark() if opcode == "APPENDS" else [self.pop()]
                if type(self.stack[-1]) is not Foreign:
                    _expect(self.stack[-1], list).extend(items)
            case "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                self.memo[len(self.memo) if opcode == "MEMOIZE" else argument] = self.stack[-1]
            case "BINGET" | "LONG_BINGET":
                push(self.memo[argument])
            case "GLOBAL":
                push(_lookup(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                name, module = _expect(self.pop(), str), _expect(self.pop(), str)
                push(_lookup(module, name))
            case "REDUCE":
                arguments, function = _expect(self.pop(), tuple), self.pop()
                if type(function) is Foreign:
                    push(function)
                    return
                _expect(function, Function)
                self.limit -= sum(len(a) for a in arguments if type(a) in (list, tuple))
                if self.limit < 0:
                    raise WeightsFileError("its calls repeat more than the file holds")
                push(function.call(*arguments))
            case "BUILD":
                self.pop()  # attributes of a state dict ("_metadata"): of no use here
                if type(self.stack[-1]) is not Foreign:
                    _expect(self.stack[-1], dict)
            case "NEWOBJ" if type(self.stack[-2]) is Foreign:
                self.pop()  # the object is its class's stand-in, which is on the stack
            case "BINPERSID":
                push(self.storage(self.pop()))
            case "INST":
                _lookup(*argument.split(" ", 1))
                raise UnsafeFileError(f"it creates an object at byte {position}")
            case _:
                raise UnsafeFileError(
                    f"instruction {opcode} at byte {position} is not used by files of tensors"
                )

    def storage(self, pid: Any) -> Storage:
        """Return the storage that a persistent id ('storage', type, key, place, count) means."""
        if type(pid) is not tuple or len(pid) != self.fields or pid[0] != "storage":
            raise WeightsFileError("a reference to a storage is damaged")
        kind, key, count = pid[1], pid[2], pid[4]
        if not isinstance(kind, np.dtype):
            raise WeightsFileError("a storage has no known number type")
        if not _is_key(key) or not _is_size(count):
            raise WeightsFileError("a reference to a storage is damaged")
        if self.fields == 6 and pid[5] is not None:
            raise WeightsFileError("views of storages (torch before 0.4) are not supported")
        storage = Storage(str(key), kind, count)
        if self.storages.setdefault(storage.key, storage).nbytes != storage.nbytes:
            raise WeightsFileError(f"storage {storage.key[:50]!r} has two sizes")
        return storage


@dataclasses.dataclass(frozen=True)
class Function:
    """A stand-in for a function that files of tensors call."""

    call: Callable


def _rebuild_tensor(storage, offset, shape, stride, *ignored) -> Tensor:
    shape, stride = _expect(shape, tuple), _expect(stride, tuple)
    _expect(storage, Storage)
    if len(shape) > MAX_RANK:
        raise WeightsFileError(f"a tensor has {len(shape)} axes; {MAX_RANK} are possible")
    if len(shape) != len(stride) or not all(map(_is_size, (offset, *shape, *stride))):
        raise WeightsFileError("a tensor's offset, shape or strides are not plain sizes")
    return Tensor(storage, offset, shape, stride)


def _ordered_dict(items=()) -> dict:
    return _pairs([key for key, _ in items], [value for _, value in items])


_GLOBALS = {
    ("collections", "OrderedDict"): Function(_ordered_dict),
    ("torch", "Size"): Function(lambda sizes=(): _expect(sizes, tuple)),
    ("torch._utils", "_rebuild_tensor"): Function(_rebuild_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): Function(_rebuild_tensor),
    ("torch._utils", "_rebuild_parameter"): Function(lambda data, *_: _expect(data, Tensor)),
    **{("torch", name): np.dtype(dtype) for name, dtype in STORAGES.items()},
    **{("torch", name): f"torch.{name}" for name in DTYPES},
}


def _lookup(module: str, name: str = "") -> Any:
    if (module, name) in _GLOBALS:
        return _GLOBALS[module, name]
    full = f"{module}.{name}"
    if module == "torch._utils" and name.startswith("_rebuild"):
        raise UnsafeFileError(
            f"it names {full[:200]!r}, of tensors not read (float8, quantised, sparse, ...)"
        )
    programs = module.split(".")[0] in PROGRAMS and full not in DATA
    if programs or not (module and full.replace(".", "_").isidentifier()):
        raise UnsafeFileError(f"it names {full[:200]!r}, which is no part of a file of tensors")
    return Foreign(full)


def _expect(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise WeightsFileError(f"a {type(value).__name__} stands where a {kind.__name__} belongs")
    return value


def _pairs(keys: list, values: list) -> dict:
    # Plain keys only: hashing a tuple of tuples of the same tuple never ends, and a whole
    # number of a million digits is no key either.
    if len(keys) != len(values) or not all(map(_is_key, keys)):
        raise WeightsFileError("a dict has keys that are neither text nor whole numbers")
    return dict(zip(keys, values, strict=True))


def _is_key(value: Any) -> bool:
    return type(value) is str or (type(value) is int and abs(value) < 1 << 56)


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 56
