"""The Haar transform of IRN: 2x2 blocks to one mean and three differences."""

from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp

from flowsr_jax.bijectors.base import Array, Bijector, PyTree, Shape, constant_logdet, require


@dataclasses.dataclass(frozen=True)
class Haar(Bijector):
    """[B,H,W,C] -> [B,H/2,W/2,4C]; channel band*C + c, all bands divided by 4.

    Of a block (a b / c d) the bands are a+b+c+d (the mean), a-b+c-d, a+b-c-d and
    a-b-c+d, each over 4; the inverse has no factor.  Not orthonormal, so that the mean
    stays an image in [0,1]: logdet = -(H W C / 4) log 16.
    Xiao et al. (ECCV 2020), section 3.2; docs/papers/irn.md section 1.
    """

    def output_shape(self, shape: Shape) -> Shape:
        require(
            len(shape) == 3 and shape[0] % 2 == 0 and shape[1] % 2 == 0,
            f"Haar: height and width must be multiples of 2, got shape {tuple(shape)}",
        )
        return (shape[0] // 2, shape[1] // 2, 4 * shape[2])

    def forward(
        self, params: PyTree, x: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        h, w, channels = self.output_shape(x.shape[1:])
        blocks = x.reshape(x.shape[0], h, 2, w, 2, channels // 4)
        a, b, c, d = (blocks[:, :, i, :, j] for i in (0, 1) for j in (0, 1))
        bands = (a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d)
        return jnp.concatenate(bands, axis=-1) / 4, _logdet(x, -1.0)

    def inverse(
        self, params: PyTree, y: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        require(
            y.ndim == 4 and y.shape[-1] % 4 == 0,
            f"Haar: channels must be a multiple of 4, got shape {tuple(y.shape)}",
        )
        p, q, r, s = jnp.split(y, 4, axis=-1)
        rows = [
            jnp.stack([p + q + r + s, p - q + r - s], axis=3),
            jnp.stack([p + q - r - s, p - q - r + s], axis=3),
        ]
        batch, h, w, channels = p.shape
        x = jnp.stack(rows, axis=2).reshape(batch, 2 * h, 2 * w, channels)
        return x, _logdet(x, 1.0)

    def scales(self, params: PyTree, x: Array, cond: PyTree = None) -> Array:
        return jnp.full(x.shape, 0.5, jnp.float32)  # the bands are orthogonal, each of norm 1/2


def _logdet(image: Array, sign: float) -> Array:
    # Each 2x2 block of one channel contributes log(1/16).
    return constant_logdet(image, jnp.float32(sign * image.shape[-1] * math.log(16.0) / 4))
