"""Glow's coupling network and its convolutions that see the border.

The released code pads by zeros and appends a channel, the last one, that is 1 on the
padding and 0 inside: kernels are [3,3,ci+1,co].  What that channel adds depends on the
size alone, so it is one small product per size here, and the convolution stays plain.
Source: docs/papers/glow.md section 1.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from flowsr_jax.nets import random
from flowsr_jax.nets.conv import Compute, conv2d, matmul
from flowsr_jax.nets.coupling_net import channel_statistics, init_channel_affine

LOGSCALE = 3.0  # stored log-scales are a third of the ones applied


def border_map(kernel, h: int, w: int):
    """What the border channel adds: kernel [3,3,co] to [h,w,co]."""
    plane = np.pad(np.zeros((h, w), np.float32), 1, constant_values=1.0)
    taps = [plane[i : i + h, j : j + w] for i in range(3) for j in range(3)]
    return matmul(jnp.asarray(np.stack(taps, axis=-1)), kernel.reshape(9, -1))


def bordered_conv(kernel, x, compute: Compute):
    """3x3 convolution of x [B,H,W,ci]; the kernel [3,3,ci+1,co] may lack the border's row."""
    ci = x.shape[-1]
    if kernel.shape[2] == ci:
        return conv2d(x, kernel, None, compute)
    return conv2d(x, kernel[:, :, :ci], None, compute) + border_map(
        kernel[:, :, ci], x.shape[1], x.shape[2]
    )


def init_bordered_conv_zeros(ci: int, co: int, border: bool = True):
    """Zero-initialised bordered convolution with a log-scale (conv2d_zeros)."""
    shapes = {"w": (3, 3, ci + border, co), "b": co, "logs": co}
    return {name: jnp.zeros(shape, jnp.float32) for name, shape in shapes.items()}


def bordered_conv_zeros(p, x, compute: Compute):
    """(conv(x) + b) * exp(3 logs), float32."""
    return (bordered_conv(p["w"], x, compute) + p["b"]) * jnp.exp(LOGSCALE * p["logs"])


def init_linear_zeros(ci: int, co: int):
    """Zero-initialised linear layer with a log-scale (linear_zeros)."""
    shapes = {"w": (ci, co), "b": co, "logs": co}
    return {name: jnp.zeros(shape, jnp.float32) for name, shape in shapes.items()}


def linear_zeros(p, x):
    """(x @ w + b) * exp(3 logs): [B,ci] to [B,co]."""
    return (matmul(x, p["w"]) + p["b"]) * jnp.exp(LOGSCALE * p["logs"])


def _actnorm(p, x):
    return (x + p["bias"]) * jnp.exp(LOGSCALE * p["logs"])


def _whitening(x):
    found = channel_statistics(x)
    return {"bias": found["bias"], "logs": found["logs"] / LOGSCALE}


@dataclasses.dataclass(frozen=True)
class GlowNet:
    """conv3x3 - ActNorm - ReLU - conv1x1 - ActNorm - ReLU - zero-initialised conv3x3.

    Unconditional; the 3x3 convolutions see the border.

    Attributes:
      hidden: width of the two hidden layers.
      border: the 3x3 convolutions see the border.
      compute: precision and form of the convolutions.
    """

    hidden: int = 512
    border: bool = True
    compute: Compute = Compute()

    def init(self, key, ci: int, co: int):
        """Parameters for [B,H,W,ci] to [B,H,W,co]."""
        k1, k2 = jax.random.split(key)
        width = self.hidden
        return {
            "w1": 0.05 * random.normal(k1, (3, 3, ci + self.border, width)),
            "actnorm1": init_channel_affine(width),
            "w2": 0.05 * random.normal(k2, (1, 1, width, width)),
            "actnorm2": init_channel_affine(width),
            "out": init_bordered_conv_zeros(width, co, self.border),
        }

    def prepare(self, params, cond):
        """None: no part of the network depends on cond."""
        return None

    def prepare_stacked(self, params, cond):
        """None, as `prepare`."""
        return None

    def apply(self, params, x, prepared=None):
        """Raw output [B,H,W,co] float32 of x [B,H,W,ci]."""
        h = bordered_conv(params["w1"], x, self.compute)
        h = jax.nn.relu(_actnorm(params["actnorm1"], h))
        h = conv2d(h, params["w2"], None, self.compute)
        h = jax.nn.relu(_actnorm(params["actnorm2"], h))
        return bordered_conv_zeros(params["out"], h, self.compute)

    def init_from_data(self, params, x, cond=None):
        """Data-dependent ActNorms, layer after layer; returns (params, raw output)."""
        params = dict(params)
        h = bordered_conv(params["w1"], x, self.compute)
        params["actnorm1"] = _whitening(h)
        h = jax.nn.relu(_actnorm(params["actnorm1"], h))
        h = conv2d(h, params["w2"], None, self.compute)
        params["actnorm2"] = _whitening(h)
        h = jax.nn.relu(_actnorm(params["actnorm2"], h))
        return params, bordered_conv_zeros(params["out"], h, self.compute)

    def forward_train(self, params, x, cond=None):
        """(params, raw output): nothing depends on the batch."""
        return params, self.apply(params, x)
