"""IRN's invertible block: additive on the low band, then affine on the high bands."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from flowsr_jax.bijectors import networks
from flowsr_jax.bijectors.base import Array, Bijector, PyTree, Shape, require, require_positive
from flowsr_jax.bijectors.elementwise import ScaleForm
from flowsr_jax.math.gaussian import sum_event


@dataclasses.dataclass(frozen=True)
class InvertibleBlock(Bijector):
    """y1 = x1 + F(x2);  y2 = x2 * exp(s(H(y1))) + G(y1);  logdet = sum(s).

    x1 holds the first `low` channels, x2 the others; s(r) = clamp (2 sigmoid(r) - 1).
    Xiao et al. (ECCV 2020), eq. 2-3; docs/papers/irn.md section 1.

    Attributes:
      net: the network of which F, G and H are copies.
      low: channels of x1.
      scale: how H's output becomes the scale.
    """

    net: nn.Module
    low: int = 3
    scale: ScaleForm = ScaleForm("sigmoid", clamp=1.0)

    def __post_init__(self) -> None:
        networks.check_network("InvertibleBlock", self.net)
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
        sizes = {"F": (f, high, self.low), "G": (g, self.low, high), "H": (h, self.low, high)}
        return {
            name: networks.init_network(networks.with_features(self.net, co), k, shape[:-1], ci)
            for name, (k, ci, co) in sizes.items()
        }

    def _run(self, params: PyTree, x: Array, features: int) -> Array:
        return networks.evaluate(networks.with_features(self.net, features), params, x, None)

    def forward(
        self, params: PyTree, x: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        high = self.output_shape(x.shape[1:])[-1] - self.low
        x1, x2 = x[..., : self.low], x[..., self.low :]
        y1 = x1 + self._run(params["F"], x2, self.low)
        scale, logs = self.scale(self._run(params["H"], y1, high))
        y2 = x2 * scale + self._run(params["G"], y1, high)
        return jnp.concatenate([y1, y2], axis=-1), sum_event(logs)

    def inverse(
        self, params: PyTree, y: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        high = self.output_shape(y.shape[1:])[-1] - self.low
        y1, y2 = y[..., : self.low], y[..., self.low :]
        scale, logs = self.scale(self._run(params["H"], y1, high))
        x2 = (y2 - self._run(params["G"], y1, high)) / scale
        x1 = y1 - self._run(params["F"], x2, self.low)
        return jnp.concatenate([x1, x2], axis=-1), -sum_event(logs)

    def scales(self, params: PyTree, x: Array, cond: PyTree = None) -> Array:
        y1 = self.forward(params, x)[0][..., : self.low]
        return self.scale(self._run(params["H"], y1, x.shape[-1] - self.low))[0]
