"""The sub-network of IRN's invertible block: five densely connected convolutions."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from flowsr_jax.nets import random
from flowsr_jax.nets.conv import Compute, conv2d
from flowsr_jax.nets.layers import leaky_relu


@dataclasses.dataclass(frozen=True)
class DenseBlock:
    """a_k = leaky_relu(conv_k([x, a_1..a_{k-1}])), k = 1..4; output conv_5([x, a_1..a_4]).

    No residual (unlike RRDB's dense block).  Source: Xiao et al., Invertible Image
    Rescaling (ECCV 2020), section 3.2; docs/papers/irn.md section 2.

    Attributes:
      growth: channels of each a_k.
      compute: precision and form of the convolutions.
    """

    growth: int = 32
    compute: Compute = Compute()

    def init(self, key, ci: int, co: int):
        """Parameters for [B,H,W,ci] to [B,H,W,co]; the output starts at zero.

        Xavier-normal times 0.1 with zero bias; the last convolution is zero.
        """
        params = {}
        for k, layer_key in enumerate(jax.random.split(key, 4)):
            width = ci + k * self.growth
            std = 0.1 * math.sqrt(2.0 / (9 * (width + self.growth)))
            w = std * random.normal(layer_key, (3, 3, width, self.growth))
            params[f"conv{k + 1}"] = {"w": w, "b": jnp.zeros(self.growth, jnp.float32)}
        shape = (3, 3, ci + 4 * self.growth, co)
        out = {"w": jnp.zeros(shape, jnp.float32), "b": jnp.zeros(co, jnp.float32)}
        return {**params, "conv5": out}

    def apply(self, params, x):
        """[B,H,W,ci] -> [B,H,W,co], float32."""
        features = [x]
        for k in range(1, 6):
            p = params[f"conv{k}"]
            y = conv2d(jnp.concatenate(features, axis=-1), p["w"], p["b"], self.compute)
            features.append(leaky_relu(y, strict=True))
        return y
