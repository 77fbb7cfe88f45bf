"""The noise-level (or timestep) embedding of diffusion networks.

Source: docs/papers/sr3.md section 1; Vaswani et al. (2017), Ho et al. (2020).
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from flowsr_jax.nets.layers import Dense, leaf, normal
from flowsr_jax.nets.orthogonal import orthogonal
from flowsr_jax.types import Array


def sinusoidal(value: Array, dim: int) -> Array:
    """Encode values [B] as [sines, cosines] [B,dim]; frequencies 10000^(-i / (dim/2))."""
    half = dim // 2
    frequencies = jnp.exp(-math.log(10000.0) * jnp.arange(half, dtype=jnp.float32) / half)
    phase = value.astype(jnp.float32)[:, None] * frequencies
    return jnp.concatenate([jnp.sin(phase), jnp.cos(phase)], axis=-1)


class LevelEmbedding(nn.Module):
    """Embed noise levels or timesteps [B]: encoding, linear, Swish, linear; [B,dim] float32."""

    dim: int

    @nn.compact
    def __call__(self, value: Array) -> Array:
        hidden = Dense(4 * self.dim, kernel_init=orthogonal, name="linear1")
        hidden = jax.nn.silu(hidden(sinusoidal(value, self.dim)))
        return Dense(self.dim, kernel_init=orthogonal, name="linear2")(hidden)


class ClassEmbedding(nn.Module):
    """Embed classes [B] int: rows of a table [classes + 1, dim]; the last is "no class"."""

    classes: int
    dim: int

    @nn.compact
    def __call__(self, label: Array) -> Array:
        return leaf(self, "table", normal(1.0), (self.classes + 1, self.dim))[label]
