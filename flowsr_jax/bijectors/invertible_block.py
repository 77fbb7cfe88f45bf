"""IRN's invertible block: additive on the low band, then affine on the high bands."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from flowsr_jax.bijectors.base import Array, Bijector, PyTree, Shape, require, require_positive
from flowsr_jax.bijectors.elementwise import ScaleForm
from flowsr_jax.math.gaussian import sum_event


@dataclasses.dataclass(frozen=True)
class InvertibleBlock(Bijector):
    """y1 = x1 + F(x2);  y2 = x2 * exp(s(H(y1))) + G(y1);  logdet = sum(s).

    x1 holds the first `low` channels, x2 the others; s(r) = clamp (2 sigmoid(r) - 1).
    Xiao et al. (ECCV 2020), eq. 2-3; docs/papers/irn.md section 1.

    Attributes:
      net: a record with init(key, ci, co) and apply(params, x), used for F, G and H.
      low: channels of x1.
      scale: how H's output becomes the scale.
    """

    net: Any
    low: int = 3
    scale: ScaleForm = ScaleForm("sigmoid", clamp=1.0)

    def __post_init__(self) -> None:
        require_positive("InvertibleBlock: low", self.low)

    def output_shape(self, shape: Shape) -> Shape:
        require(
            shape[-1] > self.low,
            f"InvertibleBlock: needs more than {self.low} channels, got shape {tuple(shape)}",
        )
        return shape

    def init(self, key: Array, shape: Shape) -> PyTree:
        high = self.output_shape(shape)[-1] - self.low
        f, g, h = jax.random.split(key, 3)
        return {
            "F": self.net.init(f, high, self.low),
            "G": self.net.init(g, self.low, high),
            "H": self.net.init(h, self.low, high),
        }

    def forward(
        self, params: PyTree, x: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        self.output_shape(x.shape[1:])
        x1, x2 = x[..., : self.low], x[..., self.low :]
        y1 = x1 + self.net.apply(params["F"], x2)
        scale, logs = self.scale(self.net.apply(params["H"], y1))
        y2 = x2 * scale + self.net.apply(params["G"], y1)
        return jnp.concatenate([y1, y2], axis=-1), sum_event(logs)

    def inverse(
        self, params: PyTree, y: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        self.output_shape(y.shape[1:])
        y1, y2 = y[..., : self.low], y[..., self.low :]
        scale, logs = self.scale(self.net.apply(params["H"], y1))
        x2 = (y2 - self.net.apply(params["G"], y1)) / scale
        x1 = y1 - self.net.apply(params["F"], x2)
        return jnp.concatenate([x1, x2], axis=-1), -sum_event(logs)

    def scales(self, params: PyTree, x: Array, cond: PyTree = None) -> Array:
        y1 = self.forward(params, x)[0][..., : self.low]
        return self.scale(self.net.apply(params["H"], y1))[0]
