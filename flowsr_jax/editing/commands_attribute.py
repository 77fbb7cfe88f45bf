"""Attributes of images as directions in the latent space of Glow, RealNVP and NICE."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flowsr_jax.console import Summary, UsageError, one_line, progress
from flowsr_jax.editing import unconditional as edits
from flowsr_jax.editing.attributes import (
    Directions,
    Labels,
    choose,
    read_directions,
    read_labels,
    write_directions,
)
from flowsr_jax.editing.unconditional_files import (
    BATCH,
    check_model,
    draw_sheet,
    in_batches,
    read_pixels,
    to_pixels,
)
from flowsr_jax.files.atomic import require_writable
from flowsr_jax.files.colour import to_float
from flowsr_jax.files.images import ImageError, write_png
from flowsr_jax.files.listing import list_images
from flowsr_jax.models import Params


def attribute_files(
    params: Params,
    out: str | os.PathLike,
    *,
    images: str | os.PathLike | None = None,
    labels: str | os.PathLike | None = None,
    directions: str | os.PathLike | None = None,
    image: str | os.PathLike | None = None,
    names: Sequence[str] | None = None,
    steps: int = 5,
    reach: float = 1.0,
    factor: float = 1.6,
    size: int | None = None,
    label: int | None = None,
    overwrite: bool = False,
) -> Summary:
    """Find directions of attributes, and move an image along them.

    Writes OUT/directions.npz (see `attributes.read_directions`), which a later call takes
    unless `overwrite`; with an `image` also OUT/IMAGE_ATTRIBUTE_0.png, ..., from -reach to
    +reach times the direction, and OUT/IMAGE_attributes.png, a row per attribute.

    Args:
      params: model parameters.
      out: output folder, made when missing.
      images: folder of images of one size, which the model takes.  Those that cannot be
        read are reported and left out.
      labels: file of their attributes; see `attributes.read_labels`.
      directions: a file of directions, in place of both.
      image: file to move.
      names: attributes to move it along; None is all.
      steps: pictures in a row, at least 2.
      reach: how far, in directions.
      factor: of the differences of mean codes.
      size: images are cut to their central square and resized to this side; None takes
        them as they are.
      label: class of all images, of a class-conditional model.
      overwrite: make directions.npz again.

    Returns:
      the counts: 1 written, and the images and rows that failed.

    Raises:
      ValueError: nothing can be done; the message says why.
    """
    check_model(params)
    if (directions is None) == (images is None or labels is None):
        raise UsageError("attribute needs --images and --labels, or --directions without them")
    if directions is not None and image is None:
        raise UsageError("--directions needs an --image to move")
    if not np.isfinite([reach, factor]).all():
        raise UsageError(f"reach = {reach} and factor = {factor} must be finite")
    edits.check_points(steps, name="steps")
    out, failed = Path(out), 0
    require_writable(out)
    kept = out / "directions.npz"
    if image is not None:  # a mistake in it is told before the long work
        pixels = read_pixels(params, image, size)
        edits.check_points(steps, pixels.shape, "steps")
        code = edits.to_codes(params, to_float(pixels[None]), label=label)
    made = directions is None and (overwrite or not kept.exists())
    if not made:
        if directions is None:
            print(f"{kept} is there and is taken (--overwrite makes it again)", flush=True)
        found = read_directions(kept if directions is None else directions)
    else:
        known = read_labels(labels)
        choose(known.names, names)
        files = _labelled(known, labels, Path(images))
        array, failed = _find(params, files, known, factor, size, label)
        found = Directions(known.names, array)
        write_directions(kept, found)
        print(f"written: {kept}", flush=True)
    if image is None:
        return Summary(int(made), 1 - made, failed)
    failed += _move(params, out, Path(image), pixels, code, found.of(names), steps, reach, label)
    return Summary(1, 0, failed)


def _move(params, out: Path, image: Path, pixels, code, found: Directions, steps, reach, label):
    """Write the row of each attribute, and the sheet; return how many rows failed."""
    if found.array.shape[1] != code.shape[1]:
        raise UsageError(
            f"the directions are of images of {found.array.shape[1]} values, {image} has "
            f"{code.shape[1]}"
        )
    scores = np.asarray(edits.projection(code, found.array))[0]
    captions = [f"{a:+.2g}" for a in np.linspace(-reach, reach, steps)]
    rows = []
    for name, direction, score in zip(found.names, found.array, scores, strict=True):
        line = edits.attribute_line(code[0], direction, steps, reach)
        images = edits.from_codes(params, line, pixels.shape, label=label)
        try:
            moved = to_pixels(params, images)
        except UsageError as error:
            print(one_line(f"{name}: failed: {error}; a smaller --reach may do"), file=sys.stderr)
            continue
        base = f"{image.stem}_{re.sub(r'[^A-Za-z0-9_.-]', '_', name)}"
        for i, picture in enumerate(moved):
            write_png(out / f"{base}_{i}.png", picture)
        rows.append((name, [("image", pixels), *zip(captions, moved, strict=True)]))
        print(one_line(f"{base}_*.png written; {image.name} has {score:+.3f} of {name}"))
    if rows:
        draw_sheet(out / f"{image.stem}_attributes.png", rows)
    return len(found.names) - len(rows)


def _labelled(known: Labels, source, folder: Path) -> dict[str, Path]:
    """Return {image name: file} of the labelled images of a folder."""
    listing = list_images(folder)
    if listing.note():
        print(listing.note(), flush=True)
    files = dict(zip(listing.names, listing.files, strict=True))
    lost = [name for name in known.values if name not in files]
    if lost:
        raise UsageError(
            f"{source}: {len(lost)} of {len(known.values)} images are not in {folder}; the "
            f"first: {lost[0]!r}"
        )
    values = np.array(list(known.values.values()))
    for name, column in zip(known.names, values.T, strict=True):
        if abs(column.sum()) == len(column):
            raise UsageError(f"{source}: all images have {name} = {column[0]}; both are needed")
    if len(files) > len(known.values):
        print(f"{len(files) - len(known.values)} images without labels are left out", flush=True)
    return {name: files[name] for name in known.values}


def _find(params, files: dict[str, Path], known: Labels, factor, size, label):
    """Return (directions [A,D], number of images that failed)."""
    failed = 0

    def read():
        """Yield (name, pixels) of the images that can be read and have the size of the first."""
        nonlocal failed
        first = None
        for name, file in files.items():
            try:
                pixels = read_pixels(params, file, size)
                first = pixels.shape if first is None else first
                if pixels.shape != first:
                    raise ImageError(
                        f"{file}: is {_by(pixels)}, not {first[1]}x{first[0]} as the first one "
                        "(--size makes all equal)"
                    )
                yield name, pixels
            except ImageError as error:
                failed += 1
                shown.finish(f"failed: {error}", problem=True)

    def encoded(held):
        nonlocal failed
        codes = in_batches(
            lambda x: edits.to_codes(params, x, label=label), [pixels for _, pixels in held]
        )
        finite = np.isfinite(codes).all(axis=1)
        failed += int(np.count_nonzero(~finite))
        for (name, _), good in zip(held, finite, strict=True):
            shown.finish(name if good else f"failed: {name}: its code is not finite", not good)
        return codes[finite], np.array([known.values[name] for name, _ in held])[finite]

    def batches():
        held = []
        for item in read():
            held.append(item)
            if len(held) == BATCH:
                yield encoded(held)
                held = []
        if held:
            yield encoded(held)

    with progress(len(files)) as shown:
        return edits.attribute_directions(batches(), factor), failed


def _by(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
