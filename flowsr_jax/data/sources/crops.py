"""The crops of an image, as records."""

from __future__ import annotations

import collections
import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from flowsr_jax.console import one_line
from flowsr_jax.data.sources import Source
from flowsr_jax.data.sources.array_records import encode_record
from flowsr_jax.data.transforms import degrade, fits, whole_cells


def in_order(source: Source, start: int, **options: Any) -> Iterator[list[Any] | str]:
    """Yield what `records_of` returns for each image from `start`; threads work ahead."""
    workers = min(16, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        waiting = collections.deque()
        try:
            for image in range(start, len(source)):
                waiting.append(pool.submit(records_of, source, image, **options))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def records_of(
    source: Source, image: int, *, crop: int, step: int, scale: int | None
) -> list[tuple[bytes, tuple[int, int]]] | str:
    """Return [(record, (height, width) of its HR image)] of an image, or why it has none.

    Args:
      source, image: where it is; crop, step, scale: as in `write_records`.
    """
    try:
        example = dict(source[image])
    except (ValueError, OSError) as error:
        reason = str(error)
        return reason.partition(f"{one_line(source.name(image))}: ")[2] or reason
    hr = example["hr"]
    if scale:
        if "lr" in example and not fits(hr.shape, example["lr"].shape, scale):
            large, small = (f"{example[k].shape[1]}x{example[k].shape[0]}" for k in ("hr", "lr"))
            return f"LR has {small} pixels, HR {large}: not the scale {scale}"
        hr = example["hr"] = whole_cells(hr, scale)
    if min(hr.shape[:2]) < (crop or scale or 1):
        return f"too small: {hr.shape[1]}x{hr.shape[0]} pixels, at least {crop or scale} are needed"
    if scale and "lr" not in example:
        example["lr"] = degrade(hr, scale)
    if not crop:
        return [(encode_record(example, source.name(image)), hr.shape[:2])]
    offsets = (corners(n, crop, step, scale or 1) for n in hr.shape[:2])
    found = []
    for top, left in itertools.product(*offsets):
        cut = {**example, "hr": hr[top : top + crop, left : left + crop]}
        if scale:
            y, x, size = top // scale, left // scale, crop // scale
            cut["lr"] = example["lr"][y : y + size, x : x + size]
        found.append((encode_record(cut, f"{source.name(image)}@{top},{left}"), (crop, crop)))
    return found


def corners(length: int, crop: int, step: int, unit: int = 1) -> list[int]:
    """Return where crops begin along a side; each is a multiple of `unit`."""
    last = (length - crop) // unit * unit
    return sorted({*range(0, last + 1, step), last})
