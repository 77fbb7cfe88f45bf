"""Act on a part of the channels, or inside a change of layout (RealNVP's building blocks)."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from flowsr_jax.bijectors.base import Bijector, require, zeros_logdet
from flowsr_jax.config import choice


def _halves(name: str, x):
    n = x.shape[-1] // 2
    require(n > 0, f"{name}: needs at least 2 channels, got shape {tuple(x.shape)}")
    return x[..., :n], x[..., n:]


@dataclasses.dataclass(frozen=True)
class Swap(Bijector):
    """[x1, x2] -> [x2, x1]: the first C // 2 channels go to the end."""

    def forward(self, params, x, cond=None, prepared=None):
        x1, x2 = _halves("Swap", x)
        return jnp.concatenate([x2, x1], axis=-1), zeros_logdet(x)

    def inverse(self, params, y, cond=None, prepared=None):
        n = y.shape[-1] - y.shape[-1] // 2
        return jnp.concatenate([y[..., n:], y[..., :n]], axis=-1), zeros_logdet(y)


@dataclasses.dataclass(frozen=True)
class Part(Bijector):
    """Apply `inner` to one half of the channels; the other half passes unchanged.

    Attributes:
      inner: a bijector that keeps the shape; its parameters are the parameters.
      half: "first" (the first C // 2 channels) or "last".
    """

    inner: Bijector
    half: str = "first"

    def __post_init__(self):
        choice("half", self.half, ("first", "last"))

    def _split(self, x):
        x1, x2 = _halves("Part", x)
        return (x1, x2) if self.half == "first" else (x2, x1)

    def _join(self, changed, kept):
        parts = [changed, kept] if self.half == "first" else [kept, changed]
        return jnp.concatenate(parts, axis=-1)

    def _inner_shape(self, shape):
        n = shape[-1] // 2
        require(n > 0, f"Part: needs at least 2 channels, got shape {tuple(shape)}")
        return (*shape[:-1], n if self.half == "first" else shape[-1] - n)

    def init(self, key, shape):
        return self.inner.init(key, self._inner_shape(shape))

    def output_shape(self, shape):
        inner = self._inner_shape(shape)
        require(self.inner.output_shape(inner) == inner, "Part: inner must keep the shape")
        return shape

    def prepare(self, params, cond=None, inverse: bool = False):
        return self.inner.prepare(params, cond, inverse)

    def prepare_stacked(self, params, cond=None, inverse: bool = False):
        return self.inner.prepare_stacked(params, cond, inverse)

    def forward(self, params, x, cond=None, prepared=None):
        changed, kept = self._split(x)
        changed, logdet = self.inner.forward(params, changed, cond, prepared)
        return self._join(changed, kept), logdet

    def inverse(self, params, y, cond=None, prepared=None):
        changed, kept = self._split(y)
        changed, logdet = self.inner.inverse(params, changed, cond, prepared)
        return self._join(changed, kept), logdet

    def init_from_data(self, params, x, cond=None):
        changed, kept = self._split(x)
        params, changed, logdet = self.inner.init_from_data(params, changed, cond)
        return params, self._join(changed, kept), logdet


@dataclasses.dataclass(frozen=True)
class Within(Bijector):
    """outer, then inner, then outer's inverse.

    Within(Squeeze(), f) is f on squeezed channels of an image that keeps its layout;
    Within(Swap(), coupling) is the coupling that keeps the last half of the channels.

    Attributes:
      outer: a volume-preserving bijector without parameters (a squeeze, a permutation).
      inner: a bijector that keeps the shape; its parameters are the parameters.
    """

    outer: Bijector
    inner: Bijector

    def init(self, key, shape):
        return self.inner.init(key, self.outer.output_shape(shape))

    def output_shape(self, shape):
        inside = self.outer.output_shape(shape)
        require(self.inner.output_shape(inside) == inside, "Within: inner must keep the shape")
        return shape

    def prepare(self, params, cond=None, inverse: bool = False):
        return self.inner.prepare(params, cond, inverse)

    def prepare_stacked(self, params, cond=None, inverse: bool = False):
        return self.inner.prepare_stacked(params, cond, inverse)

    def forward(self, params, x, cond=None, prepared=None):
        inside, _ = self.outer.forward({}, x)
        inside, logdet = self.inner.forward(params, inside, cond, prepared)
        return self.outer.inverse({}, inside)[0], logdet

    def inverse(self, params, y, cond=None, prepared=None):
        inside, _ = self.outer.forward({}, y)
        inside, logdet = self.inner.inverse(params, inside, cond, prepared)
        return self.outer.inverse({}, inside)[0], logdet

    def init_from_data(self, params, x, cond=None):
        inside, _ = self.outer.forward({}, x)
        params, inside, logdet = self.inner.init_from_data(params, inside, cond)
        return params, self.outer.inverse({}, inside)[0], logdet
