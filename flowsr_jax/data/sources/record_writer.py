"""Writing the images of a source as records: what `flowsr prepare-data` calls.

The work may be stopped at any point and begun again.  Files appear whole or not at all; a
file is done when its own small JSON is there; `records.json`, which readers look for, comes
last and replaces those.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from flowsr_jax.config import ConfigError
from flowsr_jax.console import one_line
from flowsr_jax.data.sources import MIB, Source
from flowsr_jax.data.sources.array_records import (
    FORMAT,
    INDEX,
    WRITER_OPTIONS,
    is_records,
    read_index,
)
from flowsr_jax.data.sources.crops import in_order
from flowsr_jax.extras import require
from flowsr_jax.files.atomic import atomic_write, require_writable

# Pixels of one file, before compression.
SHARD_MIB = 256


@dataclasses.dataclass(frozen=True)
class Summary:
    """What was written: records, from how many images, and [(name, reason)] left out."""

    records: int
    images: int
    skipped: tuple[tuple[str, str], ...]


def write_records(
    source: Source,
    folder: str | os.PathLike,
    *,
    crop: int = 480,
    step: int = 240,
    scale: int | None = None,
    shard_mib: int = SHARD_MIB,
    message: Callable[[str], None] = print,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Summary:
    """Write every image as square crops, row by row; the last ones touch the far edges.

    With a scale, the LR images of the source, or else the MATLAB bicubic of the whole HR
    images, are cut alongside.  Called again after an interruption, it goes on.

    Args:
      source: the images; one that cannot be read is left out.
      folder: where to; made if it is not there.  One process at a time.
      crop: side of the crops in HR pixels; 0 takes whole images.
      step: distance of their corners.
      scale: HR size over LR size; None stores HR images alone.
      shard_mib: pixels of one file, in MiB.
      message: called with a line for each image that is left out.
      advance: called with (images done, images in all).

    Raises:
      ConfigError: sizes that do not go together, a folder with records of other images or
        options, or no usable image.
      OSError: the folder cannot be written to.
    """
    options = {"crop": crop, "step": step, "scale": scale}
    plan = _plan(source, **options)
    folder = Path(folder)
    require_writable(folder)
    if is_records(folder):
        index = read_index(folder)
        _check_plan(folder, index.get("plan"), plan)
        _remove_parts(folder)
        return _summary(index, len(source))
    shards = _done(folder, plan)
    start = shards[-1]["stop"] if shards else 0
    advance(start, len(source))

    records: list[bytes] = []
    part: dict[str, Any] = {"size": 0, "smallest": None, "skipped": []}
    for image, found in enumerate(in_order(source, start, **options), start):
        if isinstance(found, str):
            part["skipped"].append((source.name(image), found))
            message(one_line(f"skipped {source.name(image)}: {found}"))
        else:
            records += [record for record, _ in found]
            part["size"] += sum(3 * h * w for _, (h, w) in found)
            part["smallest"] = _smallest(part["smallest"], *(size for _, size in found))
        last = image + 1 == len(source)
        if last or part["size"] >= shard_mib * MIB:
            shards.append(_write_shard(folder, len(shards), records, part, image + 1, plan))
            records, part = [], {"size": 0, "smallest": None, "skipped": []}
        advance(image + 1, len(source))
    return _finish(folder, shards, source, plan)


def _plan(source: Source, crop: int, step: int, scale: int | None) -> dict[str, Any]:
    """Check the options, and return what the records depend on."""
    if "lr" in source.fields and scale is None:
        raise ConfigError("these images have LR images: scale is needed (--scale)")
    unit = 1 if scale is None else scale
    for name, value, least in (("crop", crop, 0), ("step", step, 1), ("scale", unit, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(f"{name} = {value!r} must be an integer of at least {least}")
    if crop % unit or (crop and step % unit):
        raise ConfigError(f"crop = {crop} and step = {step} must be multiples of scale = {unit}")
    digest = hashlib.sha256()
    for i in range(len(source)):
        digest.update(os.fsencode(source.name(i)) + b"\0")
    for file in getattr(source, "files", ()):
        digest.update(b"%d," % os.stat(file).st_size)
    options = {"crop": crop, "step": step if crop else 0, "scale": scale}
    return {**options, "images": len(source), "digest": digest.hexdigest()}


def _check_plan(folder: Path, found: Any, plan: dict[str, Any]) -> None:
    if found != plan:
        old = found if isinstance(found, dict) else {}
        new = {k: v for k, v in plan.items() if old.get(k) != v}
        differ = [f"{k} {old.get(k)!r} there, {v!r} now" for k, v in new.items()]
        raise ConfigError(
            f"{folder} holds records of other images or options ({'; '.join(differ)}); take "
            "another folder, or delete it"
        )


def _write_shard(
    folder: Path,
    number: int,
    records: list[bytes],
    part: dict[str, Any],
    stop: int,
    plan: dict[str, Any],
) -> dict[str, Any]:
    require("array_record")
    from array_record.python.array_record_module import ArrayRecordWriter

    path = folder / f"records-{number:05d}.array_record"
    shard = {
        "file": path.name if records else None,
        "records": len(records),
        "bytes": 0,
        "smallest": part["smallest"],
        "skipped": part["skipped"],
        "stop": stop,
        "plan": plan,
    }
    if records:
        with atomic_write(path) as file:
            writer = ArrayRecordWriter(os.fspath(file.name), WRITER_OPTIONS)
            for record in records:
                writer.write(record)
            writer.close()
        shard["bytes"] = path.stat().st_size
    _write_json(path.with_suffix(".json"), shard)
    return shard


def _done(folder: Path, plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the parts that an interrupted call has finished."""
    shards: list[dict[str, Any]] = []
    while True:
        path = folder / f"records-{len(shards):05d}.json"
        try:
            shard = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return shards
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"{path} cannot be read ({error}); delete {folder}") from None
        _check_plan(folder, shard.get("plan"), plan)
        shards.append(shard)


def _finish(
    folder: Path, shards: list[dict[str, Any]], source: Source, plan: dict[str, Any]
) -> Summary:
    full = [shard for shard in shards if shard["records"]]
    skipped = [entry for shard in shards for entry in shard["skipped"]]
    if not full:
        _remove_parts(folder)
        raise ConfigError(
            f"no usable image: {len(skipped)} skipped (the first: {': '.join(skipped[0])})"
        )
    fields = [*source.fields, *(["lr"] if plan["scale"] and "lr" not in source.fields else [])]
    index = {
        "format": FORMAT,
        "fields": sorted(fields, key=("hr", "lr", "label").index),
        "scale": plan["scale"],
        "records": sum(shard["records"] for shard in full),
        "smallest": _smallest(*(tuple(shard["smallest"]) for shard in full)),
        "shards": [{k: shard[k] for k in ("file", "records", "bytes")} for shard in full],
        "skipped": skipped,
        "plan": plan,
    }
    _write_json(folder / INDEX, index)
    _remove_parts(folder)
    return _summary(index, len(source))


def _summary(index: dict[str, Any], images: int) -> Summary:
    skipped = tuple(tuple(entry) for entry in index["skipped"])
    return Summary(sum(s["records"] for s in index["shards"]), images - len(skipped), skipped)


def _smallest(*sizes: tuple[int, int] | None) -> tuple[int, int] | None:
    known = [size for size in sizes if size is not None]
    return tuple(int(n) for n in np.min(known, axis=0)) if known else None


def _write_json(path: Path, record: Any) -> None:
    with atomic_write(path) as file:
        file.write((json.dumps(record, indent=1) + "\n").encode())


def _remove_parts(folder: Path) -> None:
    """Remove what `records.json` replaces."""
    for path in folder.glob("records-[0-9]*.json"):
        with contextlib.suppress(OSError):
            path.unlink()
