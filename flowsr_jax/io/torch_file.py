"""Weights of other programs: PyTorch files (without PyTorch), .npz, .safetensors, TensorFlow.

Two layouts of torch.save are read: the zip archive (torch 1.6 and later) and the one
before it (several pickles, then the storages).  The pickles are read by the
restricted reader of `torch_pickle`; sizes in the file are checked against the bytes
that are there before anything is reserved.
"""

from __future__ import annotations

import io
import json
import math
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import ml_dtypes
import numpy as np

from flowsr_jax.io.tf_checkpoint import checkpoint_prefix, read_checkpoint
from flowsr_jax.io.torch_pickle import (
    Storage,
    Tensor,
    UnsafeFileError,
    WeightsFileError,
    read_pickle,
)

__all__ = ["UnsafeFileError", "WeightsFileError", "read_npz", "read_torch", "read_weights"]

# The first pickle of the layout before torch 1.6: the number 0x1950a86a20f9469cfc6c.
LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
LEGACY_PROTOCOL = 1001
CONTAINERS = ("params_ema", "params", "state_dict")  # averaged weights first
COMPRESSION = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others inflate in unbounded steps
MEBIBYTE = 1 << 20
Report = Callable[[str], None]


def read_weights(
    source: str | os.PathLike | Mapping, report: Report | None = None
) -> dict[str, np.ndarray]:
    """Read weights of any supported kind, told apart by content.

    Args:
      source: a .pth/.pt, .npz or .safetensors file, the prefix or a file of a TensorFlow
        checkpoint (see `tf_checkpoint`), or a mapping of arrays (tensors of torch included).
      report: receives a line for whatever was opened, removed or left out.

    Returns:
      {official key: array} in the file's order, dtypes as stored (bfloat16 is
      ml_dtypes.bfloat16).  Of the containers "params_ema", "params" and "state_dict"
      (dicts, or prefixes of keys) the first one there is opened; a dict with one state
      dict in it is opened too; the prefix "module." is removed.

    Raises:
      FileNotFoundError: there is no such file.
      UnsafeFileError: a pickle that names anything but tensors.
      WeightsFileError: a damaged or unknown file.
    """
    if isinstance(source, Mapping):
        return _finish(source, "the mapping", _as_array, report)
    if checkpoint_prefix(source) is not None:
        return _finish(read_checkpoint(source, report), str(source), np.asarray, report)
    path = Path(source)
    head = _head(path)
    if head.startswith(b"PK") and _is_npz(path):
        return _finish(read_npz(path), str(path), np.asarray, report)
    if head[8:9] == b"{" or path.suffix == ".safetensors":
        return _finish(_read_safetensors(path), str(path), np.asarray, report)
    return read_torch(path, report)


def read_torch(path: str | os.PathLike, report: Report | None = None) -> dict[str, np.ndarray]:
    """Read the tensors of a file written by torch.save, without torch.

    Args:
      path: a state dict in either layout, perhaps in a container; see `read_weights`.
      report: as in `read_weights`.

    Returns:
      as `read_weights`.

    Raises:
      FileNotFoundError: there is no such file.
      UnsafeFileError: it names anything but tensors; the name is in the message.
      WeightsFileError: damaged, truncated, big-endian, or no such file.
    """
    path = Path(path)
    head = _head(path)
    if head.startswith(b"PK"):
        try:
            with zipfile.ZipFile(path) as archive:
                return _read_zip(archive, path, report)
        except WeightsFileError:
            raise
        except Exception as error:  # zipfile raises nearly anything on damaged files
            raise WeightsFileError(f"{path}: damaged zip archive ({_line(error)})") from None
    if head.startswith(LEGACY_MAGIC):
        return _read_legacy(path, report)
    if not head:
        raise WeightsFileError(f"{path}: is empty")
    if LEGACY_MAGIC.startswith(head):
        raise WeightsFileError(f"{path}: is truncated")
    kind = "a bare pickle" if head[:1] == b"\x80" else f"something else (starts with {head[:8]!r})"
    raise WeightsFileError(
        f"{path}: is {kind}; known are torch.save files (zip, or the layout before torch 1.6), "
        ".npz, .safetensors and TensorFlow checkpoints"
    )


def _read_zip(archive: zipfile.ZipFile, path: Path, report) -> dict[str, np.ndarray]:
    entries = _entries(archive, path)
    tops = [name[: -len("/data.pkl")] for name in entries if name.endswith("/data.pkl")]
    if len(tops) != 1 or "/" in tops[0]:
        raise WeightsFileError(f"{path}: a zip archive, but not of torch.save (no data.pkl)")
    top = tops[0]
    if f"{top}/constants.pkl" in entries:
        raise WeightsFileError(f"{path}: is a TorchScript program; save its state_dict() instead")
    order = b"little"
    if f"{top}/byteorder" in entries:
        order = _inflate(archive, entries[f"{top}/byteorder"])
    if order != b"little":
        raise WeightsFileError(f"{path}: byte order {order[:8]!r} is not supported, only 'little'")
    stream = io.BytesIO(_inflate(archive, entries[f"{top}/data.pkl"]))
    tree, _ = read_pickle(stream, str(path))
    if stream.read(1):
        raise WeightsFileError(f"{path}: bytes follow the end of data.pkl")
    raw: dict[str, bytes] = {}

    def array(tensor):
        key = tensor.storage.key
        if f"{top}/data/{key}" not in entries:
            raise WeightsFileError(f"its storage {key[:50]!r} is missing")
        if key not in raw:
            raw[key] = _inflate(archive, entries[f"{top}/data/{key}"])
        return tensor.array(_decode(raw[key], tensor.storage))

    return _finish(tree, str(path), array, report, path.stat().st_size)


def _entries(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """Return the archive's entries, none of which can inflate without end."""
    entries = {info.filename: info for info in archive.infolist()}
    if len(entries) != len(archive.infolist()):
        raise WeightsFileError(f"{path}: two entries have one name")
    for name, info in entries.items():
        if info.compress_type not in COMPRESSION:
            raise WeightsFileError(
                f"{path}: refused: entry {name[:50]!r} is packed as torch.save never does"
            )
    size = path.stat().st_size
    total = sum(info.file_size for info in entries.values())
    packed = any(info.compress_type != zipfile.ZIP_STORED for info in entries.values())
    # Entries that are only stored cannot be larger than the file unless they overlap.
    limit = 64 * MEBIBYTE + 100 * size if packed else size
    if total > limit:
        raise WeightsFileError(
            f"{path}: refused: its entries claim {total} bytes, a file of {size} may hold {limit}"
        )
    return entries


def _inflate(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Return an entry's bytes, no more of them than it claims."""
    with archive.open(info) as file:
        return file.read(info.file_size)  # without a size all is inflated, then cut off


def _read_legacy(path: Path, report) -> dict[str, np.ndarray]:
    stream = io.BytesIO(path.read_bytes())
    read_pickle(stream, str(path))  # the magic number
    protocol, _ = read_pickle(stream, str(path))
    if protocol != LEGACY_PROTOCOL:
        raise WeightsFileError(f"{path}: its layout is not number {LEGACY_PROTOCOL}: not supported")
    system, _ = read_pickle(stream, str(path))
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise WeightsFileError(f"{path}: only little-endian files are supported")
    tree, storages = read_pickle(stream, str(path), fields=6)
    keys, _ = read_pickle(stream, str(path))
    if (
        not isinstance(keys, list)
        or not all(type(key) is str for key in keys)
        or sorted(keys) != sorted(storages)
    ):
        raise WeightsFileError(f"{path}: its list of storages is damaged")
    raw: dict[str, bytes] = {}
    for key in keys:
        size = storages[key].nbytes
        count = stream.read(8)
        raw[key] = stream.read(size)  # of bytes in memory: reserves no more than is there
        if len(count) < 8 or len(raw[key]) < size:
            raise WeightsFileError(
                f"{path}: is truncated: storage {key[:50]!r} needs {size} bytes, "
                f"{len(raw[key])} are left"
            )
        if int.from_bytes(count, "little") != storages[key].count:
            raise WeightsFileError(f"{path}: storage {key[:50]!r} has two sizes")

    def array(tensor):
        return tensor.array(_decode(raw[tensor.storage.key], tensor.storage))

    return _finish(tree, str(path), array, report, stream.tell())


def _decode(raw: bytes, storage: Storage) -> np.ndarray:
    if len(raw) != storage.nbytes:
        raise WeightsFileError(
            f"its storage {storage.key[:50]!r} claims {storage.count} x {storage.dtype} but holds "
            f"{len(raw)} bytes"
        )
    if storage.dtype == np.bool_:
        return np.frombuffer(raw, np.uint8) != 0
    return np.frombuffer(raw, storage.dtype)


def _finish(
    tree, name: str, array, report: Report | None, size: int | None = None
) -> dict[str, np.ndarray]:
    """Open containers, strip prefixes, and turn the chosen tensors into arrays."""
    report = report or (lambda text: None)
    tree = _open_containers(tree, name, report)
    chosen = {str(key): value for key, value in tree.items() if _is_tensor(value)}
    if len(chosen) < len(tree):
        others = [key for key, value in tree.items() if not _is_tensor(value)]
        report(f"left out what is no tensor: {_listed(others)}")
    if size is not None:
        # Tensors may share a storage or repeat it; written out they must stay in bounds.
        total = sum(t.nbytes for t in chosen.values())
        if total > 64 * MEBIBYTE + 4 * size:
            raise WeightsFileError(
                f"{name}: refused: its tensors claim {total} bytes, the file has {size}"
            )
    out = {}
    for key, official in _plain_keys(list(chosen), name, report).items():
        try:
            value = out[key] = array(chosen[official])
        except (ValueError, TypeError) as error:
            raise WeightsFileError(f"{name}: tensor {official[:100]!r}: {_line(error)}") from None
        if value.dtype.kind not in "biuf" and value.dtype != ml_dtypes.bfloat16:
            raise WeightsFileError(f"{name}: {official[:100]!r} holds {value.dtype}, not numbers")
    return out


def _plain_keys(keys: list[str], name: str, report: Report) -> dict[str, str]:
    """Return {key without the prefixes of containers and of DataParallel: key}."""
    start = ""
    for container in CONTAINERS:  # of formats without nested dicts
        inside = [key for key in keys if key.startswith(f"{container}.")]
        if inside:
            start = f"{container}."
            if len(inside) < len(keys):
                others = [key for key in keys if not key.startswith(start)]
                report(f"took the keys that begin with {start!r}, left out {_listed(others)}")
            else:
                report(f"removed the prefix {start!r}")
            keys = inside
            break
    plain = {key.removeprefix(start).removeprefix("module."): key for key in keys}
    if len(plain) != len(keys):
        raise WeightsFileError(f"{name}: has keys both with and without the prefix 'module.'")
    wrapped = sum(key.removeprefix(start).startswith("module.") for key in keys)
    if wrapped:
        report(f"removed the prefix 'module.' of {wrapped} keys")
    return plain


def _open_containers(tree, name: str, report: Report):
    for _ in range(4):
        if not isinstance(tree, Mapping):
            raise WeightsFileError(f"{name}: holds a {type(tree).__name__}, not a dict of tensors")
        if not tree:
            raise WeightsFileError(f"{name}: holds no tensors")
        if any(_is_tensor(value) for value in tree.values()):
            return tree
        inner = [key for key, value in tree.items() if isinstance(value, Mapping)]
        wanted = [key for key in CONTAINERS if key in inner] or [
            key for key in inner if any(map(_is_tensor, tree[key].values()))
        ]
        if not wanted or (len(wanted) > 1 and wanted[0] not in CONTAINERS):
            raise WeightsFileError(
                f"{name}: no state dict could be singled out among {_listed(tree)}"
            )
        others = [key for key in tree if key != wanted[0]]
        also = f", left out {_listed(others)}" if others else ""
        report(f"opened {str(wanted[0])[:50]!r}{also}")
        tree = tree[wanted[0]]
    raise WeightsFileError(f"{name}: containers are nested too deep")


def _listed(names) -> str:
    names = list(names)
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(repr(str(name)[:50]) for name in names[:8]) + more


def _is_tensor(value) -> bool:
    return isinstance(value, Tensor) or hasattr(value, "__array__") or hasattr(value, "detach")


def _as_array(value) -> np.ndarray:
    if hasattr(value, "detach"):  # a tensor of torch
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":  # unknown to NumPy; float32 holds it exactly
            return value.float().numpy().astype(ml_dtypes.bfloat16)
    return np.asarray(value)


def _head(path: Path) -> bytes:
    if path.is_dir():
        raise WeightsFileError(f"{path}: is a folder, not a weight file")
    try:
        with open(path, "rb") as file:
            return file.read(len(LEGACY_MAGIC))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None


def _is_npz(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # zipfile raises nearly anything on damaged files
        return path.suffix == ".npz"
    return bool(names) and all(name.endswith(".npy") for name in names)


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read the arrays of an .npz file; sizes are checked before anything is reserved.

    Raises:
      FileNotFoundError: there is no such file.
      WeightsFileError: a damaged file, or pickled objects in it.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            for name, info in _entries(archive, path).items():
                with archive.open(name) as file:
                    version = np.lib.format.read_magic(file)
                    header = np.lib.format.read_array_header_1_0
                    if version != (1, 0):
                        header = np.lib.format.read_array_header_2_0
                    shape, _, dtype = header(file)
                # numpy reserves what the header claims before it reads.
                if math.prod(shape) * dtype.itemsize > info.file_size:
                    raise WeightsFileError(f"{path}: {name} claims the shape {shape}: too large")
        with np.load(path, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except (WeightsFileError, FileNotFoundError):
        raise
    except Exception as error:  # zipfile and numpy raise nearly anything on damaged files
        raise WeightsFileError(f"{path}: damaged .npz ({_line(error)})") from None


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise WeightsFileError(f"{path}: damaged .safetensors ({_line(error)})") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
