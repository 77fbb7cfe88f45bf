"""Convolutions of nearest-enlarged features, evaluated at the small size.

Enlarged f times, an image has f equal pixels in each direction, and a 3x3 convolution
sees at most two different ones: the outputs at the cell's first, inner and last places
are convolutions of the small image with kernels whose taps on one pixel are summed.
At f = 2 that is 16 instead of 36 taps per small pixel, at f = 4 25 instead of 144, and
the enlarged image is never made.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from flowsr_jax.nets.conv import Compute, conv2d
from flowsr_jax.nets.layers import Conv
from flowsr_jax.types import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Upsampled:
    """Features [B,h,w,C] that stand for their nearest enlargement [B,fh,fw,C].

    Attributes:
      x: the small features.
      factor: f.
    """

    x: jax.Array
    factor: int = dataclasses.field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the enlargement."""
        b, h, w, c = self.x.shape
        return (b, h * self.factor, w * self.factor, c)


def nearest(x: Array, factor: int) -> Array:
    """Return rows and columns repeated: [B,h,w,C] -> [B,fh,fw,C]."""
    return x if factor == 1 else jnp.repeat(jnp.repeat(x, factor, axis=1), factor, axis=2)


def dense(parts: Sequence[Upsampled]) -> Array:
    """Return the channels of all `Upsampled` parts, enlarged and side by side: [B,H,W,C]."""
    return jnp.concatenate([nearest(part.x, part.factor) for part in parts], axis=-1)


def conv_parts(parts: Sequence[Upsampled], kernel: Array, compute: Compute) -> Array:
    """Return the 3x3 convolution of `dense(parts)`, [3,3,C,Co] -> [B,H,W,Co] float32."""
    total, start = 0.0, 0
    for part in parts:
        stop = start + part.x.shape[-1]
        total += conv_nearest(part.x, kernel[:, :, start:stop], part.factor, compute)
        start = stop
    return total  # ty: ignore[invalid-explicit-return]


def conv_nearest(x: Array, kernel: Array, factor: int, compute: Compute) -> Array:
    """Return conv2d(nearest(x, factor), kernel) of a 3x3 kernel: [B,h,w,Ci] -> [B,fh,fw,Co].

    With `compute.subpixel` off, just that.
    """
    if factor == 1 or not compute.subpixel:
        return conv2d(nearest(x, factor), kernel, None, compute)
    b, h, w, _ = x.shape
    # Inner places of a cell (f > 2) see one pixel, and are equal.
    places = [0, *[1] * (factor - 2), 2]
    kernels = {u: _summed(kernel, u, 0) for u in set(places)}
    outputs = {
        (u, v): conv2d(x, _summed(kernels[u], v, 1), None, compute, (PADDING[u], PADDING[v]))
        for u in set(places)
        for v in set(places)
    }
    rows = [jnp.stack([outputs[u, v] for v in places], axis=3) for u in places]
    return jnp.stack(rows, axis=2).reshape(b, h * factor, w * factor, kernel.shape[-1])


class NearestConv(Conv):
    """3x3 convolution of x enlarged twice: [B,h,w,Ci] to [B,2h,2w,features]; see `Conv`."""

    def convolve(self, x: Array, w: Array) -> Array:
        return conv_nearest(x, w, 2, self.compute)


# Zeros before and after, of the kernels for a cell's first, inner and last place.
PADDING = {0: (1, 0), 1: (0, 0), 2: (0, 1)}


def _summed(kernel: Array, place: int, axis: int) -> Array:
    """Return the kernel of a place in the cell: taps on one pixel are summed along `axis`."""
    first, second, third = jnp.split(kernel, 3, axis=axis)
    if place == 1:
        return first + second + third
    pair = (first, second + third) if place == 0 else (first + second, third)
    return jnp.concatenate(pair, axis=axis)
