"""Gaussian log-densities in nats, summed over everything but the batch axis."""

from __future__ import annotations

import math

import jax.numpy as jnp

LOG_2PI = math.log(2.0 * math.pi)


def sum_event(x):
    """Sum over all axes but the first: [B, ...] -> [B] float32."""
    return jnp.sum(x.astype(jnp.float32), axis=tuple(range(1, x.ndim)))


def standard_normal_log_prob(z):
    """log N(z; 0, 1): [B, ...] -> [B]."""
    return sum_event(-0.5 * (jnp.square(z) + LOG_2PI))


def gaussian_log_prob(z, mean, logs):
    """log N(z; mean, exp(logs)^2): [B, ...] -> [B]."""
    return sum_event(-0.5 * (2.0 * logs + jnp.square((z - mean) * jnp.exp(-logs)) + LOG_2PI))
