"""A plain regression network as a model family: one image for each LR image.

    FAMILY = regression_family("edsr", EDSRConfig, module=EDSR)

where `EDSR(config)` is a `flax.linen` module that maps lr [B,h,w,3] in [0,1] to an image
[B,s*h,s*w,3] in [0,1] (not clipped).  A network without flax gives `init` and `apply`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from flowsr_jax.models.base import Family, Params, View
from flowsr_jax.types import Array, Batch, LossResult, State

DISTANCES = {"l1": jnp.abs, "l2": jnp.square}


def regression_loss(apply: Callable[[Params, Array], Array], distance: str) -> Callable:
    """Return a loss: the mean of |error| ("l1") or error^2 ("l2") of `apply` against HR.

    Args:
      apply: (params, lr) -> image.
      distance: also the name of the metric, beside "psnr" (dB, of the batch).
    """

    def loss(params: Params, state: State, batch: Batch, key: Array) -> LossResult:
        del key
        sr = apply(params, batch["lr"])
        value = jnp.mean(DISTANCES[distance](sr - batch["hr"]))
        mse = jnp.mean(jnp.square(jax.lax.stop_gradient(sr) - batch["hr"]))
        return value, (state, {distance: value, "psnr": -10.0 * jnp.log10(mse)})

    return loss


def regression_family(
    name: str,
    config_class: type,
    *,
    module: Callable[[Any], Any] | None = None,
    init: Callable[[Any, Array], Params] | None = None,
    apply: Callable[[Params, Array], Array] | None = None,
    losses: tuple[str, ...] = ("l1", "l2"),
    **facts: Any,
) -> Family:
    """Return the family record of a regression network.

    Args:
      name, config_class: of the family; the config has an attribute `scale`.
      module: (config) -> flax.linen module without mutable collections, called on lr; its
        parameters are the one group "network".
      init, apply: instead of `module`: (config, key) -> Params, (params, lr) -> image.
      losses: "l1", "l2" or both.
      **facts: further fields of `Family`, e.g. lr_channels, multiple, weights, views.

    Raises:
      ValueError: neither a module nor both functions, or all of them.
    """
    if module is not None:
        init, apply = _of_module(module, lambda: family) if not (init or apply) else (None, None)
    if init is None or apply is None:
        raise ValueError("give module, or init and apply")

    @functools.partial(jax.jit, static_argnames=("num_samples",))
    def sample(
        params: Params,
        lr: Array,
        key: Array | None = None,
        *,
        temperature: ArrayLike | None = None,
        num_samples: int | None = None,
    ) -> Array:
        """Return the one image; other families need a key and a temperature."""
        del key, temperature
        sr = apply(params, lr)
        return sr if num_samples is None else jnp.broadcast_to(sr, (num_samples, *sr.shape))

    def views(config: Any, loss: str) -> tuple[View, ...]:
        del config, loss
        return (View(name.upper(), sample),)

    facts.setdefault("views", views)
    family = Family(
        name=name,
        config_class=config_class,
        init=init,
        losses={distance: regression_loss(apply, distance) for distance in losses},
        sample=sample,
        stochastic=False,
        module=None if module is None else lambda config: Regression(module, config),
        **facts,
    )
    return family


class Regression(nn.Module):
    """A network with the parameters of `Params`: the group "network".

    Attributes:
      module: (config) -> the network.
      config: of the family.
    """

    module: Callable[[Any], Any]
    config: Any

    def setup(self) -> None:
        self.network = self.module(self.config)

    def __call__(self, lr: Array) -> Array:
        return self.network(lr)


def _of_module(
    module: Callable[[Any], Any], family: Callable[[], Family]
) -> tuple[Callable[[Any, Array], Params], Callable[[Params, Array], Array]]:
    """Return (init, apply) of a flax.linen module."""

    def init(config: Any, key: Array) -> Params:
        # Convolutions fit every size, but shapes are needed to initialise them.
        side = 8 * family().multiple(config)
        lr = jnp.zeros((1, side, side, family().lr_channels(config)))
        return Params({"network": module(config).init(key, lr)["params"]}, config)

    def apply(params: Params, lr: Array) -> Array:
        return module(params.config).apply({"params": params["network"]}, lr)

    return init, apply
