"""Glow's priors: the split whose convolution sees the border, and the learned top prior."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from flowsr_jax.bijectors import networks
from flowsr_jax.bijectors.base import Array, Bijector, PyTree, Shape, check_channels, require
from flowsr_jax.bijectors.split import Split, unwhiten, whiten
from flowsr_jax.nets.glow_net import BorderedZeroConv, ZeroDense, border_map
from flowsr_jax.nets.layers import LOGSCALE, ZeroConv


@dataclasses.dataclass(frozen=True)
class BorderedSplit(Split):
    """`Split` whose prior is a convolution that sees the border (docs/papers/glow.md section 1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(not self.cond_channels, "BorderedSplit: has no conditional prior; use Split")

    def prior(self, features: int) -> nn.Module:
        return BorderedZeroConv(features, self.compute, parent=None)


@dataclasses.dataclass(frozen=True)
class TopPrior(Bijector):
    """eps = (x - mean) * exp(-logs) with learned mean and logs; logdet = -sum(logs).

    So log p(x) = log N(eps; 0, 1) + logdet.  mean and logs (first and last half) are a
    3x3 convolution of zeros, which sees the border and so is not constant in space, plus
    what the class says: (W[label] + b) * exp(3 logs).
    Glow's prior with learntop and ycond; docs/papers/glow.md section 2.

    Attributes:
      learned: the part without a class; without it and without classes eps = x.
      classes: number of classes, 0 without; with them cond is {"label": int [B]}.
      border: the convolution sees the border.
    """

    learned: bool = True
    classes: int = 0
    border: bool = True

    def init(self, key: Array, shape: Shape) -> PyTree:
        c, params = shape[-1], {}
        if self.learned:
            # The rows of the zeros do nothing; the released checkpoints hold them.
            layer = (BorderedZeroConv if self.border else ZeroConv)(2 * c, parent=None)
            params["p"] = networks.init_network(layer, key, shape[:-1], 2 * c)
        if self.classes:
            layer = ZeroDense(2 * c, parent=None)
            params["y_emb"] = networks.init_network(layer, key, (), self.classes)
        return params

    def moments(self, params: PyTree, shape: Shape, cond: PyTree = None) -> tuple[Array, Array]:
        """Return (mean, logs), which broadcast to x of `shape` [B,H,W,C]."""
        _, h, w, c = shape
        out = jnp.zeros((1, 1, 1, 2 * c), jnp.float32)
        if self.learned:
            p = params["p"]
            check_channels("TopPrior", p["b"][None], 2 * c)
            field = border_map(p["w"][:, :, -1], h, w) if self.border else 0.0
            out = out + (field + p["b"]) * jnp.exp(LOGSCALE * p["logs"])
        if self.classes:
            label = None if cond is None else cond.get("label")
            require(label is not None, "TopPrior: cond needs the key 'label', int [B]")
            p = params["y_emb"]
            rows = (p["w"][label] + p["b"]) * jnp.exp(LOGSCALE * p["logs"])
            out = out + rows[:, None, None, :]
        return out[..., :c], out[..., c:]

    def forward(
        self, params: PyTree, x: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        return whiten(x, *self.moments(params, x.shape, cond))

    def inverse(
        self, params: PyTree, y: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        return unwhiten(y, *self.moments(params, y.shape, cond))

    def scales(self, params: PyTree, x: Array, cond: PyTree = None) -> Array:
        logs = self.moments(params, x.shape, cond)[1]
        return jnp.exp(-jnp.broadcast_to(logs, x.shape))
