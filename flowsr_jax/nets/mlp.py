"""A multi-layer perceptron as the network of a coupling or an injector (NICE, section 5.1)."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from flowsr_jax.nets import random
from flowsr_jax.nets.conv import matmul


@dataclasses.dataclass(frozen=True)
class MLP:
    """ReLU layers and a linear output: [B,...,ci] to [B,...,co]; x @ w + b, float32.

    Attributes:
      width: of the hidden layers.
      layers: number of hidden layers.
      bound: initial weights are uniform in +-bound, biases 0 (NICE's 0.01); None is
        +-sqrt(6 / inputs) in the hidden layers and 0 in the output, so that a coupling
        begins as a constant map.
      cond_channels: channels of cond [B,...,cond_channels], which joins x (0: unconditional).
    """

    width: int = 1000
    layers: int = 5
    bound: float | None = 0.01
    cond_channels: int = 0

    def init(self, key, ci: int, co: int):
        """Parameters {"layer0": {"w", "b", "w_cond"}, ...}; ci may be 0 (of an injector).

        "w_cond" is there with cond_channels, layer0's "w" where ci > 0.
        """
        inputs = ci + self.cond_channels
        sizes = [inputs, *[self.width] * self.layers, co]
        params = {}
        for i, k in enumerate(jax.random.split(key, len(sizes) - 1)):
            bound = self.bound
            if bound is None:
                bound = 0.0 if i == self.layers else math.sqrt(6 / max(sizes[i], 1))
            w = random.uniform(k, (sizes[i], sizes[i + 1]), bound)
            params[f"layer{i}"] = {"w": w, "b": jnp.zeros(sizes[i + 1], jnp.float32)}
        if self.cond_channels:
            w = params["layer0"].pop("w")
            params["layer0"] |= {"w": w[:ci], "w_cond": w[ci:]}
            if not ci:
                del params["layer0"]["w"]
        return params

    def prepare(self, params, cond):
        """The first layer's contribution of cond: [B,...,width], or None without cond_channels.

        Raises:
          ValueError: cond has another number of channels, or is missing.
        """
        if not self.cond_channels:
            return None
        if cond is None or cond.shape[-1] != self.cond_channels:
            found = None if cond is None else tuple(cond.shape)
            raise ValueError(f"MLP: cond must be [B, ..., {self.cond_channels}], got {found}")
        return matmul(cond.astype(jnp.float32), params["layer0"]["w_cond"])

    def prepare_stacked(self, params, cond):
        """`prepare` for K stacked nets: [K,B,...,width]."""
        if not self.cond_channels:
            return None
        return jax.vmap(lambda p: self.prepare(p, cond))(params)

    def apply(self, params, x, prepared=None):
        """[B,...,co] of x [B,...,ci] or None, and of `prepared` from `prepare`."""
        first = params["layer0"]
        terms = [] if prepared is None else [prepared]
        if x is not None:
            terms.append(matmul(x, first["w"]))
        h = sum(terms) + first["b"]
        for i in range(1, self.layers + 1):
            layer = params[f"layer{i}"]
            h = matmul(jax.nn.relu(h), layer["w"]) + layer["b"]
        return h

    def init_from_data(self, params, x, cond=None):
        """(params, output): nothing is initialised from data."""
        return params, self.apply(params, x, self.prepare(params, cond))

    def forward_train(self, params, x, cond=None):
        """(params, output): nothing depends on the batch."""
        return self.init_from_data(params, x, cond)
