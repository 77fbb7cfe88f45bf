"""Weights for other programs: files that torch.load reads, written without torch.

The archive is torch.save's (zip, stored): a pickle of an OrderedDict whose tensors refer
to the numbers by name, and one entry of little-endian numbers per tensor.  The pickle
names OrderedDict, _rebuild_tensor_v2 and storage classes only, which
torch.load(weights_only=True) allows.
"""

from __future__ import annotations

import json
import math
import os
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from flowsr_jax.config import choice, to_dict
from flowsr_jax.files.atomic import atomic_write, remove_leftovers
from flowsr_jax.io.array_files import RECORD
from flowsr_jax.io.torch_pickle import STORAGES
from flowsr_jax.models.base import Params
from flowsr_jax.models.importer import state_dict

SUFFIXES = (".pth", ".pt", ".safetensors", ".npz")
DTYPES = ("float16", "bfloat16")
ALIGNMENT = 64  # bytes; lets torch.load(mmap=True) use the numbers in place
_KINDS = {np.dtype(dtype): kind for kind, dtype in STORAGES.items()}


def to_torch(
    params: Params, path: str | os.PathLike, *, dtype: str | None = None, **options
) -> None:
    """Write parameters in the key scheme and layout of the official PyTorch code.

    Tensors are bit-identical to those that `from_torch` was given, and a record of the
    config makes `from_torch` give the same model again.  The file is replaced in one step.

    Args:
      params: model parameters whose architecture has an official form.
      path: .pth or .pt (which torch.load(weights_only=True) reads), .safetensors or .npz.
      dtype: "float16" or "bfloat16" rounds floating numbers; None keeps them.
      **options: of the family, e.g. scheme="esrgan_old" for an RRDB.

    Raises:
      ValueError: a family or config without an official form, another suffix or dtype.
      OSError: the file cannot be written.
    """
    choice("suffix", Path(path).suffix, SUFFIXES)  # before any work
    state = state_dict(params, **options)
    if dtype is not None:
        numbers = np.dtype(choice("dtype", dtype, DTYPES))
        state = {k: a.astype(numbers) if a.dtype == np.float32 else a for k, a in state.items()}
    record = {"family": params.config.family, "config": to_dict(params.config)}
    write_state(state, path, json.dumps(record))


def write_state(
    state: Mapping[str, np.ndarray], path: str | os.PathLike, record: str | None = None
) -> None:
    """Write {key: array} as .pth, .pt, .safetensors or .npz, told by the suffix.

    `record` is the JSON text of family and config; it stands beside the tensors, where
    other programs do not look: an entry of the archive, or metadata.

    Raises:
      ValueError: another suffix, or a dtype that the format does not have.
      OSError: the file cannot be written.
    """
    path = Path(path)
    suffix = choice("suffix", path.suffix, SUFFIXES)
    state = {key: np.ascontiguousarray(_little(a)).reshape(np.shape(a)) for key, a in state.items()}
    if suffix == ".npz" and any(a.dtype.kind == "V" for a in state.values()):
        raise ValueError(f"{path}: .npz has no bfloat16; write .pth or .safetensors")
    remove_leftovers(path.parent)
    with atomic_write(path) as file:
        if suffix == ".npz":
            np.savez(file, **state)
            if record is not None:
                with zipfile.ZipFile(file, "a") as archive:
                    archive.writestr(zipfile.ZipInfo(RECORD), record)
        elif suffix == ".safetensors":
            from safetensors.numpy import save

            file.write(save(state, {RECORD: record} if record is not None else None))
        else:
            _write_zip(state, file, record)


def _write_zip(state: Mapping[str, np.ndarray], file, record: str | None) -> None:
    with zipfile.ZipFile(file, "w") as archive:

        def add(name: str, data) -> None:
            info = zipfile.ZipInfo(f"archive/{name}")  # dated 1980: same tensors, same bytes
            padding = -(file.tell() + 30 + len(info.filename) + 4) % ALIGNMENT
            info.extra = struct.pack("<2sH", b"FB", padding) + bytes(padding)
            archive.writestr(info, data)

        add("data.pkl", _program(state))
        add("byteorder", b"little")
        for number, array in enumerate(state.values()):
            add(f"data/{number}", array.reshape(-1).view(np.uint8).data)
        add("version", b"3\n")
        if record is not None:
            add(RECORD, record.encode())


def _program(state: Mapping[str, np.ndarray]) -> bytes:
    """Return the pickle, protocol 2, of an OrderedDict of tensors; tensor i is entry data/i."""
    named: dict[str, bytes] = {}

    def name(module: str, attribute: str) -> bytes:
        text = f"c{module}\n{attribute}\n"
        if text in named:
            return named[text]
        named[text] = b"h" + bytes([len(named)])  # further uses fetch it from the memo
        return text.encode() + b"q" + named[text][1:]

    def tensor(number: int, array: np.ndarray) -> bytes:
        kind = name("torch", _KINDS[array.dtype])
        key, count = _text(str(number)), _whole(array.size)
        storage = b"(" + _text("storage") + kind + key + _text("cpu") + count + b"tQ"
        strides = [math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim)]
        view = _whole(0) + _sizes(array.shape) + _sizes(strides)
        hooks = b"\x89" + name("collections", "OrderedDict") + b")R"  # no gradient, no hooks
        return b"(" + storage + view + hooks + b"tR"

    parts = [b"\x80\x02", name("collections", "OrderedDict"), b")R("]
    for number, (key, array) in enumerate(state.items()):
        if array.dtype not in _KINDS:
            raise ValueError(f"{key}: {array.dtype} has no storage class of torch")
        parts += [_text(key), name("torch._utils", "_rebuild_tensor_v2"), tensor(number, array)]
    return b"".join([*parts, b"u."])


def _text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _whole(value: int) -> bytes:
    if value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes(8, "little")
    return b"\x8a\x08" + data


def _sizes(values) -> bytes:
    return b"(" + b"".join(map(_whole, values)) + b"t"


def _little(array) -> np.ndarray:
    array = np.asarray(array)
    return array.astype(array.dtype.newbyteorder("<"), copy=False)
