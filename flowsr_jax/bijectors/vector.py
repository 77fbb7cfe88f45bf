"""Images as vectors, and NICE's order of their elements.  Volume preserving."""

from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp
import numpy as np

from flowsr_jax.bijectors.base import Array, Bijector, PyTree, Shape, require, zeros_logdet


@dataclasses.dataclass(frozen=True)
class Flatten(Bijector):
    """[B, *shape] -> [B, D], C order.

    Attributes:
      shape: the shape of one example.
    """

    shape: tuple[int, ...]

    def output_shape(self, shape: Shape) -> Shape:
        require(tuple(shape) == self.shape, f"Flatten: expected {self.shape}, got {tuple(shape)}")
        return (math.prod(self.shape),)

    def forward(
        self, params: PyTree, x: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        size = self.output_shape(x.shape[1:])
        return x.reshape(-1, *size), zeros_logdet(x)

    def inverse(
        self, params: PyTree, y: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        size = math.prod(self.shape)
        require(y.shape[1:] == (size,), f"Flatten: expected [B,{size}], got {tuple(y.shape)}")
        return y.reshape(-1, *self.shape), zeros_logdet(y)


@dataclasses.dataclass(frozen=True)
class Deinterleave(Bijector):
    """Channels 0, 2, 4, ..., then 1, 3, 5, ... (the released NICE code's tile order)."""

    def forward(
        self, params: PyTree, x: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        return jnp.concatenate([x[..., 0::2], x[..., 1::2]], axis=-1), zeros_logdet(x)

    def inverse(
        self, params: PyTree, y: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        n = y.shape[-1]
        order = np.concatenate([np.arange(0, n, 2), np.arange(1, n, 2)])
        return y[..., np.argsort(order)], zeros_logdet(y)
