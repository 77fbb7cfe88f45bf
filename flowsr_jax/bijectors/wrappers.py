"""Bijectors around another one: its inverse, a part of the channels, a change of layout."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from flowsr_jax.bijectors.base import (
    Array,
    Bijector,
    Composite,
    NamedPart,
    PyTree,
    Shape,
    require,
    zeros_logdet,
)
from flowsr_jax.config import choice
from flowsr_jax.types import Learn


class Wrapper(Composite):
    """Base class: `inner` acts inside; its parameters, cond and preparation are the wrapper's.

    A subclass is a frozen dataclass with the field `inner`.  What it does not define goes
    through to the inner bijector, data-dependent initialisation included.  The parts of a
    wrapped composite are its parts, each in the wrapper.
    """

    inner: Bijector

    @abc.abstractmethod
    def inner_shape(self, shape: Shape) -> Shape:
        """Return the shape (without batch) that the inner bijector meets."""

    @abc.abstractmethod
    def enter(self, x: Array) -> tuple[Array, Any]:
        """Return (what the inner bijector meets, what `leave` needs besides)."""

    @abc.abstractmethod
    def leave(self, inside: Array, rest: Any) -> Array:
        """Return the output of what the inner bijector gave."""

    def init(self, key: Array, shape: Shape) -> PyTree:
        return self.inner.init(key, self.inner_shape(shape))

    def output_shape(self, shape: Shape) -> Shape:
        inside, name = self.inner_shape(shape), type(self).__name__
        require(self.inner.output_shape(inside) == inside, f"{name}: inner must keep the shape")
        return shape

    def prepare(self, params: PyTree, cond: PyTree = None, inverse: bool = False) -> PyTree:
        return self.inner.prepare(params, cond, inverse)

    def prepare_stacked(self, params: PyTree, cond: PyTree = None, inverse: bool = False) -> PyTree:
        return self.inner.prepare_stacked(params, cond, inverse)

    def forward(
        self, params: PyTree, x: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        inside, rest = self.enter(x)
        inside, logdet = self.inner.forward(params, inside, cond, prepared)
        return self.leave(inside, rest), logdet

    def inverse(
        self, params: PyTree, y: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        inside, rest = self.enter(y)
        inside, logdet = self.inner.inverse(params, inside, cond, prepared)
        return self.leave(inside, rest), logdet

    def learned(
        self, learn: Learn, params: PyTree, x: Array, cond: PyTree, inverse: bool
    ) -> tuple[PyTree, Array, Array]:
        inside, rest = self.enter(x)
        params, inside, logdet = learn(self.inner, params, inside, cond)
        return params, self.leave(inside, rest), logdet

    def parts(self, params: PyTree, cond: PyTree = None) -> list[NamedPart]:
        return [
            (name, dataclasses.replace(self, inner=part), p, c)  # type: ignore[type-var]  # ty: ignore[invalid-argument-type]
            for name, part, p, c in self.inner.parts(params, cond)
        ]

    def scales(self, params: PyTree, x: Array, cond: PyTree = None) -> Array | None:
        return self.inner.scales(params, self.enter(x)[0], cond)

    def condition_number(self, params: PyTree) -> float:
        return self.inner.condition_number(params)


@dataclasses.dataclass(frozen=True)
class Invert(Wrapper):
    """The inverse of a bijector that keeps the shape or has no parameters."""

    inner: Bijector

    def inner_shape(self, shape: Shape) -> Shape:
        return self.output_shape(shape)

    def enter(self, x: Array) -> tuple[Array, None]:
        return x, None

    def leave(self, inside: Array, rest: None) -> Array:
        return inside

    def output_shape(self, shape: Shape) -> Shape:
        try:
            keeps = self.inner.output_shape(shape) == shape
        except ValueError:  # one that takes only what it makes
            keeps = False
        if keeps:
            return shape
        y = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        try:
            return jax.eval_shape(lambda y: self.inner.inverse({}, y)[0], y).shape[1:]
        except KeyError:
            name = type(self.inner).__name__
            raise ValueError(f"Invert: {name} has parameters and changes the shape") from None

    def prepare(self, params: PyTree, cond: PyTree = None, inverse: bool = False) -> PyTree:
        return self.inner.prepare(params, cond, not inverse)

    def prepare_stacked(self, params: PyTree, cond: PyTree = None, inverse: bool = False) -> PyTree:
        return self.inner.prepare_stacked(params, cond, not inverse)

    def forward(
        self, params: PyTree, x: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        return self.inner.inverse(params, x, cond, prepared)

    def inverse(
        self, params: PyTree, y: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        return self.inner.forward(params, y, cond, prepared)

    def init_from_data(
        self, params: PyTree, x: Array, cond: PyTree = None, inverse: bool = False
    ) -> tuple[PyTree, Array, Array]:
        return self.inner.init_from_data(params, x, cond, not inverse)

    def forward_train(
        self, params: PyTree, x: Array, cond: PyTree = None
    ) -> tuple[PyTree, Array, Array]:
        """Return what `forward` gives: the inner bijector's statistics are of its own input."""
        return params, *self.forward(params, x, cond)

    def parts(self, params: PyTree, cond: PyTree = None) -> list[NamedPart]:
        return super().parts(params, cond)[::-1]

    def scales(self, params: PyTree, x: Array, cond: PyTree = None) -> Array | None:
        found = self.inner.scales(params, self.inner.inverse(params, x, cond)[0], cond)
        return None if found is None else 1.0 / found


def _halves(name: str, x: Array) -> tuple[Array, Array]:
    n = x.shape[-1] // 2
    require(n > 0, f"{name}: needs at least 2 channels, got shape {tuple(x.shape)}")
    return x[..., :n], x[..., n:]


@dataclasses.dataclass(frozen=True)
class Swap(Bijector):
    """[x1, x2] -> [x2, x1]: the first C // 2 channels go to the end."""

    def forward(
        self, params: PyTree, x: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        x1, x2 = _halves("Swap", x)
        return jnp.concatenate([x2, x1], axis=-1), zeros_logdet(x)

    def inverse(
        self, params: PyTree, y: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        n = y.shape[-1] - y.shape[-1] // 2
        return jnp.concatenate([y[..., n:], y[..., :n]], axis=-1), zeros_logdet(y)


@dataclasses.dataclass(frozen=True)
class Part(Wrapper):
    """Apply `inner` to one half of the channels; the other half passes unchanged.

    Attributes:
      inner: a bijector that keeps the shape; its parameters are the parameters.
      half: "first" (the first C // 2 channels) or "last".
    """

    inner: Bijector
    half: str = "first"

    def __post_init__(self) -> None:
        choice("half", self.half, ("first", "last"))

    def inner_shape(self, shape: Shape) -> Shape:
        n = shape[-1] // 2
        require(n > 0, f"Part: needs at least 2 channels, got shape {tuple(shape)}")
        return (*shape[:-1], n if self.half == "first" else shape[-1] - n)

    def enter(self, x: Array) -> tuple[Array, Array]:
        x1, x2 = _halves("Part", x)
        return (x1, x2) if self.half == "first" else (x2, x1)

    def leave(self, inside: Array, rest: Array) -> Array:
        parts = [inside, rest] if self.half == "first" else [rest, inside]
        return jnp.concatenate(parts, axis=-1)


@dataclasses.dataclass(frozen=True)
class Within(Wrapper):
    """outer, then inner, then outer's inverse.

    Within(Squeeze(), f) is f on squeezed channels of an image that keeps its layout;
    Within(Swap(), coupling) is the coupling that keeps the last half of the channels.

    Attributes:
      outer: a volume-preserving bijector without parameters (a squeeze, a permutation).
      inner: a bijector that keeps the shape; its parameters are the parameters.
    """

    outer: Bijector
    inner: Bijector

    def inner_shape(self, shape: Shape) -> Shape:
        return self.outer.output_shape(shape)

    def enter(self, x: Array) -> tuple[Array, None]:
        return self.outer.forward({}, x)[0], None

    def leave(self, inside: Array, rest: None) -> Array:
        return self.outer.inverse({}, inside)[0]
