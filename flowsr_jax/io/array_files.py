"""Weights that are plain arrays: .npz and .safetensors, with the notes in them."""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path

import numpy as np

from flowsr_jax.io.state_dicts import MEBIBYTE, line
from flowsr_jax.io.torch_pickle import WeightsFileError

COMPRESSION = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others inflate in unbounded steps
RECORD = "flowsr_jax.json"  # entry or metadata key: the config of weights that `to_torch` wrote
SAFE_DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8",
               "BOOL")  # fmt: skip


def zip_entries(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """Return the archive's entries, none of which can inflate without end.

    Raises:
      WeightsFileError: two entries of one name, another packing, or sizes beyond the file's.
    """
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


def inflate(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Return an entry's bytes, no more of them than it claims."""
    with archive.open(info) as file:
        return file.read(info.file_size)  # without a size all is inflated, then cut off


def is_npz(path: Path) -> bool:
    """Return whether a zip archive is one of arrays; a damaged one goes by its suffix."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # zipfile raises nearly anything on damaged files
        return path.suffix == ".npz"
    return bool(names) and all(name.endswith(".npy") or name == RECORD for name in names)


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read the arrays of an .npz file; errors as `npz_with_notes`."""
    return npz_with_notes(Path(path))[0]


def npz_with_notes(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the arrays of an .npz file and its notes {name: text}.

    Sizes are checked before anything is reserved.

    Raises:
      FileNotFoundError: there is no such file.
      WeightsFileError: a damaged file, or pickled objects in it.
    """
    notes = {}
    try:
        with zipfile.ZipFile(path) as archive:
            entries = zip_entries(archive, path)
            if RECORD in entries:
                notes[RECORD] = inflate(archive, entries.pop(RECORD)).decode()
            for name, info in entries.items():
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
            return {key: arrays[key] for key in arrays.files if key != RECORD}, notes
    except (WeightsFileError, FileNotFoundError):
        raise
    except Exception as error:  # zipfile and numpy raise nearly anything on damaged files
        raise WeightsFileError(f"{path}: damaged .npz ({line(error)})") from None


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the tensors of a .safetensors file and its metadata {name: text}.

    Raises:
      WeightsFileError: a damaged file, or tensors of a number type that NumPy does not have.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            kinds = {name: file.get_slice(name).get_dtype() for name in names}
            odd = [name for name in names if kinds[name] not in SAFE_DTYPES]
            if odd:
                raise WeightsFileError(
                    f"{path}: {len(odd)} tensors hold {kinds[odd[0]]} (first: {odd[0][:100]!r}), "
                    f"which is not read; known are {', '.join(SAFE_DTYPES)}"
                )
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except WeightsFileError:
        raise
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsFileError(f"{path}: damaged .safetensors ({line(error)})") from None
