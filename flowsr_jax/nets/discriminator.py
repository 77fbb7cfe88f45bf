"""IRN+'s discriminator, the released discriminator_vgg_128, with batch statistics.

Source: docs/papers/irn.md section 5; Simonyan and Zisserman (2015); BasicSR's code.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from flowsr_jax.nets.conv import HIGHEST
from flowsr_jax.nets.layers import Conv, Initializer, leaf, leaky_relu, ones, torch_default, zeros
from flowsr_jax.types import Array

EPS, MOMENTUM, HIDDEN = 1e-5, 0.1, 100
STAGES = 5


class StridedConv(Conv):
    """Convolution with a stride, padded by 1 on all sides; see `Conv`."""

    stride: int = 1

    def convolve(self, x: Array, w: Array) -> Array:
        return lax.conv_general_dilated(
            x,
            w,
            (self.stride, self.stride),
            ((1, 1), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=HIGHEST,
        )


class BatchNorm(nn.Module):
    """Batch normalisation of [B,H,W,C]; the running "mean" and "var" are batch statistics.

    With `train` the batch's own statistics are used, and move the running ones (unbiased, as
    PyTorch's); "batch_stats" is mutable then.
    """

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        c = x.shape[-1:]
        scale, bias = leaf(self, "scale", ones, c), leaf(self, "bias", zeros, c)
        running_mean = self.variable("batch_stats", "mean", zeros, None, c)
        running_var = self.variable("batch_stats", "var", ones, None, c)
        mean, var = running_mean.value, running_var.value
        if train:
            axes = (0, 1, 2)
            mean, var = jnp.mean(x, axes), jnp.var(x, axes)
            count = x.size // x.shape[-1]
            unbiased = var * (count / max(count - 1, 1))
            if not self.is_initializing():
                _move(running_mean, mean)
                _move(running_var, unbiased)
        return (x - mean) * lax.rsqrt(var + EPS) * scale + bias


def _move(running: nn.Variable, value: Array) -> None:
    moved = (1 - MOMENTUM) * running.value + MOMENTUM * value
    running.value = lax.stop_gradient(moved)


class TorchLinear(nn.Module):
    """x @ w^T + b: [B,I] to [B,features]; "w" is [features,I], as PyTorch stores it."""

    features: int
    init: Initializer

    @nn.compact
    def __call__(self, x: Array) -> Array:
        w = leaf(self, "w", self.init, (self.features, x.shape[-1]))
        return jnp.matmul(x, w.T, precision=HIGHEST) + leaf(self, "b", self.init, (self.features,))


class Discriminator(nn.Module):
    """Logits [B,1] of images [B,H,W,3], square of side config.size (down to multiples of 32).

    Collections "params", with PyTorch's default initial values, and "batch_stats".

    Attributes:
      config: `DiscriminatorConfig`.
    """

    config: Any

    @nn.compact
    def __call__(self, x: Array, train: bool = True) -> Array:
        """Return the logits; `train` is that of `BatchNorm`.

        Raises:
          ValueError: images of another size.
        """
        side = self.config.size // 2**STAGES
        if x.shape[1] // 2**STAGES != side or x.shape[2] // 2**STAGES != side:
            raise ValueError(
                f"the discriminator judges images of {self.config.size}x{self.config.size} pixels, "
                f"got shape {tuple(x.shape)}"
            )
        for i, features in enumerate(self.config.widths):
            for j, size in enumerate((3, 4)):
                first, name = i == j == 0, f"{i}_{j}"
                options = torch_default(size * size * x.shape[-1])
                conv = StridedConv(
                    features, size, first, stride=1 + j, name=f"conv{name}", **options
                )
                x = conv(x)
                if not first:
                    x = BatchNorm(name=f"bn{name}")(x, train)
                x = leaky_relu(x, strict=True)
        # The released weights count channels slowest.
        x = x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)
        init = torch_default(x.shape[-1])["kernel_init"]
        x = leaky_relu(TorchLinear(HIDDEN, init, name="linear1")(x), strict=True)
        init = torch_default(HIDDEN)["kernel_init"]
        return TorchLinear(1, init, name="linear2")(x)
