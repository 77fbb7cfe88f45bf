"""Draws of Glow, RealNVP and NICE: temperatures, and models of several depths."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from flowsr_jax import api
from flowsr_jax.console import Summary, UsageError, check_seed, progress
from flowsr_jax.data import EmbeddedSource
from flowsr_jax.editing.unconditional import TEMPERATURES, temperature_sweep
from flowsr_jax.editing.unconditional_files import (
    BATCH,
    check_model,
    draw_sheet,
    exists,
    image_shape,
    in_batches,
    in_channels,
    to_pixels,
)
from flowsr_jax.files.atomic import atomic_write, require_writable
from flowsr_jax.files.images import ImageError, read_rgb
from flowsr_jax.files.listing import list_images
from flowsr_jax.models import Params, family_of


def temperature_files(
    params: Params,
    out: str | os.PathLike,
    *,
    draws: int = 6,
    size: int | None = None,
    label: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Summary:
    """Write OUT/temperature.png: a row per draw, a column per temperature.

    Args:
      params: model parameters.
      out: output folder, made when missing.
      draws: rows; each has one noise for all temperatures.
      size: side of the images; None is the model's.
      label: class of the images, of a class-conditional model.
      seed: 0 <= seed < 2**32.
      overwrite: also when the sheet exists.

    Raises:
      ValueError: an argument that the model cannot take, or a folder that cannot be used.
    """
    check_model(params)
    _check_draws(draws, seed)
    path = Path(out) / "temperature.png"
    require_writable(path.parent)
    if exists([path], overwrite):
        return Summary(0, 1, 0)
    found = temperature_sweep(
        params,
        jax.random.key(seed),
        num_samples=draws,
        shape=image_shape(params, size),
        label=label,
    )
    pictures = np.stack([to_pixels(params, images, draws=True) for images in found], axis=1)
    names = [f"T={t:g}" for t in TEMPERATURES]
    rows = [(f"{i + 1}", list(zip(names, row, strict=True))) for i, row in enumerate(pictures)]
    draw_sheet(path, rows)
    return Summary(1, 0, 0)


def depth_files(
    params: Params,
    out: str | os.PathLike,
    *,
    models: Sequence[str],
    images: str | os.PathLike | None = None,
    draws: int = 6,
    temperature: float | None = None,
    size: int | None = None,
    label: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Summary:
    """Compare models of different depth L: draws side by side, and bits per dimension.

    Writes OUT/depth.png, a row per model, and OUT/depth.csv, which is printed too.

    Args:
      params: the first model.
      out: output folder, made when missing.
      models: paths of the others.
      images: file or folder for bits/dim, or "embedded"; None leaves them out.  All whole
        squares of `size` are measured, with one draw of dequantisation noise, the same
        for all models.
      draws: samples of each model.
      temperature: of the samples; None is each model's own.
      size: side of samples and squares; None is that of the largest model.
      label, seed, overwrite: as `temperature_files`.

    Raises:
      ValueError: as `temperature_files`; models of different channels.
    """
    _check_draws(draws, seed)
    every = [params, *map(api.read_model, models)]
    for one in every:
        check_model(one)
    shapes = [image_shape(one, None) for one in every]
    if len({shape[-1] for shape in shapes}) > 1:
        raise UsageError("the models have different numbers of channels")
    size = max(shape[0] for shape in shapes) if size is None else size
    out = Path(out)
    require_writable(out)
    if exists([out / "depth.csv", out / "depth.png"], overwrite):
        return Summary(0, 1, 0)
    options = {} if label is None else {"label": label}
    table, rows = [], []
    for i, one in enumerate(every, 1):
        shape = image_shape(one, size)
        key = jax.random.key(seed)
        how = {"shape": shape, "num_samples": draws, "temperature": temperature, **options}
        drawn = to_pixels(one, api.sample(one, None, key, **how), draws=True)
        latents = family_of(one).latent_shapes(one.config, (1, *shape))
        count = sum(leaf.size for leaf in jax.tree.leaves(one))
        n_bits = family_of(one).n_bits(one.config)
        row = {"model": i, "levels": len(latents), "parameters": count, "n_bits": n_bits}
        rows.append((f"{i}, L={len(latents)}", [(f"#{k}", x) for k, x in enumerate(drawn, 1)]))
        table.append(row)
    failed = 0
    if images is not None:
        means, count, failed = _measure(every, images, size, seed, options)
        for row, value in zip(table, means, strict=True):
            row |= {"bits_per_dim": f"{value:.4f}", "squares": count}
        if len({row["n_bits"] for row in table}) > 1:
            print("bits/dim of images of different n_bits do not compare", flush=True)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    print(text.getvalue(), end="", flush=True)
    with atomic_write(out / "depth.csv") as file:
        file.write(text.getvalue().encode())
    draw_sheet(out / "depth.png", rows)
    return Summary(1, 0, failed)


def _check_draws(draws: int, seed: int) -> None:
    if draws < 1:
        raise UsageError(f"draws = {draws} must be at least 1")
    check_seed(seed)


def _measure(every: Sequence[Params], images, size: int, seed: int, options: Mapping):
    """Return (mean bits/dim of each model, number of squares, number of failed images)."""
    named: dict[str, Callable[[], np.ndarray]]
    if str(images) == "embedded":
        source = EmbeddedSource("valid")
        named = {source.name(i): lambda i=i: source[i]["hr"] for i in range(len(source))}
    else:
        named = {str(file): lambda file=file: read_rgb(file) for file in list_images(images).files}
    sums, count, failed = np.zeros(len(every)), 0, 0
    with progress(len(named)) as shown:
        for index, (name, read) in enumerate(named.items()):
            try:
                squares = _squares(in_channels(every[0], read()), size)
                if not squares:
                    raise ImageError(f"{name}: is smaller than {size}x{size}")
            except ImageError as error:
                failed += 1
                shown.finish(f"failed: {error}", problem=True)
                continue
            key = jax.random.fold_in(jax.random.key(seed), index)
            sums += [_bits(one, squares, key, options) for one in every]
            count += len(squares)
            so_far = ", ".join(f"{value / count:.3f}" for value in sums)
            shown.finish(f"{name}: {len(squares)} squares; bits/dim so far: {so_far}")
    if not count:
        raise UsageError(f"{images}: no image could be measured")
    return sums / count, count, failed


def _bits(params: Params, squares: Sequence[np.ndarray], key, options: Mapping) -> float:
    """Return the sum of the bits/dim of squares, uint8 [size,size,C] each."""
    total = 0.0
    for start in range(0, len(squares), BATCH):
        noise = jax.random.fold_in(key, start)
        found = in_batches(
            lambda x, noise=noise: api.bits_per_dim(params, x, key=noise, **options),
            squares[start : start + BATCH],
        )
        total += found.sum(dtype=np.float64)
    return total


def _squares(image: np.ndarray, size: int) -> list[np.ndarray]:
    """Return all whole squares of an image, from the top left."""
    h, w = image.shape[:2]
    return [
        image[y : y + size, x : x + size]
        for y in range(0, h - size + 1, size)
        for x in range(0, w - size + 1, size)
    ]
