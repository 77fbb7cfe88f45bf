"""A copy of libjpeg's arithmetic as array operations, for use inside programs."""

from __future__ import annotations

import numpy as np

from flowsr_jax.math.arrays import (
    check_images,
    check_per_image,
    namespace,
    straight_through,
)
from flowsr_jax.math.jpeg import (
    dct_flat,
    from_blocks,
    idct_flat,
    jpeg_tables,
    pool_2x2,
    rgb_to_ycbcr,
    to_blocks,
)
from flowsr_jax.types import AnyArray, PyTree, Scalar

# A coefficient divided by its step is often exactly half-way between two whole numbers.
# This distance from the tie decides then, not the rounding errors of float32.
TIE = 1e-4


def jpeg_like(x: AnyArray, quality: Scalar) -> AnyArray:
    """Return images after compression nearly as libjpeg does it (4:2:0, fancy upsampling).

    Only libjpeg's integer DCT is missing: values differ from the codec's by about one
    8-bit level or less on average.  Where exactness matters, use `jpeg_codec` on the host.

    Args:
      x: floats, [H,W,3] or [B,H,W,3]; clipped to [0,1] and rounded to 8 bits first.
      quality: whole number in 1..100, one or one per image [B].

    Returns:
      array like x, multiples of 1/255; its gradient to x is the identity (straight-through),
      to quality none.

    Raises:
      ValueError: another shape, dtype or quality.

    Source: IRN-Compression trains through the real codec with this gradient; the steps
    are those of libjpeg (jcprepct, jcsample, jcdctmgr, jdsample, jdcolor).
    """
    check_images(x, channels=3)
    check_per_image("quality", quality, x)
    return straight_through(_codec(x.astype(np.float32), quality).astype(x.dtype), x)


def _codec(x: AnyArray, quality: Scalar) -> AnyArray:
    xp = namespace(x, quality)
    height, width = x.shape[-3:-1]
    margin = [(0, 0)] * (x.ndim - 3) + [(0, -n % 16) for n in (height, width)] + [(0, 0)]
    levels = xp.pad(xp.round(xp.clip(x, 0, 1) * 255), margin, mode="edge")
    y, cb, cr = (xp.floor(plane + 0.5) for plane in rgb_to_ycbcr(levels))
    # libjpeg alternates the rounding of the mean, so that it has no bias.
    bias = np.resize(np.float32([1, 2]), cb.shape[-1] // 2)  # ty: ignore[invalid-argument-type]
    cb, cr = (xp.floor((pool_2x2(plane) + bias) / 4) for plane in (cb, cr))

    luma, chroma = (
        xp.asarray(table, np.float32).reshape(*np.shape(quality), 1, 64)
        for table in jpeg_tables(quality)
    )
    y = _quantise(y, luma)[..., :height, :width]
    half = (-(-height // 2), -(-width // 2))
    cb, cr = (_quantise(plane, chroma)[..., : half[0], : half[1]] for plane in (cb, cr))
    cb, cr = (_upsample(plane)[..., :height, :width] - 128 for plane in (cb, cr))

    red = y + xp.floor(1.402 * cr + 0.5)
    green = y + xp.floor(-0.344136 * cb - 0.714136 * cr + 0.5)
    blue = y + xp.floor(1.772 * cb + 0.5)
    return xp.clip(xp.stack([red, green, blue], axis=-1), 0, 255) / 255


def _quantise(plane: AnyArray, table: PyTree) -> AnyArray:
    """Put a plane of 0..255 levels through the quantised DCT."""
    xp = namespace(plane, table)
    scaled = dct_flat(to_blocks(plane) - 128) / table
    steps = xp.sign(scaled) * xp.floor(xp.abs(scaled) + 0.5 + TIE)  # half away from zero
    levels = from_blocks(idct_flat(steps * table) + 128, *plane.shape[-2:])
    return xp.clip(xp.round(levels), 0, 255)


def _upsample(plane: AnyArray) -> AnyArray:
    """Return a plane of twice the sides, by libjpeg's triangle filter; edges repeat."""
    rows = _double(plane.swapaxes(-1, -2), 0, 0, 1).swapaxes(-1, -2)  # 4 times the levels
    return _double(rows, 8, 7, 16)


def _double(x: AnyArray, even_bias: int, odd_bias: int, divisor: int) -> AnyArray:
    xp = namespace(x)
    before = xp.concatenate([x[..., :1], x[..., :-1]], axis=-1)
    after = xp.concatenate([x[..., 1:], x[..., -1:]], axis=-1)
    even = xp.floor((3 * x + before + even_bias) / divisor)
    odd = xp.floor((3 * x + after + odd_bias) / divisor)
    return xp.stack([even, odd], axis=-1).reshape(*x.shape[:-1], -1)
