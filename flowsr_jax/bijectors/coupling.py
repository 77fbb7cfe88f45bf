"""Couplings and injectors: a network's output transforms what the network has not seen.

All arithmetic here is float32 whatever the network's dtype.  flowsr_jax/bijectors/networks.py
says what a network is.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from flowsr_jax.bijectors import networks
from flowsr_jax.bijectors.base import (
    Array,
    Bijector,
    PyTree,
    Shape,
    require,
    require_positive,
    zeros_logdet,
)
from flowsr_jax.bijectors.elementwise import Affine, Elementwise, logdet_of


class Conditioned(Bijector):
    """Base class: an elementwise map of a part of x by a network of the rest and of cond.

    A subclass is a frozen dataclass with the fields `net` and `transform`.

    Raises:
      TypeError, ValueError: a network that no bijector can hold (networks.check_network).
    """

    net: nn.Module
    transform: Elementwise

    def __post_init__(self) -> None:
        networks.check_network(type(self).__name__, self.net)

    @abc.abstractmethod
    def widths(self, channels: int) -> tuple[int, int]:
        """Return (channels that the network sees, channels that are transformed) of x's."""

    @abc.abstractmethod
    def seen(self, x: Array) -> tuple[Array | None, Any]:
        """Return (what the network sees, None for nothing; what `change` needs besides)."""

    @abc.abstractmethod
    def change(self, x: Array, raw: Array, context: Any, inverse: bool) -> tuple[Array, Array]:
        """Return (x transformed by the network's output, logdet [B])."""

    @abc.abstractmethod
    def log_slope(self, x: Array, raw: Array, context: Any) -> Array | None:
        """Return the log slopes of `change`; None for zeros."""

    def init(self, key: Array, shape: Shape) -> PyTree:
        channels = self.output_shape(shape)[-1]
        ci, _ = self.widths(channels)
        return {"net": networks.init_network(self._net(channels), key, shape[:-1], ci)}

    def _net(self, channels: int) -> nn.Module:
        """Return the network for x with `channels`."""
        _, co = self.widths(channels)
        return networks.with_features(self.net, self.transform.outputs(co))

    def prepare(self, params: PyTree, cond: PyTree = None, inverse: bool = False) -> PyTree:
        return {"net": networks.prepare(self.net, params["net"], cond)}

    def prepare_stacked(self, params: PyTree, cond: PyTree = None, inverse: bool = False) -> PyTree:
        return {"net": networks.prepare(self.net, params["net"], cond, stacked=True)}

    def _run(self, params: PyTree, x: Array, cond: PyTree, prepared: PyTree) -> tuple[Array, Any]:
        """Return (the network's output, the context that `change` needs)."""
        ready = None if prepared is None else prepared["net"]
        # A network that shares nothing between the steps of a scan prepares in each.
        if ready is None:
            ready = networks.prepare(self.net, params["net"], cond)
        seen, context = self.seen(x)
        net = self._net(x.shape[-1])
        return networks.evaluate(net, params["net"], seen, cond, ready), context

    def forward(
        self, params: PyTree, x: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        return self.change(x, *self._run(params, x, cond, prepared), False)

    def inverse(
        self, params: PyTree, y: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        return self.change(y, *self._run(params, y, cond, prepared), True)

    def init_from_data(
        self, params: PyTree, x: Array, cond: PyTree = None, inverse: bool = False
    ) -> tuple[PyTree, Array, Array]:
        seen, context = self.seen(x)
        net = self._net(x.shape[-1])
        new, raw = networks.init_from_data(net, params["net"], seen, cond)
        return {"net": new}, *self.change(x, raw, context, inverse)

    def forward_train(
        self, params: PyTree, x: Array, cond: PyTree = None
    ) -> tuple[PyTree, Array, Array]:
        seen, context = self.seen(x)
        net = self._net(x.shape[-1])
        new, raw = networks.forward_train(net, params["net"], seen, cond)
        return {"net": new}, *self.change(x, raw, context, False)

    def scales(self, params: PyTree, x: Array, cond: PyTree = None) -> Array | None:
        logs = self.log_slope(x, *self._run(params, x, cond, None))
        return None if logs is None else jnp.exp(logs)


@dataclasses.dataclass(frozen=True)
class Coupling(Conditioned):
    """z1, the first channels, passes unchanged and feeds the network that transforms the rest.

    Dinh et al., NICE (2014), section 3.2, and RealNVP (2017), section 3.2.

    Attributes:
      net: the network of z1, and perhaps of cond.
      transform: the elementwise map of z2: Affine, Additive, RationalQuadratic, or your own.
      passed: number of channels of z1; None for C // 2.
    """

    net: nn.Module
    transform: Elementwise = Affine()
    passed: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.passed is not None:
            require_positive("Coupling: passed", self.passed)

    def widths(self, channels: int) -> tuple[int, int]:
        n = channels // 2 if self.passed is None else self.passed
        require(
            0 < n < channels,
            f"Coupling: needs more channels than the {n} passed on, got {channels}",
        )
        return n, channels - n

    def seen(self, x: Array) -> tuple[Array, int]:
        n, _ = self.widths(x.shape[-1])
        return x[..., :n], n

    def change(self, x: Array, raw: Array, context: int, inverse: bool) -> tuple[Array, Array]:
        n = context
        z2, logs = self.transform(x[..., n:], raw, inverse)
        logdet = logdet_of(logs, z2, inverse)
        return jnp.concatenate([x[..., :n], z2], axis=-1), logdet

    def log_slope(self, x: Array, raw: Array, context: int) -> Array | None:
        return self.transform(x[..., context:], raw)[1]


@dataclasses.dataclass(frozen=True)
class Injector(Conditioned):
    """All channels are transformed by a network of cond alone.

    Lugmayr et al., SRFlow (2020), section 3.3, the affine injector.

    Attributes:
      net: the network of cond.
      transform: the elementwise map of x.
    """

    net: nn.Module
    transform: Elementwise = Affine()

    def widths(self, channels: int) -> tuple[int, int]:
        return 0, channels

    def seen(self, x: Array) -> tuple[None, None]:
        return None, None

    def change(self, x: Array, raw: Array, context: None, inverse: bool) -> tuple[Array, Array]:
        z, logs = self.transform(x, raw, inverse)
        return z, logdet_of(logs, x, inverse)

    def log_slope(self, x: Array, raw: Array, context: None) -> Array | None:
        return self.transform(x, raw)[1]


@dataclasses.dataclass(frozen=True)
class Shift(Bijector):
    """y = x - cond[key]: a conditional bijector with zero logdet.

    With the encoder's estimate as cond the flow models the residual, so that
    temperature 0 starts at the encoder's picture instead of at grey.
    """

    key: str = "estimate"

    def forward(
        self, params: PyTree, x: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        return x - cond[self.key], zeros_logdet(x)

    def inverse(
        self, params: PyTree, y: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        return y + cond[self.key], zeros_logdet(y)
