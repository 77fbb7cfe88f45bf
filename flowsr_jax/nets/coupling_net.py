"""The networks of SRFlow: inside its coupling and injector, and of its priors.

Lugmayr et al., SRFlow (2020), section 3.3; docs/papers/srflow.md sections 1 (9, 10) and 4.3.

A convolution of [x, cond] is kept as two kernels, because conv([x, cond]) = conv(x) +
conv(cond) and the second term does not depend on the latent: `prepare` computes it once per
LR image, for all samples.  Both networks take cond as [B,H,W,C], or as the parts (`Upsampled`)
whose channels make it up.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from flowsr_jax.nets.conv import Compute, conv2d, matmul
from flowsr_jax.nets.layers import LOGSCALE, ChannelAffine, ZeroConv, leaf, normal, zeros
from flowsr_jax.nets.upsampled import Upsampled, conv_parts, dense
from flowsr_jax.types import Array, PyTree

Cond = jax.Array | tuple[Upsampled, ...]


def conv_cond(cond: Cond, kernel: jax.Array, compute: Compute) -> jax.Array:
    """Return the 3x3 convolution of cond: [B,H,W,Co] float32."""
    if isinstance(cond, tuple):
        return conv_parts(cond, kernel, compute)
    return conv2d(cond, kernel, None, compute)


def conv_cond_stacked(cond: Cond, kernels: jax.Array, compute: Compute) -> jax.Array:
    """Return the same by K kernels [K,3,3,C,Co], as one wide convolution: [K,B,H,W,Co]."""
    k, kh, kw, ci, co = kernels.shape
    y = conv_cond(cond, kernels.transpose(1, 2, 3, 0, 4).reshape(kh, kw, ci, k * co), compute)
    return jnp.moveaxis(y.reshape(*y.shape[:-1], k, co), -2, 0)


class CouplingNet(nn.Module):
    """conv3x3 - ActNorm - ReLU - conv1x1 - ActNorm - ReLU - zero-initialised conv3x3.

    x [B,H,W,Ci], or None for an injector's, to [B,H,W,features] float32.

    Attributes:
      hidden: width of the two hidden layers.
      cond_channels: channels of the conditioning features (0: unconditional).
      compute: precision and form of the convolutions.
      features: output channels; filled in by the coupling.
    """

    hidden: int = 64
    cond_channels: int = 0
    compute: Compute = Compute()
    features: int = 0
    takes_parts: ClassVar[bool] = True

    @nn.compact
    def __call__(
        self, x: jax.Array | None, cond: Cond | None = None, prepared: jax.Array | None = None
    ) -> jax.Array:
        """Return the raw output; `prepared` is what `prepare` gives of cond."""
        kernel, kernels = normal(0.05), []
        if x is not None:
            kernels.append(leaf(self, "w_x", kernel, (3, 3, x.shape[-1], self.hidden)))
        if self.cond_channels:
            kernels.append(leaf(self, "w_cond", kernel, (3, 3, self.cond_channels, self.hidden)))
            prepared = self.prepare(cond) if prepared is None else prepared
        y = nn.relu(ChannelAffine(name="actnorm1")(self._first(x, prepared, kernels)))
        w, dtype = leaf(self, "w2", kernel, (self.hidden, self.hidden)), self.compute.operands
        y = matmul(y.astype(dtype), w.astype(dtype), self.compute.precision)
        y = nn.relu(ChannelAffine(name="actnorm2")(y))
        return ZeroConv(self.features, self.compute, name="out")(y)

    def prepare(self, cond: Cond | None) -> jax.Array | None:
        """Return the first layer's contribution of cond, [B,H,W,hidden]; x does not change it.

        Without `compute.hoist` that is cond itself.
        """
        if not self.cond_channels:
            return None
        if not self.compute.hoist:
            return dense(cond) if isinstance(cond, tuple) else cond
        return conv_cond(cond, self.get_variable("params", "w_cond"), self.compute)  # ty: ignore[invalid-argument-type]

    def prepare_stacked(self, cond: Cond | None) -> jax.Array | None:
        """Return `prepare` of K stacked parameter sets, one convolution: [K,B,H,W,hidden]."""
        if not self.cond_channels:
            return None
        return conv_cond_stacked(cond, self.get_variable("params", "w_cond"), self.compute)  # ty: ignore[invalid-argument-type]

    def _first(self, x: Array | None, prepared: PyTree, kernels: Sequence[Array]) -> Array:
        if x is not None and prepared is not None and prepared.shape[:-1] != x.shape[:-1]:
            raise ValueError(
                f"cond must have the batch and positions of x, {tuple(x.shape[:-1])}, got "
                f"{tuple(prepared.shape[:-1])}"
            )
        if self.compute.hoist or prepared is None:
            terms = [] if prepared is None else [prepared]
            if x is not None:
                terms.append(conv2d(x, kernels[0], None, self.compute))
            return sum(terms)
        # The plain form: prepared is the conditioning itself.
        if x is None:
            return conv2d(prepared, kernels[0], None, self.compute)
        joined = jnp.concatenate([x, prepared], axis=-1)
        return conv2d(joined, jnp.concatenate(kernels, axis=2), None, self.compute)


class PriorNet(nn.Module):
    """(conv3x3([x, cond]) + b) * exp(3 logs), all zero at first: `ZeroConv` with conditioning.

    x [B,H,W,Ci], or None for a prior by cond alone, to [B,H,W,features] float32; leaves "w",
    "w_cond", "b" and "logs".  Attributes as of `CouplingNet`.
    """

    cond_channels: int = 0
    compute: Compute = Compute()
    features: int = 0
    takes_parts: ClassVar[bool] = True

    @nn.compact
    def __call__(
        self, x: jax.Array | None, cond: Cond | None = None, prepared: jax.Array | None = None
    ) -> jax.Array:
        """Return the raw output; `prepared` is what `prepare` gives of cond."""
        terms = []
        if x is not None:
            w = leaf(self, "w", zeros, (3, 3, x.shape[-1], self.features))
            terms.append(conv2d(x, w, None, self.compute))
        if self.cond_channels:
            leaf(self, "w_cond", zeros, (3, 3, self.cond_channels, self.features))
            terms.append(self.prepare(cond) if prepared is None else prepared)
        terms.append(leaf(self, "b", zeros, (self.features,)))
        logs = leaf(self, "logs", zeros, (self.features,))
        return functools.reduce(jnp.add, terms) * jnp.exp(LOGSCALE * logs)  # ty: ignore[invalid-argument-type]

    def prepare(self, cond: Cond | None) -> jax.Array | None:
        """Return the convolution of cond, [B,H,W,features]; x does not change it."""
        if not self.cond_channels:
            return None
        return conv_cond(cond, self.get_variable("params", "w_cond"), self.compute)  # ty: ignore[invalid-argument-type]

    def prepare_stacked(self, cond: Cond | None) -> jax.Array | None:
        """Return `prepare` of K stacked parameter sets, one convolution: [K,B,H,W,features]."""
        if not self.cond_channels:
            return None
        return conv_cond_stacked(cond, self.get_variable("params", "w_cond"), self.compute)  # ty: ignore[invalid-argument-type]
