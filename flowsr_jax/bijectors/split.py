"""Split: half of the channels leaves as a latent, whitened by a learned Gaussian prior."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from flowsr_jax.bijectors.base import Bijector, require
from flowsr_jax.math.gaussian import sum_event
from flowsr_jax.nets.conv import Compute
from flowsr_jax.nets.coupling_net import conv_zeros, init_conv_zeros


@dataclasses.dataclass(frozen=True)
class Split(Bijector):
    """x -> (z1, eps): z1 = first channels, eps = (z2 - mean(z1)) / exp(logs(z1)).

    logdet = -sum(logs), so log p(x) = log p(z1) + log N(eps; 0, 1) + logdet; mean and
    logs are the even and odd channels of a zero-initialised 3x3 convolution of z1.
    Glow section 3.6; SRFlow spec section 1 (11, 12).

    Attributes:
      ratio: share of the channels that becomes latent (rounded).
      compute: precision and form of the prior's convolution.
    """

    ratio: float = 0.5
    compute: Compute = Compute()

    def passed(self, channels: int) -> int:
        """Channels of z1 for an input of `channels`."""
        n = channels - round(channels * self.ratio)
        require(0 < n < channels, f"Split: {channels} channels cannot be split by {self.ratio}")
        return n

    def init(self, key, shape):
        n = self.passed(shape[-1])
        return {"prior": init_conv_zeros(n, 2 * (shape[-1] - n))}

    def output_shape(self, shape):
        n = self.passed(shape[-1])
        return (*shape[:-1], n), (*shape[:-1], shape[-1] - n)

    def _prior(self, params, z1):
        out = conv_zeros(params["prior"], z1, self.compute)
        return out[..., 0::2], out[..., 1::2]

    def forward(self, params, x, cond=None, prepared=None):
        n = self.passed(x.shape[-1])
        z1, z2 = x[..., :n], x[..., n:]
        mean, logs = self._prior(params, z1)
        return (z1, (z2 - mean) * jnp.exp(-logs)), -sum_event(logs)

    def inverse(self, params, y, cond=None, prepared=None):
        z1, eps = y
        mean, logs = self._prior(params, z1)
        return jnp.concatenate([z1, mean + jnp.exp(logs) * eps], axis=-1), sum_event(logs)
