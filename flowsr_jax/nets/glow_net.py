"""Glow's coupling network and its convolutions that see the border.

The released code pads by zeros and appends a channel, the last one, that is 1 on the
padding and 0 inside: kernels are [3,3,ci+1,co].  What that channel adds depends on the
size alone, so it is one small product per size here, and the convolution stays plain.
Kingma and Dhariwal, Glow (2018), and its released code; docs/papers/glow.md section 1.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from flowsr_jax.nets.conv import Compute, conv2d, matmul
from flowsr_jax.nets.layers import LOGSCALE, ChannelAffine, ZeroConv, leaf, normal, zeros


def border_map(kernel: jax.Array, h: int, w: int) -> jax.Array:
    """Return what the border channel adds: kernel [3,3,co] to [h,w,co]."""
    plane = np.pad(np.zeros((h, w), np.float32), 1, constant_values=1.0)
    taps = [plane[i : i + h, j : j + w] for i in range(3) for j in range(3)]
    return matmul(jnp.asarray(np.stack(taps, axis=-1)), kernel.reshape(9, -1))


def bordered_conv(kernel: jax.Array, x: jax.Array, compute: Compute) -> jax.Array:
    """Return the 3x3 convolution of x [B,H,W,ci]; the kernel [3,3,ci+1,co] may lack the border."""
    ci = x.shape[-1]
    if kernel.shape[2] == ci:
        return conv2d(x, kernel, None, compute)
    return conv2d(x, kernel[:, :, :ci], None, compute) + border_map(
        kernel[:, :, ci], x.shape[1], x.shape[2]
    )


class BorderedZeroConv(ZeroConv):
    """`ZeroConv` that sees the border, whose row of the kernel is the last."""

    def inputs(self, channels: int) -> int:
        return channels + 1

    def convolve(self, x: jax.Array, w: jax.Array) -> jax.Array:
        return bordered_conv(w, x, self.compute)


class ZeroDense(nn.Module):
    """(x @ w + b) * exp(3 logs), all zero at first: [B,I] to [B,features]."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        w = leaf(self, "w", zeros, (x.shape[-1], self.features))
        b = leaf(self, "b", zeros, (self.features,))
        return (matmul(x, w) + b) * jnp.exp(LOGSCALE * leaf(self, "logs", zeros, (self.features,)))


class GlowNet(nn.Module):
    """conv3x3 - ActNorm - ReLU - conv1x1 - ActNorm - ReLU - zero-initialised conv3x3.

    Unconditional, [B,H,W,Ci] to [B,H,W,features] float32; the 3x3 convolutions see the border.

    Attributes:
      hidden: width of the two hidden layers.
      border: the 3x3 convolutions see the border.
      compute: precision and form of the convolutions.
      features: output channels; filled in by the coupling.
    """

    hidden: int = 512
    border: bool = True
    compute: Compute = Compute()
    features: int = 0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel, width = normal(0.05), self.hidden
        w = leaf(self, "w1", kernel, (3, 3, x.shape[-1] + self.border, width))
        h = bordered_conv(w, x, self.compute)
        h = nn.relu(ChannelAffine(LOGSCALE, name="actnorm1")(h))
        h = conv2d(h, leaf(self, "w2", kernel, (1, 1, width, width)), None, self.compute)
        h = nn.relu(ChannelAffine(LOGSCALE, name="actnorm2")(h))
        out = BorderedZeroConv if self.border else ZeroConv
        return out(self.features, self.compute, name="out")(h)
