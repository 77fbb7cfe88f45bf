"""Elementwise maps: constant and learned scales, and the logit."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from flowsr_jax.bijectors.base import Array, Bijector, PyTree, Shape, require
from flowsr_jax.math.gaussian import sum_event


@dataclasses.dataclass(frozen=True)
class Rescale(Bijector):
    """y = scale x + shift with fixed numbers; logdet = size * log|scale|."""

    scale: float
    shift: float = 0.0

    def __post_init__(self) -> None:
        require(self.scale != 0, "Rescale: scale must not be 0")

    def _logdet(self, x: Array) -> Array:
        size = math.prod(x.shape[1:])
        return jnp.full(x.shape[0], size * math.log(abs(self.scale)), jnp.float32)

    def forward(
        self, params: PyTree, x: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        return self.scale * x + self.shift, self._logdet(x)

    def inverse(
        self, params: PyTree, y: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        return (y - self.shift) / self.scale, -self._logdet(y)

    def scales(self, params: PyTree, x: Array, cond: PyTree = None) -> Array:
        return jnp.full(x.shape, abs(self.scale), jnp.float32)


@dataclasses.dataclass(frozen=True)
class Logit(Bijector):
    """y = log(p / (1 - p)) with p = low + width x; logdet = sum(log width - log p(1-p)).

    The released RealNVP keeps x in [0,1] away from 0 and 1: low 0.05, width 0.9 (its
    paper has width 0.95, which reaches p = 1).  x beyond (-low, 1-low) / width gives NaN.
    """

    low: float = 0.05
    width: float = 0.9

    def __post_init__(self) -> None:
        require(self.width > 0, f"Logit: width must be positive, got {self.width}")

    def _log_slope(self, y: Array) -> Array:
        return jax.nn.softplus(y) + jax.nn.softplus(-y) + math.log(self.width)

    def forward(
        self, params: PyTree, x: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        # 1 - p from 1 - x: exact near p = 1.
        rest = (1.0 - self.low - self.width) + self.width * (1.0 - x)
        y = jnp.log(self.low + self.width * x) - jnp.log(rest)
        return y, sum_event(self._log_slope(y))

    def inverse(
        self, params: PyTree, y: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        return (jax.nn.sigmoid(y) - self.low) / self.width, -sum_event(self._log_slope(y))

    def scales(self, params: PyTree, x: Array, cond: PyTree = None) -> Array:
        return jnp.exp(self._log_slope(self.forward(params, x)[0]))


@dataclasses.dataclass(frozen=True)
class Scaling(Bijector):
    """y = x exp(logs), one learned scale per element; logdet = sum(logs) (NICE, eq. 14)."""

    def init(self, key: Array, shape: Shape) -> PyTree:
        return {"logs": jnp.zeros(shape, jnp.float32)}

    def _check(self, params: PyTree, x: Array) -> None:
        want = params["logs"].shape
        require(x.shape[1:] == want, f"Scaling: expected [B, *{want}], got shape {tuple(x.shape)}")

    def _logdet(self, params: PyTree, x: Array) -> Array:
        return jnp.broadcast_to(jnp.sum(params["logs"]), (x.shape[0],))

    def forward(
        self, params: PyTree, x: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        self._check(params, x)
        return x * jnp.exp(params["logs"]), self._logdet(params, x)

    def inverse(
        self, params: PyTree, y: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        self._check(params, y)
        return y * jnp.exp(-params["logs"]), -self._logdet(params, y)

    def scales(self, params: PyTree, x: Array, cond: PyTree = None) -> Array:
        return jnp.broadcast_to(jnp.exp(params["logs"]), x.shape)
