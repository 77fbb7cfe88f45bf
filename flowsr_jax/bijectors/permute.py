"""Fixed channel permutations.  Volume preserving."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from flowsr_jax.bijectors.base import (
    Array,
    Bijector,
    PyTree,
    Shape,
    check_channels,
    zeros_logdet,
)


@dataclasses.dataclass(frozen=True)
class Reverse(Bijector):
    """Channels in reverse order."""

    def forward(
        self, params: PyTree, x: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        return x[..., ::-1], zeros_logdet(x)

    def inverse(
        self, params: PyTree, y: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        return y[..., ::-1], zeros_logdet(y)


@dataclasses.dataclass(frozen=True)
class Shuffle(Bijector):
    """y[..., k] = x[..., indices[k]] with fixed int32 `indices` kept in the parameters."""

    def init(self, key: Array, shape: Shape) -> PyTree:
        return {"indices": jax.random.permutation(key, jnp.arange(shape[-1], dtype=jnp.int32))}

    def forward(
        self, params: PyTree, x: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        check_channels("Shuffle", x, params["indices"].shape[0])
        return jnp.take(x, params["indices"], axis=-1), zeros_logdet(x)

    def inverse(
        self, params: PyTree, y: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        check_channels("Shuffle", y, params["indices"].shape[0])
        return jnp.take(y, jnp.argsort(params["indices"]), axis=-1), zeros_logdet(y)
