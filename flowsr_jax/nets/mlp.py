"""A multi-layer perceptron as the network of a coupling or an injector (NICE, section 5.1)."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from flowsr_jax.nets.conv import matmul
from flowsr_jax.nets.layers import Dense, Initializer, leaf, uniform, zeros
from flowsr_jax.types import Array


class _FirstLayer(nn.Module):
    """x @ w + prepared + b; leaves "w" where x is given, "w_cond" with cond_channels, and "b"."""

    width: int
    cond_channels: int
    kernel_init: Initializer

    @nn.compact
    def __call__(self, x: Array | None, cond: Array | None, prepared: Array | None) -> Array:
        terms = []
        if self.cond_channels:
            w = leaf(self, "w_cond", self.kernel_init, (self.cond_channels, self.width))
            terms.append(matmul(cond.astype(jnp.float32), w) if prepared is None else prepared)  # ty: ignore[missing-union-attribute]
        if x is not None:
            w = leaf(self, "w", self.kernel_init, (x.shape[-1], self.width))
            terms.append(matmul(x, w))
        return sum(terms) + leaf(self, "b", zeros, (self.width,))


class MLP(nn.Module):
    """ReLU layers and a linear output: x [B,...,Ci], or None, to [B,...,features] float32.

    Attributes:
      width: of the hidden layers.
      layers: number of hidden layers.
      bound: initial weights are uniform in +-bound, biases 0 (NICE's 0.01); None is
        +-sqrt(6 / inputs) in the hidden layers and 0 in the output, so that a coupling
        begins as a constant map.
      cond_channels: channels of cond [B,...,cond_channels], which joins x (0: unconditional).
      features: output channels; filled in by the coupling.
    """

    width: int = 1000
    layers: int = 5
    bound: float | None = 0.01
    cond_channels: int = 0
    features: int = 0

    @nn.compact
    def __call__(
        self,
        x: jax.Array | None,
        cond: jax.Array | None = None,
        prepared: jax.Array | None = None,
    ) -> jax.Array:
        """Return the raw output; `prepared` is what `prepare` gives of cond.

        Raises:
          ValueError: cond has another number of channels, or is missing.
        """
        if prepared is None:
            self._check(cond)
        inputs = (0 if x is None else x.shape[-1]) + self.cond_channels
        sizes = [*[self.width] * self.layers, self.features]
        first = _FirstLayer(sizes[0], self.cond_channels, self._init(0, inputs), name="layer0")
        h = first(x, cond, prepared)
        for i, size in enumerate(sizes[1:], start=1):
            layer = Dense(size, kernel_init=self._init(i, self.width), name=f"layer{i}")
            h = layer(nn.relu(h))
        return h

    def prepare(self, cond: jax.Array | None) -> jax.Array | None:
        """Return the first layer's contribution of cond, [B,...,width]; x does not change it.

        Raises:
          ValueError: cond has another number of channels, or is missing.
        """
        self._check(cond)
        if not self.cond_channels:
            return None
        return matmul(cond.astype(jnp.float32), self.variables["params"]["layer0"]["w_cond"])  # ty: ignore[missing-union-attribute]

    def prepare_stacked(self, cond: jax.Array | None) -> jax.Array | None:
        """Return `prepare` of K stacked parameter sets: [K,B,...,width]."""
        self._check(cond)
        if not self.cond_channels:
            return None
        cond, stacked = cond.astype(jnp.float32), self.variables["params"]["layer0"]["w_cond"]  # ty: ignore[missing-union-attribute]
        return jax.vmap(lambda w: matmul(cond, w))(stacked)

    def _init(self, layer: int, inputs: int) -> Initializer:
        if self.bound is not None:
            return uniform(self.bound)
        return zeros if layer == self.layers else uniform(math.sqrt(6 / max(inputs, 1)))

    def _check(self, cond: Array | None) -> None:
        if self.cond_channels and (cond is None or cond.shape[-1] != self.cond_channels):
            found = None if cond is None else tuple(cond.shape)
            raise ValueError(f"MLP: cond must be [B, ..., {self.cond_channels}], got {found}")
