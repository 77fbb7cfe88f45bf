"""Official weight files to parameters, with the notes that a converted folder keeps."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from flowsr_jax.io.ncnn_file import ncnn_pair
from flowsr_jax.io.state_dicts import Report
from flowsr_jax.io.tf_checkpoint import checkpoint_files, checkpoint_prefix
from flowsr_jax.io.torch_file import WeightsFile, WeightsFileError, open_weights
from flowsr_jax.models.importer import SHOWN, Imported, import_weights, show


def import_files(
    *paths: str | os.PathLike,
    model: str | None = None,
    report: Report | None = None,
    key: str | None = None,
    **overrides,
) -> tuple[Imported, dict[str, Any]]:
    """Read a model from its official weight file, or from several that belong together.

    Args:
      *paths: as `open_weights` takes; of several the keys are put together.
      model, **overrides: see `import_weights`.
      report, key: see `open_weights`.

    Returns:
      The parameters, and JSON-ready notes: "source" and "source_sha256" of the files,
      "licence" (of the files' own metadata, or None), "left_out" and "tensors" (their number).

    Raises:
      FileNotFoundError, WeightsFileError, ValueError: see `open_weights`, `import_weights`.
    """
    state: dict[str, Any] = {}
    licences, records = [], []
    for path in paths:
        file = open_weights(path, report, key)
        found = file.tensors
        licences += [file.licence] if file.licence else []
        records += [record_of(file, str(path))] if file.record else []
        if twice := [show(key) for key in found if key in state]:
            names = ", ".join(twice[:SHOWN])
            raise WeightsFileError(f"{path}: {len(twice)} keys are in another file too: {names}")
        state |= found
    recorded = records[0] if len(paths) == 1 and records else None
    imported = import_weights(state, model, recorded=recorded, **overrides)
    notes = {
        "source": " + ".join(Path(path).name for path in paths),
        "source_sha256": " + ".join(sha256(file) for path in paths for file in _files(path)),
        "licence": " + ".join(dict.fromkeys(licences)) or None,
        "left_out": list(imported.ignored),
        "tensors": len(state),
    }
    return imported, notes


def record_of(file: WeightsFile, name: str) -> dict[str, Any] | None:
    """Return {"family", "config"} that a file says of its model; ncnn's says no family.

    Raises:
      WeightsFileError: a record that is no such thing.
    """
    if file.record is None:
        return None
    try:
        record = json.loads(file.record)
        return {"family": record.get("family"), "config": dict(record["config"])}
    except (ValueError, TypeError, KeyError, RecursionError):
        raise WeightsFileError(f"{name}: its record of the model is damaged") from None


def _files(path: str | os.PathLike) -> list:
    if pair := ncnn_pair(path):
        return list(pair)
    prefix = checkpoint_prefix(path)
    return [path] if prefix is None else checkpoint_files(prefix)


def sha256(path: str | os.PathLike) -> str:
    """Return the checksum of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
