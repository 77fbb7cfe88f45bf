"""The diffusion process in closed form: forward noise, posterior, conversions, weights.

x = sqrt(gamma) x0 + sqrt(1 - gamma) eps.  A network may predict "eps", "x0" or
v = sqrt(gamma) eps - sqrt(1 - gamma) x0.  `level` = sqrt(gamma); both are scalars or [B].
Source: docs/papers/sr3.md sections 5 and 6; Ho et al. (2020), Salimans & Ho
(2022) for v, Hang et al. (2023) for min-SNR, Saharia et al. (2022, Imagen) for dynamic
thresholding.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from flowsr_jax.config import choice
from flowsr_jax.types import AnyArray, Array, Scalar

PREDICTIONS = ("eps", "x0", "v")
VARIANCES = ("tilde", "beta")


def per_example(value: Scalar, like: AnyArray) -> Array:
    """Return a scalar or [B] as an array that broadcasts against `like` [B, ...]."""
    value = jnp.asarray(value)
    return value.reshape(value.shape + (1,) * (like.ndim - value.ndim)) if value.ndim else value


def q_sample(x0: Array, noise: Array, level: Scalar) -> Array:
    """Return the noisy image level * x0 + sqrt(1 - level^2) * noise."""
    level = per_example(level, x0)
    return level * x0 + jnp.sqrt(1 - level * level) * noise


def posterior(
    x0: Array, x: Array, gamma: Scalar, next_gamma: Scalar, variance: str = "tilde"
) -> tuple[Array, Array]:
    """Return (mean, variance) of q(x_next | x, x0), from gamma to next_gamma > gamma.

    variance "tilde" is the posterior's (the public code), "beta" the forward step's (the
    paper's).
    """
    mean_x0, mean_x, spread = ancestral_coefficients(
        per_example(gamma, x), per_example(next_gamma, x), variance
    )
    return mean_x0 * x0 + mean_x * x, spread


def ancestral_coefficients(
    gamma: Scalar, next_gamma: Scalar, variance: str = "tilde"
) -> tuple[Any, Any, Any]:
    """Return the posterior's (factor of x0, factor of x, variance); NumPy or JAX."""
    choice("variance", variance, VARIANCES)
    a = gamma / next_gamma
    b = 1 - a
    spread = b * (1 - next_gamma) / (1 - gamma) if variance == "tilde" else b
    return next_gamma**0.5 * b / (1 - gamma), a**0.5 * (1 - next_gamma) / (1 - gamma), spread


def conversion(prediction: str, gamma: Scalar) -> tuple[Any, Any, Any, Any]:
    """Return (x0_x, x0_out, eps_x, eps_out) with x0 = x0_x x + x0_out out, eps likewise."""
    signal, noise = gamma**0.5, (1 - gamma) ** 0.5
    zero, one = 0 * gamma, 0 * gamma + 1
    if choice("prediction", prediction, PREDICTIONS) == "eps":
        return one / signal, -noise / signal, zero, one
    if prediction == "x0":
        return zero, one, one / noise, -signal / noise
    return signal, -noise, noise, signal


def predictions(prediction: str, out: AnyArray, x: AnyArray, gamma: Scalar) -> tuple[Array, Array]:
    """Return (x0, eps) of a network output [B, ...] at the noisy image x."""
    x0_x, x0_out, eps_x, eps_out = conversion(prediction, per_example(gamma, x))
    return x0_x * x + x0_out * out, eps_x * x + eps_out * out


def target(prediction: str, x0: Array, eps: Array, gamma: Scalar) -> Array:
    """Return what the network is trained to give."""
    if choice("prediction", prediction, PREDICTIONS) == "eps":
        return eps
    if prediction == "x0":
        return x0
    gamma = per_example(gamma, x0)
    return jnp.sqrt(gamma) * eps - jnp.sqrt(1 - gamma) * x0


def score(eps: Array, gamma: Scalar) -> Array:
    """Return grad log p_gamma(x) = -eps / sqrt(1 - gamma)."""
    return -eps / jnp.sqrt(1 - per_example(gamma, eps))


def min_snr_weight(prediction: str, gamma: Scalar, k: float = 5.0) -> Array:
    """Return the min-SNR-k factor [B] of the squared error in the prediction's own space.

    min(SNR, k) / SNR for eps, min(SNR, k) for x0, min(SNR, k) / (SNR + 1) for v, with
    SNR = gamma / (1 - gamma); finite for gamma = 1.
    """
    if choice("prediction", prediction, PREDICTIONS) == "eps":
        return jnp.minimum(1.0, k * (1 - gamma) / gamma)
    if prediction == "x0":
        return jnp.minimum(gamma / (1 - gamma), k)
    return jnp.minimum(gamma, k * (1 - gamma))


def dynamic_scale(x0: Array, percentile: float = 0.995) -> Array:
    """Return max(1, quantile of |x0|) over all but the batch axis, [B]."""
    return jnp.maximum(1.0, jnp.quantile(jnp.abs(x0).reshape(len(x0), -1), percentile, axis=1))


def dynamic_threshold(x0: Array, percentile: float = 0.995) -> Array:
    """Return clip(x0, -s, s) / s with s = `dynamic_scale`."""
    scale = per_example(dynamic_scale(x0, percentile), x0)
    return jnp.clip(x0, -scale, scale) / scale


def guide(conditional: Array, unconditional: Array, scale: Scalar) -> Array:
    """Return u + scale (c - u): classifier-free guidance (Ho & Salimans, 2022); scale 1 is none."""
    return unconditional + scale * (conditional - unconditional)
