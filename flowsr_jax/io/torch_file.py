"""Weights of other programs: PyTorch files (without PyTorch), .npz, .safetensors, TensorFlow.

Two layouts of torch.save are read: the zip archive (torch 1.6 and later) and the one
before it (several pickles, then the storages).  The pickles are read by the
restricted reader of `torch_pickle`; sizes in the file are checked against the bytes
that are there before anything is reserved.
"""

from __future__ import annotations

import dataclasses
import io
import json
import mmap
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from flowsr_jax.io.array_files import (
    RECORD,
    inflate,
    is_npz,
    npz_with_notes,
    read_npz,
    read_safetensors,
    zip_entries,
)
from flowsr_jax.io.ncnn_file import ncnn_pair, read_ncnn
from flowsr_jax.io.state_dicts import Report, line, refuse_object, take_tensors
from flowsr_jax.io.tf_checkpoint import checkpoint_prefix, read_checkpoint
from flowsr_jax.io.torch_pickle import Storage, UnsafeFileError, WeightsFileError, read_pickle

__all__ = ["UnsafeFileError", "WeightsFile", "WeightsFileError", "open_weights", "read_npz",
           "read_torch", "read_weights"]  # fmt: skip

# The first pickle of the layout before torch 1.6: the number 0x1950a86a20f9469cfc6c.
LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
LEGACY_PROTOCOL = 1001
LICENCE = ("license", "licence")

# {first bytes: what such a file is}, of those that people take for weights.
OTHERS = {
    b"\x80": "a bare pickle",
    b"version ": "a pointer of Git LFS; the file itself is still to be fetched (git lfs pull)",
    b"<": "a web page; the download failed",
}


@dataclasses.dataclass(frozen=True)
class WeightsFile:
    """What a weight file holds.

    Attributes:
      tensors: {official key: array} in the file's order, dtypes as stored.
      licence: the text under "license" in the file's own metadata, or None.
      record: JSON text of the config, of files that `to_torch` or ncnn wrote; else None.
    """

    tensors: dict[str, np.ndarray]
    licence: str | None = None
    record: str | None = None


def open_weights(
    source: str | os.PathLike | Mapping, report: Report | None = None, key: str | None = None
) -> WeightsFile:
    """Read weights of any supported kind, told apart by content.

    Args:
      source: a .pth/.pt, .npz or .safetensors file, a .param or .bin file of ncnn (an RRDB
        network; the other file lies beside it), the prefix or a file of a TensorFlow
        checkpoint (see `tf_checkpoint`), or a mapping of arrays (tensors of torch included).
      report: receives a line for whatever was opened, removed or left out.
      key: the container or net to take, its path joined by dots ("ema", "state_dict.netG").
        None opens averaged weights, else "params", else "state_dict", else the one state
        dict in the file; of several, all stay, their names before the keys.

    Returns:
      Its tensors (bfloat16 is ml_dtypes.bfloat16) and notes.  `module.` and `_orig_mod.` are
      removed from the keys; values that are no tensors are left out and reported.

    Raises:
      FileNotFoundError: there is no such file.
      UnsafeFileError: a pickle that names a program, or holds an object.
      WeightsFileError: a damaged or unknown file, or nothing under `key`.
    """
    report = report or (lambda text: None)
    if isinstance(source, Mapping):
        return WeightsFile(take_tensors(source, "the mapping", _as_array, report, key=key))
    if checkpoint_prefix(source) is not None:
        tree = read_checkpoint(source, report)
        return WeightsFile(take_tensors(tree, str(source), np.asarray, report, key=key))
    path = Path(source)
    if pair := ncnn_pair(path):
        state, config = read_ncnn(*pair)
        return WeightsFile(state, record=json.dumps({"config": config}))
    head = _head(path)
    pickled = head.startswith((b"PK", LEGACY_MAGIC))
    if head.startswith(b"PK") and is_npz(path):
        tree, notes = npz_with_notes(path)
    elif head[8:9] == b"{" or (path.suffix == ".safetensors" and not pickled):
        tree, notes = read_safetensors(path)
    else:
        return _open_torch(path, head, report, key)
    tensors = take_tensors(tree, str(path), np.asarray, report, key=key)
    return WeightsFile(tensors, _licence(notes), notes.get(RECORD))


def read_weights(
    source: str | os.PathLike | Mapping, report: Report | None = None, key: str | None = None
) -> dict[str, np.ndarray]:
    """Return the tensors {official key: array} of `open_weights`; errors as there."""
    return open_weights(source, report, key).tensors


def read_torch(
    path: str | os.PathLike, report: Report | None = None, key: str | None = None
) -> dict[str, np.ndarray]:
    """Read the tensors of a file written by torch.save, without torch.

    Args:
      path: a state dict in either layout, perhaps in a container.
      report, key: as in `open_weights`.

    Returns:
      {official key: array}, as `open_weights`.

    Raises:
      FileNotFoundError: there is no such file.
      UnsafeFileError: it names a program, or holds an object; the name is in the message.
      WeightsFileError: damaged, truncated, big-endian, or no such file.
    """
    path = Path(path)
    return _open_torch(path, _head(path), report or (lambda text: None), key).tensors


def _open_torch(path: Path, head: bytes, report: Report, key: str | None) -> WeightsFile:
    if head.startswith(b"PK"):
        try:
            with zipfile.ZipFile(path) as archive:
                return _read_zip(archive, path, report, key)
        except WeightsFileError:
            raise
        except Exception as error:  # zipfile raises nearly anything on damaged files
            raise WeightsFileError(f"{path}: damaged zip archive ({line(error)})") from None
    if head.startswith(LEGACY_MAGIC):
        with open(path, "rb") as file:
            # Mapped: of the file only the tensors that are wanted come into memory, once.
            return _read_legacy(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), path,
                                report, key)  # fmt: skip
    if not head:
        raise WeightsFileError(f"{path}: is empty")
    if LEGACY_MAGIC.startswith(head):
        raise WeightsFileError(f"{path}: is truncated")
    known = [kind for start, kind in OTHERS.items() if head.startswith(start)]
    kind = known[0] if known else f"something else (starts with {head[:8]!r})"
    raise WeightsFileError(
        f"{path}: is {kind}; known are torch.save files (zip, or the layout before torch 1.6), "
        ".npz, .safetensors, ncnn's .param and TensorFlow checkpoints"
    )


def _licence(notes: Any) -> str | None:
    """Return the text under "license" (or "modelspec.license", ...) of a file's metadata."""
    for name, text in notes.items() if isinstance(notes, Mapping) else ():
        if str(name).lower().split(".")[-1] in LICENCE and isinstance(text, str) and text.strip():
            return " ".join(text.split())[:500]
    return None


def _read_zip(archive: zipfile.ZipFile, path: Path, report: Report, key: str | None) -> WeightsFile:
    entries = zip_entries(archive, path)
    tops = [name[: -len("/data.pkl")] for name in entries if name.endswith("/data.pkl")]
    if len(tops) != 1 or "/" in tops[0]:
        raise WeightsFileError(f"{path}: a zip archive, but not of torch.save (no data.pkl)")
    top = tops[0]
    if f"{top}/constants.pkl" in entries:
        raise WeightsFileError(f"{path}: is a TorchScript program; save its state_dict() instead")
    order = b"little"
    if f"{top}/byteorder" in entries:
        order = inflate(archive, entries[f"{top}/byteorder"])
    if order != b"little":
        raise WeightsFileError(f"{path}: byte order {order[:8]!r} is not supported, only 'little'")
    stream = io.BytesIO(inflate(archive, entries[f"{top}/data.pkl"]))
    tree, _ = read_pickle(stream, str(path))
    if stream.read(1):
        raise WeightsFileError(f"{path}: bytes follow the end of data.pkl")
    raw: dict[str, bytes] = {}

    def array(tensor):
        name = tensor.storage.key
        if f"{top}/data/{name}" not in entries:
            raise WeightsFileError(f"its storage {name[:50]!r} is missing")
        if name not in raw:
            raw[name] = inflate(archive, entries[f"{top}/data/{name}"])
        return tensor.array(_decode(raw[name], tensor.storage))

    tensors = take_tensors(tree, str(path), array, report, size=path.stat().st_size, key=key)
    record = entries.get(f"{top}/{RECORD}")
    return WeightsFile(
        tensors, _licence(tree), record and inflate(archive, record).decode(errors="replace")
    )


def _read_legacy(stream: mmap.mmap, path: Path, report: Report, key: str | None) -> WeightsFile:
    read_pickle(stream, str(path))  # the magic number
    protocol, _ = read_pickle(stream, str(path))
    if protocol != LEGACY_PROTOCOL:
        raise WeightsFileError(f"{path}: its layout is not number {LEGACY_PROTOCOL}: not supported")
    system, _ = read_pickle(stream, str(path))
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise WeightsFileError(f"{path}: only little-endian files are supported")
    tree, storages = read_pickle(stream, str(path), fields=6)
    refuse_object(tree, str(path))
    keys, _ = read_pickle(stream, str(path))
    if (
        not isinstance(keys, list)
        or not all(type(key) is str for key in keys)
        or sorted(keys) != sorted(storages)
    ):
        raise WeightsFileError(f"{path}: its list of storages is damaged")
    places = {}
    for name in keys:
        size, count = storages[name].nbytes, stream.read(8)
        places[name] = stream.tell()
        left = len(stream) - places[name]
        if len(count) < 8 or left < size:
            raise WeightsFileError(
                f"{path}: is truncated: storage {name[:50]!r} needs {size} bytes, {left} are left"
            )
        if int.from_bytes(count, "little") != storages[name].count:
            raise WeightsFileError(f"{path}: storage {name[:50]!r} has two sizes")
        stream.seek(size, io.SEEK_CUR)

    def array(tensor):
        storage = tensor.storage
        raw = memoryview(stream)[places[storage.key] :][: storage.nbytes]
        return tensor.array(_decode(raw, storage))

    tensors = take_tensors(tree, str(path), array, report, size=stream.tell(), key=key)
    return WeightsFile(tensors, _licence(tree))


def _decode(raw: bytes | memoryview, storage: Storage) -> np.ndarray:
    if len(raw) != storage.nbytes:
        raise WeightsFileError(
            f"its storage {storage.key[:50]!r} claims {storage.count} x {storage.dtype} but holds "
            f"{len(raw)} bytes"
        )
    if storage.dtype == np.bool_:
        return np.frombuffer(raw, np.uint8) != 0
    return np.frombuffer(raw, storage.dtype)


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
