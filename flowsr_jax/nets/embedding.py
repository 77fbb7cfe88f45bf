"""The noise-level (or timestep) embedding of diffusion networks.

Source: ../shared/spec/sr3.md section 1 (3-6); Vaswani et al. (2017), Ho et al. (2020).
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from flowsr_jax.nets.conv import PLAIN, Compute, matmul


def sinusoidal(value, dim: int):
    """Encode values [B] as [sines, cosines] [B,dim]; frequencies 10000^(-i / (dim/2))."""
    half = dim // 2
    frequencies = jnp.exp(-math.log(10000.0) * jnp.arange(half, dtype=jnp.float32) / half)
    phase = value.astype(jnp.float32)[:, None] * frequencies
    return jnp.concatenate([jnp.sin(phase), jnp.cos(phase)], axis=-1)


def linear(p, x, compute: Compute = PLAIN):
    """x [B,I] to [B,O], float32; the weight is [I,O]."""
    x, w = x.astype(compute.operands), p["w"].astype(compute.operands)
    return matmul(x, w, compute.precision) + p["b"]


def level_embedding(p, value):
    """Embed noise levels or timesteps [B]: encoding, linear, Swish, linear; [B,D] float32."""
    dim = p["linear2"]["w"].shape[1]
    hidden = jax.nn.silu(linear(p["linear1"], sinusoidal(value, dim)))
    return linear(p["linear2"], hidden)
