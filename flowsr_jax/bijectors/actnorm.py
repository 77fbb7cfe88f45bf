"""ActNorm: per-channel affine map with data-dependent initialisation (Glow, section 3.1)."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from flowsr_jax.bijectors.base import (
    Array,
    Bijector,
    PyTree,
    Shape,
    check_channels,
    constant_logdet,
)
from flowsr_jax.nets.layers import channel_statistics


@dataclasses.dataclass(frozen=True)
class ActNorm(Bijector):
    """y = (x + bias) * exp(f logs); logdet = positions * sum(f logs).

    Attributes:
      logscale_factor: f; 1 in SRFlow, 3 in the released Glow.
    """

    logscale_factor: float = 1.0

    def init(self, key: Array, shape: Shape) -> PyTree:
        return {name: jnp.zeros(shape[-1], jnp.float32) for name in ("bias", "logs")}

    def forward(
        self, params: PyTree, x: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        check_channels("ActNorm", x, params["bias"].shape[0])
        logs = self.logscale_factor * params["logs"]
        return (x + params["bias"]) * jnp.exp(logs), constant_logdet(x, jnp.sum(logs))

    def inverse(
        self, params: PyTree, y: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        check_channels("ActNorm", y, params["bias"].shape[0])
        logs = self.logscale_factor * params["logs"]
        return y * jnp.exp(-logs) - params["bias"], constant_logdet(y, -jnp.sum(logs))

    def init_from_data(
        self, params: PyTree, x: Array, cond: PyTree = None, inverse: bool = False
    ) -> tuple[PyTree, Array, Array]:
        """Set zero mean and unit (biased) variance per channel over batch and positions."""
        bias, logs = channel_statistics(x)
        if inverse:  # (x + bias) exp(logs) = x exp(logs) - (-bias exp(logs))
            params = {"bias": -bias * jnp.exp(logs), "logs": -logs / self.logscale_factor}
            return params, *self.inverse(params, x)
        params = {"bias": bias, "logs": logs / self.logscale_factor}
        return params, *self.forward(params, x)

    def scales(self, params: PyTree, x: Array, cond: PyTree = None) -> Array:
        return jnp.broadcast_to(jnp.exp(self.logscale_factor * params["logs"]), x.shape)
