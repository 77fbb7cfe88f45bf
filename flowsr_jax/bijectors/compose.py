"""Compositions: a chain, the multi-scale flow, and the inverse of a bijector."""

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

    def vjp_from_output(self, params, y, cotangents, cond=None, prepared=None, inverse=False):
        # Part by part: one part's activations at a time, and a coupling whose own input is
        # at hand lets the compiler evaluate its network once for undoing and differentiating.
        parts, (dy, dlogdet) = self.parts, cotangents
        dparams, dcond, dprepared = {}, None, None if prepared is None else {}
        for name, part in parts if inverse else reversed(parts):
            mine = None if prepared is None else prepared[name]
            y, (dp, dy, dc, dprep) = part.vjp_from_output(
                params.get(name, {}), y, (dy, dlogdet), cond, mine, inverse
            )
            dcond = dc if dcond is None else jax.tree.map(jnp.add, dcond, dc)
            if name in params:
                dparams[name] = dp
            if prepared is not None:
                dprepared[name] = dprep
        return y, (dparams, dy, dcond, dprepared)

    def init_from_data(self, params, x, cond=None):
        total, new = zeros_logdet(x), {}
        for name, part in self.parts:
            part_params, x, logdet = part.init_from_data(params.get(name, {}), x, cond)
            if part_params:
                new[name] = part_params
            total = total + logdet
        return new, x, total


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
    """The inverse of a bijector that keeps the shape or has no parameters."""

    bijector: Bijector

    def init(self, key, shape):
        return self.bijector.init(key, self.output_shape(shape))

    def output_shape(self, shape):
        try:
            keeps = self.bijector.output_shape(shape) == shape
        except ValueError:  # one that takes only what it makes
            keeps = False
        if keeps:
            return shape
        y = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        try:
            return jax.eval_shape(lambda y: self.bijector.inverse({}, y)[0], y).shape[1:]
        except KeyError:
            name = type(self.bijector).__name__
            raise ValueError(f"Invert: {name} has parameters and changes the shape") from None

    def forward(self, params, x, cond=None, prepared=None):
        return self.bijector.inverse(params, x, cond, prepared)

    def inverse(self, params, y, cond=None, prepared=None):
        return self.bijector.forward(params, y, cond, prepared)
