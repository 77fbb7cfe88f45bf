"""The parts of the denoising U-Net: residual block, first, last and strided convolution."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from flowsr_jax.nets.attention import SelfAttention
from flowsr_jax.nets.conv import Compute, conv2d, convolve, matmul
from flowsr_jax.nets.layers import Conv, Dense, GroupNorm, half_size, leaf, zeros
from flowsr_jax.nets.orthogonal import orthogonal
from flowsr_jax.nets.upsampled import nearest
from flowsr_jax.types import Array, Initializer, Precision, PyTree


class Layer(NamedTuple):
    """One layer: kind "conv", "block", "down", "up" or "final", channels, attention."""

    kind: str
    ci: int
    co: int
    attention: bool = False


def last_init(config: Any) -> Initializer:
    """Return the initialiser of the last convolution of a branch."""
    return zeros if config.init == "zero_last" else orthogonal


class ResidualBlock(nn.Module):
    """x [B,H,W,ci] and the embedding [B,D] to [B,H',W',co], in the dtype of the operands.

    Attributes:
      layer: what to build; of kind "down" or "up" it also halves or doubles the size.
      config: `UNetConfig`.
    """

    layer: Layer
    config: Any

    @nn.compact
    def __call__(self, x: Array, e: Array, key: Array | None = None) -> Array:
        """Return the block's output; `key` is that of dropout."""
        c, layer = self.config, self.layer
        compute, dtype = c.compute, c.compute.operands
        scale = math.sqrt(0.5) if c.block == "biggan" else 1.0
        resample = {"down": half_size, "up": lambda x: nearest(x, 2)}.get(layer.kind, lambda x: x)

        def conv(name: str, size: int = 3, init: Initializer = orthogonal) -> Conv:
            return Conv(layer.co, size, kernel_init=init, compute=compute, name=name)

        h = jax.nn.silu(GroupNorm(c.norm_groups, name="norm1")(x))
        h, x = resample(h), resample(x)
        h = conv("conv1")(h)
        width = 2 * layer.co if c.affine else layer.co
        level = Dense(width, kernel_init=orthogonal, compute=compute, name="level")
        level = level(e)[:, None, None, :]
        if c.affine:
            gain, shift = jnp.split(level, 2, axis=-1)
            h = (1 + gain) * h + shift
        else:
            h = h + level
        h = jax.nn.silu(GroupNorm(c.norm_groups, name="norm2")(h.astype(dtype)))
        if key is not None and c.dropout:
            keep = jax.random.bernoulli(key, 1 - c.dropout, h.shape)
            h = jnp.where(keep, h / (1 - c.dropout), 0).astype(dtype)
        h = conv("conv2", init=last_init(c))(h)
        skip = conv("skip", 1)(x) if layer.ci != layer.co or layer.kind != "block" else x
        h = ((h + skip) * scale).astype(dtype)
        if layer.attention:
            heads = layer.co // c.head_channels if c.head_channels else 1
            zero = c.init == "zero_last"
            mixed = SelfAttention(c.norm_groups, heads, zero, compute, name="attn")(h)
            h = ((h + mixed) * scale).astype(dtype)
        return h


class FirstConv(nn.Module):
    """The first convolution, of the condition (its channels come first) and the noisy image.

    Attributes:
      features: output channels.
      cond_channels: of the condition; 0 is none.
      image_channels: of the noisy image.
      compute: precision and form.
    """

    features: int
    cond_channels: int
    image_channels: int
    compute: Compute = Compute()

    def setup(self) -> None:
        channels = self.cond_channels + self.image_channels
        self.w = leaf(self, "w", orthogonal, (3, 3, channels, self.features))
        self.b = leaf(self, "b", zeros, (self.features,))

    def prepare(self, condition: Array) -> Array:
        """Return the condition's share of the convolution, [B,H,W,features]."""
        return conv2d(condition, self.w[:, :, : self.cond_channels], None, self.compute)

    def __call__(self, x: Array, condition: Array | None = None, prepared: PyTree = None) -> Array:
        """Return the convolution of x and of the condition, or of what `prepare` made of it."""
        if prepared is not None:
            return conv2d(x, self.w[:, :, self.cond_channels :], self.b, self.compute) + prepared
        if self.cond_channels:
            x = jnp.concatenate([condition, x], axis=-1)  # ty: ignore[invalid-argument-type]
        return conv2d(x, self.w, self.b, self.compute)


class FinalConv(nn.Module):
    """GroupNorm, Swish, convolution: [B,H,W,C] to [B,H,W,features], float32."""

    features: int
    config: Any

    @nn.compact
    def __call__(self, h: Array) -> Array:
        c = self.config
        conv = Conv(self.features, kernel_init=last_init(c), compute=c.compute, name="conv")
        return conv(jax.nn.silu(GroupNorm(c.norm_groups, name="norm")(h)))


class DownConv(Conv):
    """3x3 convolution with stride 2, padded by 1 on all sides; see `Conv`."""

    def convolve(self, x: Array, w: Array) -> Array:
        return down_conv(x, w, self.compute)


def down_conv(x: Array, kernel: Array, compute: Compute) -> Array:
    """Return the 3x3 convolution with stride 2, padded by 1 on all sides: [B,H,W,C] -> half.

    On the CPU a product with the nine strided copies side by side, whose gradient does
    not fall back to a naive loop (see nets/conv.py).
    """
    x, kernel = x.astype(compute.operands), kernel.astype(compute.operands)
    xla = functools.partial(_down_xla, compute.precision)
    gemm = functools.partial(_down_gemm, compute.precision)
    if compute.conv == "auto":
        return lax.platform_dependent(x, kernel, cpu=gemm, default=xla)
    return (gemm if compute.conv == "gemm" else xla)(x, kernel)


def _down_xla(precision: Precision, x: Array, kernel: Array) -> Array:
    return convolve(((1, 1), (1, 1)), 2, x, kernel, precision)


def _down_gemm(precision: Precision, x: Array, kernel: Array) -> Array:
    _, h, w, c = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    copies = [padded[:, i : i + h : 2, j : j + w : 2] for i in range(3) for j in range(3)]
    return matmul(jnp.concatenate(copies, axis=-1), kernel.reshape(9 * c, -1), precision)
