"""Batch normalisation as a bijector (Dinh et al., RealNVP, section 3.7)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from flowsr_jax.bijectors.base import (
    Array,
    Bijector,
    PyTree,
    Shape,
    check_channels,
    positions,
)
from flowsr_jax.bijectors.checkerboard import SITES, checkerboard
from flowsr_jax.config import choice
from flowsr_jax.nets.realnvp_net import batch_statistics


@dataclasses.dataclass(frozen=True)
class BatchNorm(Bijector):
    """y = (x - mean) / sqrt(var + eps); logdet = -positions * sum(log(var + eps)) / 2.

    `forward` and `inverse` use the moving statistics, which are the parameters.
    `forward_train` is the training pass: y and logdet are those of the batch's
    statistics (gradients flow through them), which are returned as the parameters; the
    caller moves its moving statistics towards them.

    Attributes:
      eps: added to the variance; 1e-4 in the released RealNVP.
      sites: None, or normalise the "even" or "odd" sites of an image only.  As in the
        released code the statistics are then taken over all sites, the others zero.
    """

    eps: float = 1e-4
    sites: str | None = None

    def __post_init__(self) -> None:
        choice("sites", self.sites, (None, *SITES))

    def init(self, key: Array, shape: Shape) -> PyTree:
        mean = jnp.zeros(shape[-1], jnp.float32)
        return {"mean": mean, "var": jnp.ones(shape[-1], jnp.float32)}

    def _mask(self, x: Array) -> np.ndarray | None:
        return None if self.sites is None else checkerboard(*x.shape[1:3], self.sites)

    def _logdet(self, params: PyTree, x: Array) -> Array:
        mask = self._mask(x)
        count = positions(x) if mask is None else int(mask.sum())
        value = -0.5 * count * jnp.sum(jnp.log(params["var"] + self.eps))
        return jnp.broadcast_to(value.astype(jnp.float32), (x.shape[0],))

    def _at_sites(self, x: Array, y: Array) -> Array:
        mask = self._mask(x)
        return y if mask is None else jnp.where(mask, y, x)

    def forward(
        self, params: PyTree, x: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        check_channels("BatchNorm", x, params["mean"].shape[0])
        y = (x - params["mean"]) * jax.lax.rsqrt(params["var"] + self.eps)
        return self._at_sites(x, y), self._logdet(params, x)

    def inverse(
        self, params: PyTree, y: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        check_channels("BatchNorm", y, params["mean"].shape[0])
        x = y * jnp.sqrt(params["var"] + self.eps) + params["mean"]
        return self._at_sites(y, x), -self._logdet(params, y)

    def forward_train(
        self, params: PyTree, x: Array, cond: PyTree = None
    ) -> tuple[PyTree, Array, Array]:
        params = batch_statistics(self._at_sites(jnp.zeros_like(x), x))
        return params, *self.forward(params, x)

    def scales(self, params: PyTree, x: Array, cond: PyTree = None) -> Array:
        factor = jax.lax.rsqrt(params["var"] + self.eps)
        return self._at_sites(jnp.ones_like(x), jnp.broadcast_to(factor, x.shape))
