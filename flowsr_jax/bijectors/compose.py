"""Compositions: a chain, a scan over K identical steps, and the multi-scale flow."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from flowsr_jax.bijectors.base import Bijector, require, zeros_logdet
from flowsr_jax.bijectors.split import Split


@dataclasses.dataclass(frozen=True)
class Chain(Bijector):
    """Named bijectors applied in order; every part sees the same cond.

    Attributes:
      parts: ((name, bijector), ...); parameters are {name: parameters}, without
        an entry for parts that have none.
    """

    parts: tuple[tuple[str, Bijector], ...]

    def init(self, key, shape):
        params = {}
        for k, (name, part) in zip(jax.random.split(key, len(self.parts)), self.parts, strict=True):
            if part_params := part.init(k, shape):
                params[name] = part_params
            shape = part.output_shape(shape)
        return params

    def output_shape(self, shape):
        for _, part in self.parts:
            shape = part.output_shape(shape)
        return shape

    def prepare(self, params, cond=None, inverse: bool = False):
        return {
            name: part.prepare(params.get(name, {}), cond, inverse) for name, part in self.parts
        }

    def prepare_stacked(self, params, cond=None, inverse: bool = False):
        return {
            name: p.prepare_stacked(params.get(name, {}), cond, inverse) for name, p in self.parts
        }

    def forward(self, params, x, cond=None, prepared=None):
        prepared = prepared or {}
        total = zeros_logdet(x)
        for name, part in self.parts:
            x, logdet = part.forward(params.get(name, {}), x, cond, prepared.get(name))
            total = total + logdet
        return x, total

    def inverse(self, params, y, cond=None, prepared=None):
        prepared = prepared or {}
        total = 0.0
        for name, part in reversed(self.parts):
            y, logdet = part.inverse(params.get(name, {}), y, cond, prepared.get(name))
            total = total + logdet
        return y, total

    def init_from_data(self, params, x, cond=None):
        total, new = zeros_logdet(x), {}
        for name, part in self.parts:
            part_params, x, logdet = part.init_from_data(params.get(name, {}), x, cond)
            if part_params:
                new[name] = part_params
            total = total + logdet
        return new, x, total


@dataclasses.dataclass(frozen=True)
class Scan(Bijector):
    """`length` applications of one step; parameters carry a leading axis of that length.

    Compiled once per level (lax.scan), or unrolled; the conditioning's share of all
    steps is prepared together (one wide convolution instead of many narrow ones).

    Attributes:
      step: the bijector that is repeated (its output has its input's shape).
      length: K.
      unroll: unroll the loop at compile time.
      remat: rematerialise each step in the backward pass.
    """

    step: Bijector
    length: int
    unroll: bool = False
    remat: bool = False

    def init(self, key, shape):
        require(self.step.output_shape(shape) == shape, "Scan: the step must keep the shape")
        # A loop: vmap would batch the QR of the 1x1s, which can hang XLA's CPU backend.
        keys = jax.random.split(key, self.length)
        return stack_steps([self.step.init(k, shape) for k in keys])

    def step_params(self, params, k: int):
        """Parameters of step k (from 0), without the leading axis."""
        return jax.tree.map(lambda leaf: leaf[k], params)

    def prepare(self, params, cond=None, inverse: bool = False):
        return self.step.prepare_stacked(params, cond, inverse)

    def _run(self, method, params, x, cond, prepared, reverse):
        def body(carry, xs):
            z, total = carry
            z, logdet = method(xs[0], z, cond, xs[1])
            return (z, total + logdet), None

        if self.remat:
            body = jax.checkpoint(body)
        init = (x, zeros_logdet(x))
        unroll = self.length if self.unroll else 1
        (z, total), _ = jax.lax.scan(
            body, init, (params, prepared), length=self.length, reverse=reverse, unroll=unroll
        )
        return z, total

    def forward(self, params, x, cond=None, prepared=None):
        if prepared is None:
            prepared = self.prepare(params, cond)
        return self._run(self.step.forward, params, x, cond, prepared, reverse=False)

    def inverse(self, params, y, cond=None, prepared=None):
        if prepared is None:
            prepared = self.prepare(params, cond, inverse=True)
        return self._run(self.step.inverse, params, y, cond, prepared, reverse=True)

    def init_from_data(self, params, x, cond=None):
        def body(carry, step_params):
            z, total = carry
            new, z, logdet = self.step.init_from_data(step_params, z, cond)
            return (z, total + logdet), new

        (z, total), new = jax.lax.scan(body, (x, zeros_logdet(x)), params)
        return new, z, total


@dataclasses.dataclass(frozen=True)
class MultiScale(Bijector):
    """Levels of a flow; the output is a list of latents, finest level first.

    Each level is a bijector followed, where `splits` says so, by a Split whose latent
    joins the list; the last entry is what the last level gives.

    Attributes:
      levels: one bijector per level.
      splits: a Split or None per level; the last must be None.
      key: cond[key][i] is the cond of level i; None hands cond to all.
    """

    levels: tuple[Bijector, ...]
    splits: tuple[Split | None, ...]
    key: str | None = None

    def __post_init__(self):
        require(
            len(self.levels) == len(self.splits) and self.splits[-1] is None,
            "MultiScale: one split entry per level, None for the last",
        )

    def _cond(self, cond, i):
        return cond if self.key is None or cond is None else cond[self.key][i]

    def _names(self):
        return [f"level{i + 1}" for i in range(len(self.levels))]

    def init(self, key, shape):
        params = {}
        for i, name in enumerate(self._names()):
            kl, ks = jax.random.split(jax.random.fold_in(key, i))
            params[name] = {"flow": self.levels[i].init(kl, shape)}
            shape = self.levels[i].output_shape(shape)
            if self.splits[i] is not None:
                params[name]["split"] = self.splits[i].init(ks, shape)
                shape, _ = self.splits[i].output_shape(shape)
        return params

    def output_shape(self, shape):
        """A list of latent shapes (without batch), finest level first."""
        shapes = []
        for level, split in zip(self.levels, self.splits, strict=True):
            shape = level.output_shape(shape)
            if split is not None:
                shape, eps = split.output_shape(shape)
                shapes.append(eps)
        return [*shapes, shape]

    def prepare(self, params, cond=None, inverse: bool = False):
        return {
            name: self.levels[i].prepare(params[name]["flow"], self._cond(cond, i), inverse)
            for i, name in enumerate(self._names())
        }

    def forward(self, params, x, cond=None, prepared=None):
        self.output_shape(x.shape[1:])
        prepared = prepared or {}
        total, latents = zeros_logdet(x), []
        for i, name in enumerate(self._names()):
            p = params[name]
            cond_i = self._cond(cond, i)
            x, logdet = self.levels[i].forward(p["flow"], x, cond_i, prepared.get(name))
            total = total + logdet
            if self.splits[i] is not None:
                (x, eps), logdet = self.splits[i].forward(p["split"], x)
                total = total + logdet
                latents.append(eps)
        return [*latents, x], total

    def inverse(self, params, y, cond=None, prepared=None):
        prepared = prepared or {}
        latents = list(y)
        count = 1 + sum(split is not None for split in self.splits)
        require(len(latents) == count, f"MultiScale: expected {count} latents, got {len(latents)}")
        x = latents.pop()
        total = zeros_logdet(x)
        for i, name in reversed(list(enumerate(self._names()))):
            p = params[name]
            if self.splits[i] is not None:
                x, logdet = self.splits[i].inverse(p["split"], (x, latents.pop()))
                total = total + logdet
            x, logdet = self.levels[i].inverse(
                p["flow"], x, self._cond(cond, i), prepared.get(name)
            )
            total = total + logdet
        return x, total

    def init_from_data(self, params, x, cond=None):
        total, latents, new = zeros_logdet(x), [], {}
        for i, name in enumerate(self._names()):
            p = dict(params[name])
            p["flow"], x, logdet = self.levels[i].init_from_data(p["flow"], x, self._cond(cond, i))
            total = total + logdet
            if self.splits[i] is not None:
                (x, eps), logdet = self.splits[i].forward(p["split"], x)
                total = total + logdet
                latents.append(eps)
            new[name] = p
        return new, [*latents, x], total


@dataclasses.dataclass(frozen=True)
class Invert(Bijector):
    """The inverse of a shape-keeping or squeezing bijector as a bijector."""

    bijector: Bijector

    def init(self, key, shape):
        raise ValueError("Invert: initialise the inner bijector and pass its parameters")

    def forward(self, params, x, cond=None, prepared=None):
        return self.bijector.inverse(params, x, cond, prepared)

    def inverse(self, params, y, cond=None, prepared=None):
        return self.bijector.forward(params, y, cond, prepared)


def stack_steps(steps):
    """Stack a list of equal parameter trees into one with a leading axis (for Scan)."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *steps)
