"""Parameter folders: `params.safetensors` and a readable `config.json`.

The tensors are named by their path in the parameter tree, "group/.../leaf".  The same
JSON record stands in `config.json` and in the header of `params.safetensors`, which is
replaced in one step: if a save is interrupted between the two files, the record beside
the tensors says what they are.  The header also holds a checksum of the record and of every
tensor, which `load` compares; folders of earlier versions have none.
"""

from __future__ import annotations

import json
import os
import re
import struct
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from flowsr_jax.config import choice, from_dict, to_dict, upgraded
from flowsr_jax.files.atomic import atomic_write, require_writable
from flowsr_jax.io.torch_file import WeightsFileError
from flowsr_jax.models.base import Params, get_family

FORMAT = 2  # 1 had the equal blocks of an RRDB apart: .../blocks/0/... instead of stacked
TENSORS = "params.safetensors"
CONFIG = "config.json"
RECORD = "flowsr_jax"  # key of the record in the header of the tensor file
CHECKSUMS = "checksums"  # key of {name: CRC-32} in that header; RECORD names the record's
STORAGE = ("float16", "bfloat16")
BUILT_IN = {"demo": Path(__file__).resolve().parents[1] / "weights" / "demo"}
SHOWN = 4  # names listed in an error


def save(
    params: Params,
    folder: str | os.PathLike,
    *,
    metadata: Mapping[str, Any] | None = None,
    storage: str | None = None,
) -> None:
    """Write parameters and their config to a folder, which is made when missing.

    Each file is replaced in one step, so an interrupted save leaves the previous
    parameters loadable.  Other files in the folder are not touched.

    Args:
      params: model parameters; leaves of any dtype that safetensors knows.
      folder: where to write `params.safetensors` and `config.json`.
      metadata: JSON-ready notes kept in the record (step, scores, ...).
      storage: "float16" or "bfloat16" halves the file: float32 leaves are rounded to it,
        and `load` gives float32 back.  None keeps the dtypes.

    Raises:
      TypeError: `params` is no Params.
      ValueError: another storage, or values beyond its range.
      OSError: the folder cannot be written to.
    """
    if not isinstance(params, Params):
        raise TypeError(f"params must be a flowsr_jax Params, got {type(params).__name__}")
    record = {"format": FORMAT, "family": params.config.family, "config": to_dict(params.config)}
    tensors = {name: np.asarray(leaf) for name, leaf in _named(params).items()}
    if storage is not None:
        record["storage"] = choice("storage", storage, STORAGE)
        tensors = {name: _half(name, leaf, storage) for name, leaf in tensors.items()}
    if metadata:
        record["metadata"] = dict(metadata)
    text = json.dumps(record, indent=2)
    sums = {RECORD: zlib.crc32(text.encode()), **{k: _checksum(v) for k, v in tensors.items()}}
    data = to_safetensors(tensors, metadata={RECORD: text, CHECKSUMS: json.dumps(sums)})
    folder = Path(folder)
    require_writable(folder)
    for name, content in ((TENSORS, data), (CONFIG, (text + "\n").encode())):
        with atomic_write(folder / name) as file:
            file.write(content)


def load(path: str | os.PathLike) -> Params:
    """Load parameters from a folder written by `save`, or from a run that holds `model/`.

    Args:
      path: the folder, or a work directory with such a folder named `model` inside; or
        the name of a model in the package ("demo") that is no path here.

    Returns:
      Params of jax arrays, in the dtypes that `save` was given.

    Raises:
      FileNotFoundError: neither is there; the message says what is missing.
      WeightsFileError: damaged files, or tensors that are not those of the config.
      ValueError: an unknown family or a config it does not accept.
    """
    path = BUILT_IN.get(str(path), Path(path)) if not os.path.exists(path) else Path(path)
    folder = _folder(path)
    tensors, embedded = _read_tensors(folder / TENSORS)
    record = _parse((folder / CONFIG).read_bytes(), folder / CONFIG)
    inside = record if embedded is None else _parse(embedded, folder / TENSORS)
    if inside != record:
        warnings.warn(
            f"{folder / CONFIG} differs from the record inside {TENSORS} (an interrupted save, or "
            "an edit); the record inside is used",
            stacklevel=2,
        )
        record = inside
    config = _config(record, folder / CONFIG)
    if record["format"] == 1:
        tensors = _stacked_blocks(tensors)
    family = get_family(record["family"])
    try:
        expected = jax.eval_shape(lambda key: family.init(config, key), jax.random.key(0))
    except (TypeError, ValueError, ArithmeticError, MemoryError) as error:
        reason = " ".join(str(error).split())
        raise WeightsFileError(f"{folder / CONFIG}: describes no model ({reason})") from None
    names = _named(expected)
    _compare(names, tensors, folder / TENSORS)
    if "storage" in record:
        tensors = {name: tensors[name].astype(leaf.dtype) for name, leaf in names.items()}
    leaves = [jnp.asarray(tensors[name]) for name in names]
    return jax.tree.unflatten(jax.tree.structure(expected), leaves)


def _half(name: str, leaf: np.ndarray, storage: str) -> np.ndarray:
    if leaf.dtype != np.float32:
        return leaf
    with np.errstate(over="ignore"):  # checked below
        half = leaf.astype(jnp.dtype(storage))
    if not np.array_equal(np.isfinite(half), np.isfinite(leaf)):
        raise ValueError(f"{name}: values up to {np.abs(leaf).max():g} do not fit {storage}")
    return half


def _named(tree) -> dict[str, Any]:
    """Return {"group/.../leaf": leaf} in the order of the tree's leaves."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = {jax.tree_util.keystr(p, simple=True, separator="/"): leaf for p, leaf in leaves}
    if len(named) != len(leaves):
        raise ValueError("two parameters have one name (a key that contains '/')")
    return named


def _folder(path: Path) -> Path:
    for folder in (path, path / "model"):
        if (folder / TENSORS).is_file() and (folder / CONFIG).is_file():
            return folder
    if not path.exists():
        known = f", nor a model of the package ({', '.join(BUILT_IN)})"
        raise FileNotFoundError(f"{path}: no such folder{known if path.name == str(path) else ''}")
    if path.is_file():
        raise FileNotFoundError(
            f"{path}: is a file; a folder with {TENSORS} and {CONFIG} is needed"
        )
    for folder in (path, path / "model"):
        missing = [name for name in (TENSORS, CONFIG) if not (folder / name).is_file()]
        if len(missing) == 1:
            raise FileNotFoundError(f"{folder}: {missing[0]} is missing")
    raise FileNotFoundError(
        f"{path}: holds no model: neither {TENSORS} and {CONFIG} nor a folder model/ with them"
    )


def _read_tensors(path: Path) -> tuple[dict[str, np.ndarray], str | None]:
    with open(path, "rb"):  # safe_open calls a file that may not be read a missing one
        pass
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            notes = file.metadata() or {}
    except (SafetensorError, struct.error, KeyError, TypeError) as error:
        raise WeightsFileError(f"{path}: damaged ({' '.join(str(error).split())})") from None
    record = notes.get(RECORD)
    if CHECKSUMS in notes:
        _compare_checksums(_parse(notes[CHECKSUMS], path), tensors, record, path)
    return tensors, record


def _compare_checksums(wanted: Any, tensors: Mapping, record: str | None, path: Path) -> None:
    found = {RECORD: zlib.crc32((record or "").encode())}
    found |= {name: _checksum(tensor) for name, tensor in tensors.items()}
    if not isinstance(wanted, dict):
        raise WeightsFileError(f"{path}: damaged (its checksums are no object)")
    bad = sorted(k for k in {*found, *wanted} if found.get(k) != wanted.get(k))
    if bad:
        raise WeightsFileError(f"{path}: damaged ({bad[0]} has another checksum than was saved)")


def _checksum(tensor: np.ndarray) -> int:
    kind = zlib.crc32(f"{tensor.dtype.name} {tensor.shape}".encode())
    return zlib.crc32(np.ascontiguousarray(tensor).reshape(-1).view(np.uint8), kind)


def _parse(text: str | bytes, path: Path) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # nested without end
        raise WeightsFileError(f"{path}: is not JSON ({error})") from None


def _config(record: Any, path: Path):
    wanted = {"format": int, "family": str, "config": dict}
    if not isinstance(record, dict) or not all(
        isinstance(record.get(field), kind) for field, kind in wanted.items()
    ):
        raise WeightsFileError(
            f"{path}: must be a JSON object with the fields format (a number), family (a name) "
            "and config (an object)"
        )
    if record["format"] not in range(1, FORMAT + 1):
        raise WeightsFileError(
            f"{path}: format {record['format']} is unknown; this version reads 1 to {FORMAT}"
        )
    family = get_family(record["family"])
    try:
        return from_dict(family.config_class, upgraded(record["config"]), f"{path}: config")
    except RecursionError:
        raise WeightsFileError(f"{path}: its config is nested too deeply") from None


def _stacked_blocks(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the tensors of a folder of format 1 as those of format 2."""
    new, blocks = {}, {}
    for name, tensor in tensors.items():
        if match := re.fullmatch(r"(.*blocks/)(\d+)/(.*)", name):
            blocks.setdefault(match[1] + match[3], {})[int(match[2])] = tensor
        else:
            new[name] = tensor
    for name, parts in blocks.items():
        new[name] = np.stack([parts[i] for i in sorted(parts)])
    return new


def _compare(expected: Mapping, found: Mapping, path: Path) -> None:
    faults = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "of another shape": [
            f"{name} {found[name].shape} instead of {expected[name].shape}"
            for name in expected
            if name in found and found[name].shape != expected[name].shape
        ],
    }
    parts = []
    for what, names in faults.items():
        if names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            parts.append(f"{len(names)} {what}: {', '.join(names[:SHOWN])}{more}")
    if parts:
        raise WeightsFileError(f"{path}: does not fit its config; {'; '.join(parts)}")
