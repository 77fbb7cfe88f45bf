"""Checkerboard couplings (Dinh et al., RealNVP, section 3.4)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from flowsr_jax.bijectors.base import Bijector, require, zeros_logdet
from flowsr_jax.bijectors.coupling import Affine
from flowsr_jax.config import choice
from flowsr_jax.math.gaussian import sum_event

SITES = ("even", "odd")


def checkerboard(h: int, w: int, sites: str) -> np.ndarray:
    """Boolean [h,w,1], true where row + column is "even" or "odd"."""
    parity = np.add.outer(np.arange(h), np.arange(w)) % 2
    return (parity == SITES.index(sites))[..., None]


@dataclasses.dataclass(frozen=True)
class CheckerboardCoupling(Bijector):
    """Half of the sites pass unchanged and condition the others.

    The network sees the passed sites (zero elsewhere) and, as its last channel, the
    mask: it maps C + 1 channels to `affine.outputs(C)`.

    Attributes:
      net: the network record, as for `Coupling`.
      affine: the map of the other sites.
      passed: "even" or "odd" sites (row + column) pass.
    """

    net: Any
    affine: Affine = Affine()
    passed: str = "even"

    def __post_init__(self):
        choice("passed", self.passed, SITES)

    def output_shape(self, shape):
        require(
            len(shape) == 3 and shape[0] * shape[1] > 1,
            f"CheckerboardCoupling: needs [H,W,C] with at least 2 sites, got {tuple(shape)}",
        )
        return shape

    def init(self, key, shape):
        c = self.output_shape(shape)[-1]
        return {"net": self.net.init(key, c + 1, self.affine.outputs(c))}

    def prepare(self, params, cond=None, inverse: bool = False):
        return {"net": self.net.prepare(params["net"], cond)}

    def prepare_stacked(self, params, cond=None, inverse: bool = False):
        return {"net": self.net.prepare_stacked(params["net"], cond)}

    def _seen(self, x):
        """(mask [H,W,1], what the network sees [B,H,W,C+1])."""
        self.output_shape(x.shape[1:])
        mask = jnp.asarray(checkerboard(*x.shape[1:3], self.passed))
        plane = jnp.broadcast_to(mask, (*x.shape[:-1], 1)).astype(x.dtype)
        return mask, jnp.concatenate([jnp.where(mask, x, 0.0), plane], axis=-1)

    def _apply(self, x, raw, mask, inverse: bool = False):
        y, _ = (self.affine.inverse if inverse else self.affine.forward)(x, raw)
        y = jnp.where(mask, x, y)
        logs = self.affine._split(raw)[2]
        if logs is None:
            return y, zeros_logdet(x)
        logdet = sum_event(jnp.where(mask, 0.0, logs))
        return y, -logdet if inverse else logdet

    def forward(self, params, x, cond=None, prepared=None):
        prepared = prepared or self.prepare(params, cond)
        mask, seen = self._seen(x)
        return self._apply(x, self.net.apply(params["net"], seen, prepared["net"]), mask)

    def inverse(self, params, y, cond=None, prepared=None):
        prepared = prepared or self.prepare(params, cond)
        mask, seen = self._seen(y)
        return self._apply(y, self.net.apply(params["net"], seen, prepared["net"]), mask, True)

    def init_from_data(self, params, x, cond=None):
        mask, seen = self._seen(x)
        net_params, raw = self.net.init_from_data(params["net"], seen, cond)
        return {"net": net_params}, *self._apply(x, raw, mask)
