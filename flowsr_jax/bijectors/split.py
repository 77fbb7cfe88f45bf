"""Learned Gaussian priors: of the channels that leave as a latent, and of the last latent."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

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
)
from flowsr_jax.math.gaussian import sum_event
from flowsr_jax.nets.conv import Compute
from flowsr_jax.nets.coupling_net import PriorNet


def whiten(x: Array, mean: Array, logs: Array) -> tuple[Array, Array]:
    """Return ((x - mean) / exp(logs), logdet [B]); mean and logs broadcast to x."""
    return (x - mean) * jnp.exp(-logs), -sum_event(jnp.broadcast_to(logs, x.shape))


def unwhiten(eps: Array, mean: Array, logs: Array) -> tuple[Array, Array]:
    """Return (mean + exp(logs) eps, logdet [B]), the inverse of `whiten`."""
    return mean + jnp.exp(logs) * eps, sum_event(jnp.broadcast_to(logs, eps.shape))


class _Prior(Bijector):
    """What Split and ConditionalPrior share: mean and logs by a network."""

    cond_channels: int
    compute: Compute

    def prior(self, features: int) -> nn.Module:
        """Return the network of mean and logs, the even and odd of its `features` channels."""
        return PriorNet(self.cond_channels, self.compute, features, parent=None)

    def prepare(self, params: PyTree, cond: PyTree = None, inverse: bool = False) -> PyTree:
        return networks.prepare(self.prior(0), params["prior"], cond)

    def prepare_stacked(self, params: PyTree, cond: PyTree = None, inverse: bool = False) -> PyTree:
        return networks.prepare(self.prior(0), params["prior"], cond, stacked=True)

    def moments(
        self, params: PyTree, z1: Array | None, channels: int, cond: PyTree, prepared: PyTree
    ) -> tuple[Array, Array]:
        """Return (mean, logs) [B,...,channels] by z1 and cond."""
        net = self.prior(2 * channels)
        out = networks.evaluate(net, params["prior"], z1, cond, prepared)
        return out[..., 0::2], out[..., 1::2]


@dataclasses.dataclass(frozen=True)
class Split(_Prior):
    """x -> (z1, eps): z1 = first channels, eps = (z2 - mean(z1)) / exp(logs(z1)).

    logdet = -sum(logs), so log p(x) = log p(z1) + log N(eps; 0, 1) + logdet; mean and
    logs are the even and odd channels of a zero-initialised 3x3 convolution of z1, and with
    `cond_channels` of [z1, cond].
    Kingma and Dhariwal, Glow (2018), section 3.6; docs/papers/srflow.md section 1.

    Attributes:
      ratio: share of the channels that becomes latent (rounded), between 0 and 1.
      cond_channels: channels of cond, [B,H,W,cond_channels] or its parts (`Upsampled`);
        0 is unconditional.
      compute: precision and form of the prior's convolution.

    Raises:
      ValueError: a ratio out of range; as the shape is known, one that splits nothing off.
    """

    diverts: ClassVar[bool] = True
    ratio: float = 0.5
    cond_channels: int = 0
    compute: Compute = Compute()

    def __post_init__(self) -> None:
        require(0 < self.ratio < 1, f"Split: ratio = {self.ratio} must be between 0 and 1")
        require(self.cond_channels >= 0, f"Split: cond_channels = {self.cond_channels} is negative")

    def passed(self, channels: int) -> int:
        """Return the channels of z1 for an input of `channels`."""
        n = channels - round(channels * self.ratio)
        require(0 < n < channels, f"Split: {channels} channels cannot be split by {self.ratio}")
        return n

    def init(self, key: Array, shape: Shape) -> PyTree:
        n = self.passed(shape[-1])
        net = self.prior(2 * (shape[-1] - n))
        return {"prior": networks.init_network(net, key, shape[:-1], n)}

    def output_shape(self, shape: Shape) -> tuple[Shape, Shape]:
        n = self.passed(shape[-1])
        return (*shape[:-1], n), (*shape[:-1], shape[-1] - n)

    def forward(
        self, params: PyTree, x: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[tuple[Array, Array], Array]:
        n = self.passed(x.shape[-1])
        z1, z2 = x[..., :n], x[..., n:]
        eps, logdet = whiten(z2, *self.moments(params, z1, z2.shape[-1], cond, prepared))
        return (z1, eps), logdet

    def inverse(
        self, params: PyTree, y: tuple[Array, Array], cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        z1, eps = y
        z2, logdet = unwhiten(eps, *self.moments(params, z1, eps.shape[-1], cond, prepared))
        return jnp.concatenate([z1, z2], axis=-1), logdet

    def scales(self, params: PyTree, x: Array, cond: PyTree = None) -> Array:
        n = self.passed(x.shape[-1])
        return jnp.exp(-self.moments(params, x[..., :n], x.shape[-1] - n, cond, None)[1])


@dataclasses.dataclass(frozen=True)
class ConditionalPrior(_Prior):
    """eps = (x - mean(cond)) / exp(logs(cond)); logdet = -sum(logs).

    So log p(x | cond) = log N(eps; 0, 1) + logdet, in the place of a standard normal prior of
    a flow's last latent: the last of a MultiScale's `splits`.  mean and logs are the even and
    odd channels of a zero-initialised 3x3 convolution of cond.

    Attributes:
      cond_channels: channels of cond, [B,H,W,cond_channels] or its parts (`Upsampled`).
      compute: precision and form of the convolution.
    """

    cond_channels: int
    compute: Compute = Compute()

    def __post_init__(self) -> None:
        require_positive("ConditionalPrior: cond_channels", self.cond_channels)

    def init(self, key: Array, shape: Shape) -> PyTree:
        net = self.prior(2 * shape[-1])
        return {"prior": networks.init_network(net, key, shape[:-1], 0)}

    def forward(
        self, params: PyTree, x: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        return whiten(x, *self.moments(params, None, x.shape[-1], cond, prepared))

    def inverse(
        self, params: PyTree, y: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        return unwhiten(y, *self.moments(params, None, y.shape[-1], cond, prepared))

    def scales(self, params: PyTree, x: Array, cond: PyTree = None) -> Array:
        logs = self.moments(params, None, x.shape[-1], cond, None)[1]
        return jnp.exp(-jnp.broadcast_to(logs, x.shape))
