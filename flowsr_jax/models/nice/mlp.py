"""A multi-layer perceptron as a coupling's network (NICE, section 5.1)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from flowsr_jax.nets import random
from flowsr_jax.nets.conv import matmul


@dataclasses.dataclass(frozen=True)
class MLP:
    """ReLU layers and a linear output: [B,ci] to [B,co]; x @ w + b, float32.

    Attributes:
      width: of the hidden layers.
      layers: number of hidden layers.
      bound: initial weights are uniform in +-bound, biases 0.
    """

    width: int = 1000
    layers: int = 5
    bound: float = 0.01

    def init(self, key, ci: int, co: int):
        """Parameters {"layer0": {"w", "b"}, ...}."""
        sizes = [ci, *[self.width] * self.layers, co]
        keys = jax.random.split(key, len(sizes) - 1)
        return {
            f"layer{i}": {
                "w": random.uniform(k, (sizes[i], sizes[i + 1]), self.bound),
                "b": jnp.zeros(sizes[i + 1]),
            }
            for i, k in enumerate(keys)
        }

    def prepare(self, params, cond):
        """None: no part of the network depends on cond."""
        return None

    def prepare_stacked(self, params, cond):
        """None, as `prepare`."""
        return None

    def apply(self, params, x, prepared=None):
        """[B,co] of x [B,ci]."""
        for i in range(self.layers + 1):
            x = jax.nn.relu(x) if i else x
            x = matmul(x, params[f"layer{i}"]["w"]) + params[f"layer{i}"]["b"]
        return x

    def init_from_data(self, params, x, cond=None):
        """(params, output): nothing is initialised from data."""
        return params, self.apply(params, x)
