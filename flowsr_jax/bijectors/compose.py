"""Compositions: a chain and the multi-scale flow."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
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
from flowsr_jax.types import Learn


@dataclasses.dataclass(frozen=True)
class Chain(Composite):
    """Named bijectors applied in order; every one sees the same cond.

    `chain[name]` is the bijector of that name.

    Attributes:
      bijectors: ((name, bijector), ...), at least one; parameters are {name: parameters},
        without an entry for those that have none.

    Raises:
      ValueError: no bijector, or two of one name.
    """

    bijectors: tuple[tuple[str, Bijector], ...]

    def __post_init__(self) -> None:
        names = [name for name, _ in self.bijectors]
        require(len(names) > 0, "Chain: needs at least one bijector")
        twice = sorted({name for name in names if names.count(name) > 1})
        require(not twice, f"Chain: two bijectors have the name {', '.join(map(repr, twice))}")

    def __getitem__(self, name: str) -> Bijector:
        return dict(self.bijectors)[name]

    def init(self, key: Array, shape: Shape) -> PyTree:
        params = {}
        keys = jax.random.split(key, len(self.bijectors))
        for k, (name, part) in zip(keys, self.bijectors, strict=True):
            if part_params := part.init(k, shape):
                params[name] = part_params
            shape = part.output_shape(shape)
        return params

    def output_shape(self, shape: Shape) -> Any:
        for _, part in self.bijectors:
            shape = part.output_shape(shape)
        return shape

    def prepare(self, params: PyTree, cond: PyTree = None, inverse: bool = False) -> PyTree:
        return {
            name: part.prepare(params.get(name, {}), cond, inverse) for name, part in self.bijectors
        }

    def prepare_stacked(self, params: PyTree, cond: PyTree = None, inverse: bool = False) -> PyTree:
        return {
            name: part.prepare_stacked(params.get(name, {}), cond, inverse)
            for name, part in self.bijectors
        }

    def forward(
        self, params: PyTree, x: Any, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Any, Array]:
        total = zeros_logdet(x)
        for name, part in self.bijectors:
            x, logdet = part.forward(params.get(name, {}), x, cond, _of(prepared, name))
            total = total + logdet
        return x, total

    def inverse(
        self, params: PyTree, y: Any, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Any, Array]:
        total: Any = 0.0
        for name, part in reversed(self.bijectors):
            y, logdet = part.inverse(params.get(name, {}), y, cond, _of(prepared, name))
            total = total + logdet
        return y, total

    def vjp_from_output(
        self,
        params: PyTree,
        y: Any,
        cotangents: tuple[Any, Array],
        cond: PyTree = None,
        prepared: PyTree = None,
        inverse: bool = False,
    ) -> tuple[Any, tuple[PyTree, Any, PyTree, PyTree]]:
        # Part by part: one part's activations at a time, and a coupling whose own input is
        # at hand lets the compiler evaluate its network once for undoing and differentiating.
        dy, dlogdet = cotangents
        dparams: dict[str, PyTree] = {}
        dprepared: dict[str, PyTree] | None = None if prepared is None else {}
        dcond = None
        for name, part in self.bijectors if inverse else reversed(self.bijectors):
            y, (dp, dy, dc, dprep) = part.vjp_from_output(
                params.get(name, {}), y, (dy, dlogdet), cond, _of(prepared, name), inverse
            )
            dcond = dc if dcond is None else jax.tree.map(jnp.add, dcond, dc)
            if name in params:
                dparams[name] = dp
            if dprepared is not None:
                dprepared[name] = dprep
        return y, (dparams, dy, dcond, dprepared)

    def learned(
        self, learn: Learn, params: PyTree, x: Any, cond: PyTree, inverse: bool
    ) -> tuple[PyTree, Any, Array]:
        total: Any = 0.0 if inverse else zeros_logdet(x)
        new = {}
        for name, part in reversed(self.bijectors) if inverse else self.bijectors:
            part_params, x, logdet = learn(part, params.get(name, {}), x, cond)
            if part_params:
                new[name] = part_params
            total = total + logdet
        return new, x, total

    def parts(self, params: PyTree, cond: PyTree = None) -> list[NamedPart]:
        return [(name, part, params.get(name, {}), cond) for name, part in self.bijectors]


@dataclasses.dataclass(frozen=True)
class MultiScale(Composite):
    """Levels of a flow; the output is a list of latents, finest level first.

    Each level is a bijector followed, where `splits` says so, by a split whose latent joins
    the list.  What the last level gives is the last entry, whitened by the last of `splits`
    if that is a prior.  Parameters are {"level1": {"flow", "split"}, ...}, the last level's
    {"flow", "prior"}.

    Attributes:
      levels: one bijector per level.
      splits: per level a bijector x -> (rest, latent), such as Split, or None; the last is
        None or a bijector that keeps the shape, such as ConditionalPrior or TopPrior.
      key: cond[key][i] is the cond of level i and of its split; None hands cond to all.

    Raises:
      ValueError: another number of splits than of levels, or a split in the wrong place.
    """

    levels: tuple[Bijector, ...]
    splits: tuple[Bijector | None, ...]
    key: str | None = None

    def __post_init__(self) -> None:
        require(len(self.levels) > 0, "MultiScale: needs at least one level")
        require(
            len(self.levels) == len(self.splits),
            f"MultiScale: {len(self.levels)} levels need as many entries of splits, got "
            f"{len(self.splits)}",
        )
        for i, split in enumerate(self.splits):
            last = i == len(self.splits) - 1
            require(
                split is None or split.diverts != last,
                f"MultiScale: {type(split).__name__} cannot be entry {i} of splits: "
                + ("the last keeps the shape" if last else "it gives no latent"),
            )

    def _steps(self) -> list[tuple[str, str, int, Bijector]]:
        """Return (level's name, name in its parameters, number, bijector) of levels and splits."""
        steps: list[tuple[str, str, int, Bijector]] = []
        for i, (level, split) in enumerate(zip(self.levels, self.splits, strict=True)):
            name = f"level{i + 1}"
            steps.append((name, "flow", i, level))
            if split is not None:
                steps.append((name, "split" if split.diverts else "prior", i, split))
        return steps

    def _cond(self, cond: PyTree, i: int) -> PyTree:
        return cond if self.key is None or cond is None else cond[self.key][i]

    def init(self, key: Array, shape: Shape) -> PyTree:
        params: dict[str, dict[str, PyTree]] = {}
        for name, kind, i, part in self._steps():
            keys = jax.random.split(jax.random.fold_in(key, i))
            params.setdefault(name, {})[kind] = part.init(keys[int(kind != "flow")], shape)
            shape = part.output_shape(shape)
            if part.diverts:
                shape, _ = shape
        return params

    def output_shape(self, shape: Shape) -> list[Shape]:
        """Return the latents' shapes (without batch), finest level first."""
        shapes = []
        for *_, part in self._steps():
            shape = part.output_shape(shape)
            if part.diverts:
                shape, latent = shape
                shapes.append(latent)
        return [*shapes, shape]

    def prepare(self, params: PyTree, cond: PyTree = None, inverse: bool = False) -> PyTree:
        prepared: dict[str, dict[str, PyTree]] = {}
        for name, kind, i, part in self._steps():
            ready = part.prepare(params[name][kind], self._cond(cond, i), inverse)
            prepared.setdefault(name, {})[kind] = ready
        return prepared

    def forward(
        self, params: PyTree, x: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[list[Array], Array]:
        self.output_shape(x.shape[1:])

        def run(name: str, kind: str, i: int, part: Bijector, x: Any) -> tuple[None, Any, Array]:
            ready = _of(_of(prepared, name), kind)
            return None, *part.forward(params[name][kind], x, self._cond(cond, i), ready)

        return self._forward(run, x)[1:]

    def inverse(
        self, params: PyTree, y: Any, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        def run(name: str, kind: str, i: int, part: Bijector, y: Any) -> tuple[None, Any, Array]:
            ready = _of(_of(prepared, name), kind)
            return None, *part.inverse(params[name][kind], y, self._cond(cond, i), ready)

        return self._inverse(run, y)[1:]

    def learned(
        self, learn: Learn, params: PyTree, x: Any, cond: PyTree, inverse: bool
    ) -> tuple[PyTree, Any, Array]:
        def run(name: str, kind: str, i: int, part: Bijector, x: Any) -> tuple[PyTree, Any, Array]:
            return learn(part, params[name][kind], x, self._cond(cond, i))

        return self._inverse(run, x) if inverse else self._forward(run, x)

    def _forward(
        self, run: Callable[..., tuple[PyTree, Any, Array]], x: Any
    ) -> tuple[PyTree, list[Array], Array]:
        """Return (params, latents, logdet), where run(*step, x) gives those of one step."""
        total, latents = zeros_logdet(x), []
        new: dict[str, dict[str, PyTree]] = {}
        for step in self._steps():
            name, kind, _, part = step
            new.setdefault(name, {})[kind], x, logdet = run(*step, x)
            total = total + logdet
            if part.diverts:
                x, latent = x
                latents.append(latent)
        return new, [*latents, x], total

    def _inverse(
        self, run: Callable[..., tuple[PyTree, Any, Array]], y: Any
    ) -> tuple[PyTree, Array, Array]:
        """Return (params, image, logdet), where run(*step, y) gives those of one step's inverse."""
        latents = list(y)
        count = 1 + sum(part.diverts for *_, part in self._steps())
        require(len(latents) == count, f"MultiScale: expected {count} latents, got {len(latents)}")
        x = latents.pop()
        total = zeros_logdet(x)
        new: dict[str, dict[str, PyTree]] = {}
        for step in reversed(self._steps()):
            name, kind, _, part = step
            given = (x, latents.pop()) if part.diverts else x
            new.setdefault(name, {})[kind], x, logdet = run(*step, given)
            total = total + logdet
        return new, x, total

    def parts(self, params: PyTree, cond: PyTree = None) -> list[NamedPart]:
        return [
            (
                name if kind == "flow" else f"{name}.{kind}",
                part,
                params[name][kind],
                self._cond(cond, i),
            )
            for name, kind, i, part in self._steps()
        ]


def _of(prepared: PyTree, name: str) -> PyTree:
    """Return the share of one part; None where nothing was prepared."""
    return None if prepared is None else prepared[name]
