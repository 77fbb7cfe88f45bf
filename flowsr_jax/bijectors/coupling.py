"""Couplings and injectors: additive and affine, conditional and not.

z1 (the first channels) passes unchanged and feeds a network; z2 is transformed by
its output.  An injector transforms all channels by a network of the conditioning
alone.  All arithmetic here is float32 whatever the network's dtype.

A network is any record with `init(key, ci, co)`, `prepare(params, cond)`,
`prepare_stacked(params, cond)`, `apply(params, x, prepared)` and
`init_from_data(params, x, cond)` (see flowsr_jax/nets/coupling_net.py).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from flowsr_jax.bijectors.base import Bijector, require, zeros_logdet
from flowsr_jax.config import choice
from flowsr_jax.math.gaussian import sum_event

_FORMS = ("sigmoid2", "exp", "tanh", "atan", "sigmoid")


@dataclasses.dataclass(frozen=True)
class ScaleForm:
    """How a raw network output r becomes a positive scale.

    form       scale                                 used by
    sigmoid2   sigmoid(r + 2) + eps                  Glow (eps 0), SRFlow (eps 1e-4)
    exp        exp(r)                                RealNVP, the papers
    tanh       exp(clamp tanh r)                     clamped exponential
    atan       exp(clamp 0.636 atan r)               FrEIA
    sigmoid    exp(clamp (2 sigmoid(r) - 1))         IRN (clamp 1)

    The scale of all but "exp" is bounded: eps + (0, 1), or exp(+-clamp).
    """

    form: str = "sigmoid2"
    clamp: float = 1.0
    eps: float = 0.0

    def __post_init__(self):
        choice("form", self.form, _FORMS)

    def __call__(self, raw):
        """(scale, log scale), both of raw's shape, float32."""
        r = raw.astype(jnp.float32)
        if self.form == "sigmoid2":
            if self.eps == 0.0:
                logs = jax.nn.log_sigmoid(r + 2.0)
                return jnp.exp(logs), logs
            scale = jax.nn.sigmoid(r + 2.0) + self.eps
            return scale, jnp.log(scale)
        if self.form == "tanh":
            r = self.clamp * jnp.tanh(r)
        elif self.form == "atan":
            r = self.clamp * 0.636 * jnp.arctan(r)
        elif self.form == "sigmoid":
            r = self.clamp * (2.0 * jax.nn.sigmoid(r) - 1.0)
        return jnp.exp(r), r


@dataclasses.dataclass(frozen=True)
class Affine:
    """How raw outputs act on z: channel layout, scale form and order.

    Attributes:
      scale: the scale form, or None for an additive map (raw is the shift).
      layout: "cross" (shift = even, scale = odd channels) or "half" (shift first).
      shift_first: (z + shift) * scale if true, else z * scale + shift.
    """

    scale: ScaleForm | None = ScaleForm()
    layout: str = "cross"
    shift_first: bool = True

    def __post_init__(self):
        choice("layout", self.layout, ("cross", "half"))

    def outputs(self, channels: int) -> int:
        """Channels that the network must give for z with `channels`."""
        return channels if self.scale is None else 2 * channels

    def _split(self, raw):
        raw = raw.astype(jnp.float32)
        if self.scale is None:
            return raw, None, None
        if self.layout == "cross":
            shift, r = raw[..., 0::2], raw[..., 1::2]
        else:
            shift, r = jnp.split(raw, 2, axis=-1)
        return shift, *self.scale(r)

    def forward(self, z, raw):
        """(z', logdet[B])."""
        shift, scale, logs = self._split(raw)
        if scale is None:
            return z + shift, zeros_logdet(z)
        y = (z + shift) * scale if self.shift_first else z * scale + shift
        return y, sum_event(jnp.broadcast_to(logs, z.shape))

    def inverse(self, y, raw):
        """(z, logdet[B] of the inverse)."""
        shift, scale, logs = self._split(raw)
        if scale is None:
            return y - shift, zeros_logdet(y)
        z = y / scale - shift if self.shift_first else (y - shift) / scale
        return z, -sum_event(jnp.broadcast_to(logs, y.shape))


@dataclasses.dataclass(frozen=True)
class Coupling(Bijector):
    """Affine or additive coupling: z1 = first half of the channels conditions z2.

    Attributes:
      net: the network record; conditional if its `cond_channels` > 0.
      affine: the map applied to z2.
      passed: number of channels of z1; None for C // 2.
    """

    net: Any
    affine: Affine = Affine()
    passed: int | None = None

    def _passed(self, channels: int) -> int:
        n = channels // 2 if self.passed is None else self.passed
        require(
            0 < n < channels,
            f"Coupling: needs more channels than the {n} passed on, got {channels}",
        )
        return n

    def init(self, key, shape):
        n = self._passed(shape[-1])
        return {"net": self.net.init(key, n, self.affine.outputs(shape[-1] - n))}

    def prepare(self, params, cond=None, inverse: bool = False):
        return {"net": self.net.prepare(params["net"], cond)}

    def prepare_stacked(self, params, cond=None, inverse: bool = False):
        return {"net": self.net.prepare_stacked(params["net"], cond)}

    def forward(self, params, x, cond=None, prepared=None):
        n = self._passed(x.shape[-1])
        prepared = prepared or self.prepare(params, cond)
        raw = self.net.apply(params["net"], x[..., :n], prepared["net"])
        y2, logdet = self.affine.forward(x[..., n:], raw)
        return jnp.concatenate([x[..., :n], y2], axis=-1), logdet

    def inverse(self, params, y, cond=None, prepared=None):
        n = self._passed(y.shape[-1])
        prepared = prepared or self.prepare(params, cond)
        raw = self.net.apply(params["net"], y[..., :n], prepared["net"])
        x2, logdet = self.affine.inverse(y[..., n:], raw)
        return jnp.concatenate([y[..., :n], x2], axis=-1), logdet

    def init_from_data(self, params, x, cond=None):
        n = self._passed(x.shape[-1])
        net_params, raw = self.net.init_from_data(params["net"], x[..., :n], cond)
        y2, logdet = self.affine.forward(x[..., n:], raw)
        return {"net": net_params}, jnp.concatenate([x[..., :n], y2], axis=-1), logdet


@dataclasses.dataclass(frozen=True)
class Injector(Bijector):
    """Affine injector: all channels are scaled and shifted by a network of cond alone.

    Lugmayr et al., SRFlow, section 3.3.
    """

    net: Any
    affine: Affine = Affine()

    def init(self, key, shape):
        return {"net": self.net.init(key, 0, self.affine.outputs(shape[-1]))}

    def prepare(self, params, cond=None, inverse: bool = False):
        return {"net": self.net.prepare(params["net"], cond)}

    def prepare_stacked(self, params, cond=None, inverse: bool = False):
        return {"net": self.net.prepare_stacked(params["net"], cond)}

    def forward(self, params, x, cond=None, prepared=None):
        prepared = prepared or self.prepare(params, cond)
        return self.affine.forward(x, self.net.apply(params["net"], None, prepared["net"]))

    def inverse(self, params, y, cond=None, prepared=None):
        prepared = prepared or self.prepare(params, cond)
        return self.affine.inverse(y, self.net.apply(params["net"], None, prepared["net"]))

    def init_from_data(self, params, x, cond=None):
        net_params, raw = self.net.init_from_data(params["net"], None, cond)
        return {"net": net_params}, *self.affine.forward(x, raw)


@dataclasses.dataclass(frozen=True)
class Shift(Bijector):
    """y = x - cond[key]: a conditional bijector with zero logdet.

    With the encoder's estimate as cond the flow models the residual, so that
    temperature 0 starts at the encoder's picture instead of at grey.
    """

    key: str = "estimate"

    def forward(self, params, x, cond=None, prepared=None):
        return x - cond[self.key], zeros_logdet(x)

    def inverse(self, params, y, cond=None, prepared=None):
        return y + cond[self.key], zeros_logdet(y)
