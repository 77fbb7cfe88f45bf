"""Gaussian log-densities in nats, summed over everything but the batch axis."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np

from flowsr_jax.types import AnyArray, Array

LOG_2PI = math.log(2.0 * math.pi)


def sum_event(x: AnyArray) -> Array:
    """Return the sum over all axes but the first: [B, ...] -> [B] float32."""
    return jnp.sum(x.astype(jnp.float32), axis=tuple(range(1, x.ndim)))


def bits_per_dim(log_prob: AnyArray, dims: int) -> Array:
    """Return bits per dimension of 8-bit images from a density on [0,1]-valued images.

    -log_prob / (ln 2 * dims) + log2(255): the density times the volume of an 8-bit
    cell, 1/255 per value.  log_prob [...] in nats; dims = H * W * C.
    """
    return -log_prob / (math.log(2.0) * dims) + math.log2(255.0)


def fitted_bits_per_dim(estimate: AnyArray, image: AnyArray) -> float:
    """Return bits per dimension of N(estimate, s) at an 8-bit image, s the best for this image.

    What a likelihood has to beat.  estimate, image: NumPy arrays of grey levels 0..255.
    """
    variance = np.mean(np.square(np.asarray(estimate, np.float64) - image))
    return float(0.5 * np.log2(2 * math.pi * math.e * max(variance, 1e-12)))


def standard_normal_log_prob(z: AnyArray) -> Array:
    """Return log N(z; 0, 1): [B, ...] -> [B]."""
    return sum_event(-0.5 * (jnp.square(z) + LOG_2PI))


def gaussian_log_prob(z: AnyArray, mean: AnyArray, logs: AnyArray) -> Array:
    """Return log N(z; mean, exp(logs)^2): [B, ...] -> [B]."""
    return sum_event(-0.5 * (2.0 * logs + jnp.square((z - mean) * jnp.exp(-logs)) + LOG_2PI))
