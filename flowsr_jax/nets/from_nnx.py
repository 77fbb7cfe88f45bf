"""A flax.nnx module as the network of a coupling."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from flax import nnx

from flowsr_jax.types import Array, PyTree


class FromNNX(nn.Module):
    """The linen network of an nnx class: `Coupling(FromNNX(MyNet, (("width", 32),)), ...)`.

    The class is constructed as cls(in_channels, out_channels, **options, rngs=nnx.Rngs(...)),
    where in_channels are those of x alone, and called as module(x) or, with cond_channels, as
    module(x, cond).  Its nnx.Param are the parameters, {"net": {...}}.

    Attributes:
      cls: a subclass of nnx.Module.
      options: (name, value) pairs, hashable, of the constructor.
      cond_channels: channels of cond (0: unconditional).
      features: output channels; filled in by the coupling.

    Raises:
      ValueError: where parameters are made, a module with other state than nnx.Param, such as
        statistics or random streams: a coupling's network is a function of its parameters.
    """

    cls: type[nnx.Module]
    options: tuple[tuple[str, Any], ...] = ()
    cond_channels: int = 0
    features: int = 0

    @nn.compact
    def __call__(self, x: jax.Array, cond: jax.Array | None = None) -> jax.Array:
        made = self.cls, self.options, x.shape[-1], self.features
        graph, structure = _skeleton(*made)

        def init(key: Array) -> PyTree:
            module = _make(*made, nnx.Rngs(params=key))
            return nnx.to_pure_dict(nnx.state(module, nnx.Param))

        leaves = jax.tree.leaves(self.param("net", init))
        module = nnx.merge(graph, jax.tree.unflatten(structure, leaves))
        return module(x, cond) if self.cond_channels else module(x)


def _make(
    cls: Callable[..., nnx.Module],
    options: tuple[tuple[str, Any], ...],
    ci: int,
    co: int,
    rngs: nnx.Rngs,
) -> Any:
    return cls(ci, co, **dict(options), rngs=rngs)


@functools.lru_cache(maxsize=256)
def _skeleton(
    cls: type[nnx.Module], options: tuple[tuple[str, Any], ...], ci: int, co: int
) -> tuple[Any, Any]:
    """Return (graph definition, structure of the parameters) of the module; nothing is drawn."""
    module = nnx.eval_shape(lambda: _make(cls, options, ci, co, nnx.Rngs(0)))
    graph, params, rest = nnx.split(module, nnx.Param, ...)
    if others := sorted({type(v).__name__ for _, v in nnx.to_flat_state(rest)}):
        held = ", ".join(others)
        raise ValueError(
            f"{cls.__name__} holds {held}: a bijector's network may hold nnx.Param only"
        )
    return graph, jax.tree.structure(params)
