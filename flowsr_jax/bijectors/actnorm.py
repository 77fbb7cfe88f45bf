"""ActNorm: per-channel affine map with data-dependent initialisation (Glow, eq. in 3.1)."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from flowsr_jax.bijectors.base import Bijector, check_channels, constant_logdet
from flowsr_jax.nets.coupling_net import channel_statistics


@dataclasses.dataclass(frozen=True)
class ActNorm(Bijector):
    """y = (x + bias) * exp(f logs); logdet = positions * sum(f logs).

    Attributes:
      logscale_factor: f; 1 in SRFlow, 3 in the released Glow.
    """

    logscale_factor: float = 1.0

    def init(self, key, shape):
        return {"bias": jnp.zeros(shape[-1]), "logs": jnp.zeros(shape[-1])}

    def forward(self, params, x, cond=None, prepared=None):
        check_channels("ActNorm", x, params["bias"].shape[0])
        logs = self.logscale_factor * params["logs"]
        return (x + params["bias"]) * jnp.exp(logs), constant_logdet(x, jnp.sum(logs))

    def inverse(self, params, y, cond=None, prepared=None):
        check_channels("ActNorm", y, params["bias"].shape[0])
        logs = self.logscale_factor * params["logs"]
        return y * jnp.exp(-logs) - params["bias"], constant_logdet(y, -jnp.sum(logs))

    def init_from_data(self, params, x, cond=None):
        """Zero mean and unit (biased) variance per channel over batch and positions."""
        statistics = channel_statistics(x)
        params = {"bias": statistics["bias"], "logs": statistics["logs"] / self.logscale_factor}
        return params, *self.forward(params, x)
