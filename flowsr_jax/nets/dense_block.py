"""The sub-network of IRN's invertible block: five densely connected convolutions."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from flowsr_jax.nets import random
from flowsr_jax.nets.conv import Compute
from flowsr_jax.nets.layers import Conv, leaky_relu, zeros
from flowsr_jax.types import Array, Initializer


def xavier(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return normal values of a tenth of Xavier's deviation, for kernels [k,k,Ci,Co]."""
    fans = math.prod(shape[:-2]) * (shape[-2] + shape[-1])
    return 0.1 * math.sqrt(2.0 / fans) * random.normal(key, shape)


class DenseBlock(nn.Module):
    """a_k = leaky_relu(conv_k([x, a_1..a_{k-1}])), k = 1..4; output conv_5([x, a_1..a_4]).

    [B,H,W,Ci] to [B,H,W,features] float32.  No residual (unlike RRDB's dense block).  Weights
    start Xavier-normal times 0.1, biases and the last convolution at zero.
    Xiao et al., Invertible Image Rescaling (ECCV 2020), section 3.2; docs/papers/irn.md section 2.

    Attributes:
      growth: channels of each a_k.
      compute: precision and form of the convolutions.
      features: output channels; filled in by the block.
    """

    growth: int = 32
    compute: Compute = Compute()
    features: int = 0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def conv(k: int, features: int, init: Initializer) -> Array:
            layer = Conv(features, kernel_init=init, compute=self.compute, name=f"conv{k}")
            return layer(jnp.concatenate(known, axis=-1))

        known = [x]
        for k in range(1, 5):
            known.append(leaky_relu(conv(k, self.growth, xavier), strict=True))
        return conv(5, self.features, zeros)
