"""What the commands of Glow, RealNVP and NICE share: files in, pictures and sheets out.

Images are encoded as they are: 8-bit values are points inside the cells that the model
knows, and no noise is added (the released demo adds one draw), so they decode exactly.
Results have the model's n_bits, as the released code writes them: with 5 bits, multiples
of 8.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from flowsr_jax.console import UsageError
from flowsr_jax.editing.unconditional import check_unconditional
from flowsr_jax.files.colour import LUMA, to_float
from flowsr_jax.files.images import read_rgb
from flowsr_jax.files.sheet import write_sheet
from flowsr_jax.math.resize import imresize
from flowsr_jax.models import Params, family_of
from flowsr_jax.models.unconditional import to_uint8

SHOWN = 96  # least side of a picture on a sheet
BATCH = 16


def check_model(params: Params) -> None:
    """Raise ValueError unless the model is a flow that draws grey or RGB images from nothing."""
    shape = check_unconditional(params).image_shape(params.config)
    if len(shape) != 3 or shape[-1] not in (1, 3):
        raise UsageError(f"this {params.config.family} draws arrays {shape}, which no file holds")


def image_shape(params: Params, size: int | None) -> tuple[int, int, int]:
    """Return [H,W,C] of square images of this size; None is what the model draws."""
    shape = family_of(params).image_shape(params.config)
    return shape if size is None else (size, size, shape[-1])


def read_pixels(params: Params, path: str | os.PathLike, size: int | None = None) -> np.ndarray:
    """Read an image file in the channels of the model: uint8 [H,W,C].

    Args:
      params: model parameters; with one channel the luminance is taken.
      path: the file.
      size: cut the central square and resize it (MATLAB's bicubic) to this side; None
        takes the image as it is.

    Raises:
      ImageError: it cannot be read.
    """
    rgb = read_rgb(path)
    if size is not None:
        side = min(rgb.shape[:2])
        top, left = ((n - side) // 2 for n in rgb.shape[:2])
        rgb = imresize(rgb[top : top + side, left : left + side], output_shape=(size, size))
    return in_channels(params, rgb)


def in_channels(params: Params, rgb: np.ndarray) -> np.ndarray:
    """Return uint8 [H,W,3] in the channels of the model."""
    if family_of(params).channels(params.config) == 1:
        return np.rint(rgb @ np.array(LUMA))[..., None].astype(np.uint8)
    return rgb


def to_pixels(params: Params, images, *, draws: bool = False) -> np.ndarray:
    """Return images [B,H,W,C] as uint8 [B,H,W,3] at the model's n_bits.

    Args:
      draws: of `flowsr_jax.sample`, which warns of values that are not finite: they are
        shown black, as on the sheets of a training run.

    Raises:
      UsageError: values that are not finite, unless `draws`.
    """
    finite = np.isfinite(np.asarray(images))
    if not draws and not finite.all():
        raise UsageError(
            f"{finite.size - np.count_nonzero(finite)} of {finite.size} values are not finite: "
            "too far from what the model has learned"
        )
    n_bits = family_of(params).n_bits(params.config)
    pixels = np.asarray(to_uint8(np.where(finite, images, 0.0), n_bits))
    return np.broadcast_to(pixels, (*pixels.shape[:3], 3))


def in_batches(function: Callable, pixels: Sequence[np.ndarray]) -> np.ndarray:
    """Return a function of float images [BATCH,H,W,C] for at most BATCH images; compiles once."""
    batch = np.stack([pixels[i % len(pixels)] for i in range(BATCH)])
    return np.asarray(function(to_float(batch)))[: len(pixels)]


def exists(paths: Sequence[Path], overwrite: bool) -> bool:
    """Return whether the outputs are there and shall stay, and say so."""
    if overwrite or not all(path.exists() for path in paths):
        return False
    print(f"{paths[0]}: skipped: it exists (--overwrite makes it again)", flush=True)
    return True


def draw_sheet(path: Path, rows: Sequence[tuple[str, Sequence[tuple[str, np.ndarray]]]]) -> None:
    """Write a sheet (`write_sheet`) with small pictures enlarged: pixels become squares."""

    def large(picture):
        factor = -(-SHOWN // max(picture.shape[:2]))
        picture = np.broadcast_to(picture, (*picture.shape[:2], 3))
        return picture.repeat(factor, axis=0).repeat(factor, axis=1)

    write_sheet(str(path), [(t, [(c, large(p)) for c, p in row]) for t, row in rows])
