"""Official weight files to parameters, with the notes that a converted folder keeps."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from flowsr_jax.io.tf_checkpoint import checkpoint_files, checkpoint_prefix
from flowsr_jax.io.torch_file import Report, WeightsFileError, read_weights
from flowsr_jax.models.importer import SHOWN, Imported, import_weights, show


def import_files(
    *paths: str | os.PathLike,
    model: str | None = None,
    report: Report | None = None,
    **overrides,
) -> tuple[Imported, dict[str, Any]]:
    """Read a model from its official weight file, or from several that belong together.

    Args:
      *paths: as `read_weights` takes; of several the keys are put together.
      model, **overrides: see `import_weights`.
      report: see `read_weights`.

    Returns:
      The parameters, and JSON-ready notes: "source" and "source_sha256" of the files,
      "licence", "left_out" and "tensors" (their number).

    Raises:
      FileNotFoundError, WeightsFileError, ValueError: see `read_weights`, `import_weights`.
    """
    state: dict[str, Any] = {}
    for path in paths:
        found = read_weights(path, report)
        if twice := [show(key) for key in found if key in state]:
            names = ", ".join(twice[:SHOWN])
            raise WeightsFileError(f"{path}: {len(twice)} keys are in another file too: {names}")
        state |= found
    imported = import_weights(state, model, **overrides)
    notes = {
        "source": " + ".join(Path(path).name for path in paths),
        "source_sha256": " + ".join(sha256(file) for path in paths for file in _files(path)),
        "licence": imported.licence,
        "left_out": list(imported.ignored),
        "tensors": len(state),
    }
    return imported, notes


def _files(path: str | os.PathLike) -> list:
    prefix = checkpoint_prefix(path)
    return [path] if prefix is None else checkpoint_files(prefix)


def sha256(path: str | os.PathLike) -> str:
    """Return the checksum of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
