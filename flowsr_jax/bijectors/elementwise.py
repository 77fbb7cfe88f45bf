"""Elementwise maps: what a coupling does to each element, by numbers that a network gives.

A map is monotonic in z and float32 whatever the network's dtype.
"""

from __future__ import annotations

import abc
import dataclasses

import jax
import jax.numpy as jnp

from flowsr_jax.bijectors.base import Array, require, zeros_logdet
from flowsr_jax.config import choice
from flowsr_jax.math.gaussian import sum_event

_FORMS = ("sigmoid2", "exp", "tanh", "atan", "sigmoid")


class Elementwise(abc.ABC):
    """Base class of the maps: a subclass is a frozen dataclass of static choices.

        channels of raw = transform.outputs(channels of z)
        z', log slope   = transform(z, raw)                   # forward
        z,  log slope   = transform(z', raw, inverse=True)

    z is [..., C]; raw [..., outputs(C)] is what the network gives.  The log slope, of z's
    shape, is log |dz'/dz| of the forward map in both directions; None stands for zeros.
    """

    @abc.abstractmethod
    def outputs(self, channels: int) -> int:
        """Return the channels that the network must give for z with `channels`."""

    @abc.abstractmethod
    def __call__(self, z: Array, raw: Array, inverse: bool = False) -> tuple[Array, Array | None]:
        """Return (z', log slope of the forward map, or None for zeros)."""


def logdet_of(log_slope: Array | None, z: Array, inverse: bool) -> Array:
    """Return the logdet [B] of a map, or of its inverse, of z [B, ...]."""
    if log_slope is None:
        return zeros_logdet(z)
    logdet = sum_event(log_slope)
    return -logdet if inverse else logdet


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

    def __post_init__(self) -> None:
        choice("form", self.form, _FORMS)

    def __call__(self, raw: Array) -> tuple[Array, Array]:
        """Return (scale, log scale), both of raw's shape, float32."""
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
class Additive(Elementwise):
    """z' = z + raw; preserves volume (NICE, eq. 9)."""

    def outputs(self, channels: int) -> int:
        return channels

    def __call__(self, z: Array, raw: Array, inverse: bool = False) -> tuple[Array, None]:
        shift = raw.astype(jnp.float32)
        return (z - shift if inverse else z + shift), None


@dataclasses.dataclass(frozen=True)
class Affine(Elementwise):
    """z' = (z + shift) * scale, or z * scale + shift (RealNVP, eq. 7).

    Attributes:
      scale: how raw becomes the scale.
      layout: "cross" (shift = even, scale = odd channels of raw) or "half" (shift first).
      shift_first: (z + shift) * scale if true, else z * scale + shift.
    """

    scale: ScaleForm = ScaleForm()
    layout: str = "cross"
    shift_first: bool = True

    def __post_init__(self) -> None:
        choice("layout", self.layout, ("cross", "half"))

    def outputs(self, channels: int) -> int:
        return 2 * channels

    def __call__(self, z: Array, raw: Array, inverse: bool = False) -> tuple[Array, Array]:
        raw = raw.astype(jnp.float32)
        if self.layout == "cross":
            shift, r = raw[..., 0::2], raw[..., 1::2]
        else:
            shift, r = jnp.split(raw, 2, axis=-1)
        scale, logs = self.scale(r)
        if inverse:
            out = z / scale - shift if self.shift_first else (z - shift) / scale
        else:
            out = (z + shift) * scale if self.shift_first else z * scale + shift
        return out, jnp.broadcast_to(logs, z.shape)


@dataclasses.dataclass(frozen=True)
class RationalQuadratic(Elementwise):
    """Monotonic rational-quadratic spline on [-bound, bound], the identity outside.

    Durkan, Bekasov, Murray and Papamakarios, Neural Spline Flows (NeurIPS 2019), section 3.1,
    with linear tails.  Raw zeros give the identity.

    Attributes:
      bins: K, the number of pieces, 2 to 256; raw holds K widths, K heights and K - 1 slopes
        of the inner knots per element.
      bound: half of the interval's width.
      smallest: the least share of a bin in the interval, and the least slope of a knot.

    Raises:
      ValueError: bins or bound out of range.
    """

    bins: int = 8
    bound: float = 3.0
    smallest: float = 1e-3

    def __post_init__(self) -> None:
        require(2 <= self.bins <= 256, f"RationalQuadratic: bins = {self.bins} must be 2 to 256")
        require(self.bound > 0, f"RationalQuadratic: bound = {self.bound} must be positive")
        require(
            0 < self.smallest < 1 / self.bins,
            f"RationalQuadratic: smallest = {self.smallest} must be in (0, 1 / bins)",
        )

    def outputs(self, channels: int) -> int:
        return channels * (3 * self.bins - 1)

    def __call__(self, z: Array, raw: Array, inverse: bool = False) -> tuple[Array, Array]:
        xs, ys, slopes = self._knots(raw)
        inside = jnp.abs(z) < self.bound
        v = jnp.where(inside, z, 0.0)  # elsewhere the spline's gradient would be of no number
        known = ys if inverse else xs
        k = jnp.sum(v[..., None] >= known[..., 1:-1], axis=-1, keepdims=True)

        def ends(knots: Array) -> tuple[Array, Array]:
            """Return the knots at both ends of the bin of v."""
            low, high = (jnp.take_along_axis(knots, at, axis=-1) for at in (k, k + 1))
            return low[..., 0], high[..., 0]

        (x0, x1), (y0, y1), (d0, d1) = ends(xs), ends(ys), ends(slopes)
        width, height = x1 - x0, y1 - y0
        s = height / width
        bend = d0 + d1 - 2.0 * s
        if inverse:  # eqs. 6-8: the root t of a t^2 + b t + c that lies in [0, 1]
            rise = v - y0
            a, b, c = height * (s - d0) + rise * bend, height * d0 - rise * bend, -s * rise
            t = 2.0 * c / (-b - jnp.sqrt(jnp.maximum(jnp.square(b) - 4.0 * a * c, 0.0)))
            out = x0 + t * width
        else:  # eq. 4
            t = (v - x0) / width
            top = s * jnp.square(t) + d0 * t * (1.0 - t)
            out = y0 + height * top / (s + bend * t * (1.0 - t))
        # eq. 5
        rest = 1.0 - t
        top = d1 * jnp.square(t) + 2.0 * s * t * rest + d0 * jnp.square(rest)
        logs = 2.0 * jnp.log(s) + jnp.log(top) - 2.0 * jnp.log(s + bend * t * rest)
        return jnp.where(inside, out, z), jnp.where(inside, logs, 0.0)

    def _knots(self, raw: Array) -> tuple[Array, Array, Array]:
        """Return (x, y, slope) of the K + 1 knots, each [..., C, K + 1] float32."""
        n, least = self.bins, self.smallest
        raw = raw.astype(jnp.float32)
        raw = raw.reshape(*raw.shape[:-1], -1, 3 * n - 1)
        widths, heights, slopes = jnp.split(raw, (n, 2 * n), axis=-1)

        def knots(r: Array) -> Array:
            share = least + (1.0 - least * n) * jax.nn.softmax(r, axis=-1)
            inner = self.bound * (2.0 * jnp.cumsum(share, axis=-1)[..., :-1] - 1.0)
            end = jnp.full((*inner.shape[:-1], 1), self.bound, jnp.float32)
            return jnp.concatenate([-end, inner, end], axis=-1)

        # softplus(raw + start) is 1 - least at raw = 0, so that all slopes begin at 1.
        start = jnp.log(jnp.expm1(jnp.float32(1.0 - least)))
        slopes = least + jax.nn.softplus(slopes + start)
        one = jnp.ones((*slopes.shape[:-1], 1), jnp.float32)
        return knots(widths), knots(heights), jnp.concatenate([one, slopes, one], axis=-1)
