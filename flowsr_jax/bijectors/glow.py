"""Glow's priors: the split whose convolution sees the border, and the learned top prior."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from flowsr_jax.bijectors.base import Bijector, check_channels, require
from flowsr_jax.bijectors.split import Split
from flowsr_jax.math.gaussian import sum_event
from flowsr_jax.nets.glow_net import (
    LOGSCALE,
    border_map,
    bordered_conv_zeros,
    init_bordered_conv_zeros,
    init_linear_zeros,
)


@dataclasses.dataclass(frozen=True)
class BorderedSplit(Split):
    """`Split` whose prior is a convolution that sees the border (../shared/spec/glow.md 1)."""

    def init(self, key, shape):
        n = self.passed(shape[-1])
        return {"prior": init_bordered_conv_zeros(n, 2 * (shape[-1] - n))}

    def _prior(self, params, z1):
        out = bordered_conv_zeros(params["prior"], z1, self.compute)
        return out[..., 0::2], out[..., 1::2]


@dataclasses.dataclass(frozen=True)
class TopPrior(Bijector):
    """eps = (x - mean) * exp(-logs) with learned mean and logs; logdet = -sum(logs).

    So log p(x) = log N(eps; 0, 1) + logdet.  mean and logs (first and last half) are a
    3x3 convolution of zeros, which sees the border and so is not constant in space, plus
    what the class says: (W[label] + b) * exp(3 logs).
    Glow's prior with learntop and ycond; ../shared/spec/glow.md section 2.

    Attributes:
      learned: the part without a class; without it and without classes eps = x.
      classes: number of classes, 0 without; with them cond is {"label": int [B]}.
      border: the convolution sees the border.
    """

    learned: bool = True
    classes: int = 0
    border: bool = True

    def init(self, key, shape):
        c, params = shape[-1], {}
        if self.learned:
            # The rows of the zeros do nothing; the released checkpoints hold them.
            params["p"] = init_bordered_conv_zeros(2 * c, 2 * c, self.border)
        if self.classes:
            params["y_emb"] = init_linear_zeros(self.classes, 2 * c)
        return params

    def moments(self, params, shape, cond=None):
        """(mean, logs), which broadcast to x of `shape` [B,H,W,C]."""
        _, h, w, c = shape
        out = jnp.zeros((1, 1, 1, 2 * c))
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

    def forward(self, params, x, cond=None, prepared=None):
        mean, logs = self.moments(params, x.shape, cond)
        eps = (x - mean) * jnp.exp(-logs)
        return eps, -sum_event(jnp.broadcast_to(logs, x.shape))

    def inverse(self, params, y, cond=None, prepared=None):
        mean, logs = self.moments(params, y.shape, cond)
        x = mean + jnp.exp(logs) * y
        return x, sum_event(jnp.broadcast_to(logs, y.shape))
