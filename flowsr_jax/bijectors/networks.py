"""How bijectors hold and call networks.

A network is a flax.linen module, unbound, with a field `features` that the bijector fills in:

    class MyNet(nn.Module):
        features: int = 0
        width: int = 64

        @nn.compact
        def __call__(self, x, cond=None): ...     # [..., Ci] to [..., features]

It is a function of its parameters, x and cond: no other collections, no random numbers.  x is
None in an injector, and cond is handed over where `__call__` takes it.  Optional:

- a field `cond_channels`: the channels of cond, which initialisation needs if the network's
  parameters depend on them;
- `prepare(cond)`: what x does not change, and `prepare_stacked(cond)`: the same of K stacked
  parameter sets with a leading K axis; `__call__` then takes `prepared=`;
- `forward_train(x)`: the pass that puts statistics of the batch into "params";
- `takes_parts = True`: cond may be a tuple of `Upsampled`; others get one array.

In `init_from_data` the collection "params" is mutable, as nets/layers.py's `ChannelAffine`
looks for.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from flowsr_jax.bijectors.base import Array, PyTree, Shape
from flowsr_jax.nets.layers import init_params
from flowsr_jax.nets.upsampled import Upsampled, dense


def check_network(owner: str, net: Any) -> None:
    """Raise unless `net` can be held by a bijector of the class named `owner`.

    Raises:
      TypeError: no flax.linen module with a field `features`.
      ValueError: a module that belongs to another one.
    """
    if not isinstance(net, nn.Module) or not hasattr(net, "features"):
        raise TypeError(
            f"{owner}: a network is a flax.linen module with a field `features`, got "
            f"{type(net).__name__}; for nnx see flowsr_jax.nets.from_nnx.FromNNX"
        )
    if net.parent is not None or net.scope is not None:
        raise ValueError(
            f"{owner}: {type(net).__name__} belongs to the Flax module in whose method it was "
            "made; make it with parent=None"
        )


def with_features(net: nn.Module, features: int) -> nn.Module:
    """Return the network that gives `features` channels."""
    return net.clone(features=features, parent=None)


def init_network(net: nn.Module, key: Array, positions: Shape, channels: int) -> PyTree:
    """Return parameters of the network of x [B, *positions, channels]; 0 channels: x is None.

    Raises:
      ValueError: a network with other collections than parameters.
    """
    x = _spec(positions, channels)
    cond = _spec(positions, getattr(net, "cond_channels", 0))
    arguments = (x, cond) if _takes(type(net), "cond") else (x,)
    _check_collections(net, *arguments)  # ty: ignore[invalid-argument-type]
    return init_params(net, key, *arguments)


def prepare(net: nn.Module, params: PyTree, cond: PyTree, stacked: bool = False) -> PyTree:
    """Return the network's share of cond, of K parameter sets with `stacked`; None for none."""
    name = "prepare_stacked" if stacked else "prepare"
    if not hasattr(type(net), name):
        return None
    return net.apply({"params": params}, _for(net, cond), method=name)


def evaluate(
    net: nn.Module, params: PyTree, x: Array | None, cond: PyTree, prepared: PyTree = None
) -> Array:
    """Return the network's output, by what was prepared or by cond itself."""
    if prepared is not None:
        return net.apply({"params": params}, x, prepared=prepared)  # ty: ignore[invalid-explicit-return]
    return net.apply({"params": params}, x, *_cond_argument(net, cond))  # ty: ignore[invalid-explicit-return]


def init_from_data(
    net: nn.Module, params: PyTree, x: Array | None, cond: PyTree
) -> tuple[PyTree, Array]:
    """Return (parameters initialised from x, the network's output with them)."""
    cond = _cond_argument(net, cond)
    out, new = net.apply({"params": params}, x, *cond, mutable=["params"])
    return new.get("params", params), out


def forward_train(
    net: nn.Module, params: PyTree, x: Array | None, cond: PyTree
) -> tuple[PyTree, Array]:
    """Return (parameters with the batch's statistics, the network's output by them)."""
    if not hasattr(type(net), "forward_train"):
        return params, evaluate(net, params, x, cond, prepare(net, params, cond))
    out, new = net.apply({"params": params}, x, method="forward_train", mutable=["params"])
    return new["params"], out


def _spec(positions: Shape, channels: int) -> jax.ShapeDtypeStruct | None:
    shape = (1, *positions, channels)
    return jax.ShapeDtypeStruct(shape, jnp.float32) if channels else None


@functools.cache
def _takes(cls: type, argument: str) -> bool:
    return argument in inspect.signature(cls.__call__).parameters


def _cond_argument(net: nn.Module, cond: PyTree) -> tuple[PyTree, ...]:
    return (_for(net, cond),) if _takes(type(net), "cond") else ()


def _for(net: nn.Module, cond: PyTree) -> PyTree:
    """Return cond as the network takes it."""
    if getattr(net, "takes_parts", False) or not isinstance(cond, tuple):
        return cond
    return dense(cond) if all(isinstance(part, Upsampled) for part in cond) else cond


@functools.lru_cache(maxsize=256)
def _check_collections(net: nn.Module, *arguments: jax.ShapeDtypeStruct | None) -> None:
    made = jax.eval_shape(lambda: net.lazy_init(jax.random.key(0), *arguments))
    if others := sorted(set(made) - {"params"}):
        raise ValueError(
            f"{type(net).__name__} holds {', '.join(others)}: a bijector's network may hold "
            "parameters only"
        )
