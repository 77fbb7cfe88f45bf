"""Fixed channel permutations.  Volume preserving."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from flowsr_jax.bijectors.base import Bijector, check_channels, zeros_logdet


@dataclasses.dataclass(frozen=True)
class Reverse(Bijector):
    """Channels in reverse order."""

    def forward(self, params, x, cond=None, prepared=None):
        return x[..., ::-1], zeros_logdet(x)

    def inverse(self, params, y, cond=None, prepared=None):
        return y[..., ::-1], zeros_logdet(y)


@dataclasses.dataclass(frozen=True)
class Shuffle(Bijector):
    """y[..., k] = x[..., indices[k]] with fixed int32 `indices` kept in the parameters."""

    def init(self, key, shape):
        return {"indices": jax.random.permutation(key, jnp.arange(shape[-1], dtype=jnp.int32))}

    def forward(self, params, x, cond=None, prepared=None):
        check_channels("Shuffle", x, params["indices"].shape[0])
        return jnp.take(x, params["indices"], axis=-1), zeros_logdet(x)

    def inverse(self, params, y, cond=None, prepared=None):
        check_channels("Shuffle", y, params["indices"].shape[0])
        return jnp.take(y, jnp.argsort(params["indices"]), axis=-1), zeros_logdet(y)
