"""SR3's training losses: a noise level per example, one network call, a regression.

Source: ../shared/spec/sr3.md sections 1 (18-20), 4 and 6.7; Saharia et al. (2021),
Algorithm 1; Hang et al. (2023) for min-SNR; Zhou et al. (2023) for DREAM.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from flowsr_jax.config import ConfigError, choice
from flowsr_jax.diffusion import process
from flowsr_jax.diffusion.schedules import level_edges
from flowsr_jax.models.base import Params
from flowsr_jax.models.sr3.model import SR3Config, condition, gamma_of, network

LEVELS = ("paper", "public")
NORMS = ("l1", "l2")
REDUCTIONS = ("mean", "sum")
WEIGHTINGS = ("none", "min_snr")


def draw_levels(config: SR3Config, key, count: int, levels: str = "paper"):
    """Draw what the network is told, [count].

    levels "paper": t ~ U{1..T} per example, gamma ~ U(gamma_{t-1}, gamma_t).  "public": one
    t for the batch, sqrt(gamma) uniform between its edges, per example.  The DDPM variant
    draws one timestep per example either way.
    """
    choice("levels", levels, LEVELS)
    key_t, key_u = jax.random.split(key)
    steps = config.schedule.steps
    if config.timed:
        return jax.random.randint(key_t, (count,), 0, steps)
    t = jax.random.randint(key_t, (count if levels == "paper" else 1,), 1, steps + 1)
    u = jax.random.uniform(key_u, (count,))
    edges = level_edges(config.schedule)
    edges = jnp.asarray(edges**2 if levels == "paper" else edges, jnp.float32)
    drawn = edges[t - 1] + u * (edges[t] - edges[t - 1])
    return jnp.sqrt(drawn) if levels == "paper" else drawn


def denoising_loss(
    params: Params,
    x0,
    cond,
    noise,
    level,
    *,
    key=None,
    mask=None,
    norm: str = "l1",
    reduction: str = "mean",
    weighting: str = "none",
    min_snr: float = 5.0,
    dream: float | None = None,
):
    """The regression at given noise and levels.

    Args:
      params: SR3 parameters.
      x0: clean images [B,H,W,C] in [-1,1].
      cond: conditions [B,H,W,C] in [-1,1], or None.
      noise: standard-normal [B,H,W,C].
      level: [B] sqrt(gamma), or timesteps for the DDPM variant.
      key: of dropout; None evaluates without.
      mask: [B,H,W,1] or like x0: factor of every pixel's error (1 counts, 0 does not).
      norm: "l1" (published) or "l2".
      reduction: "mean", the public code's sum over B*H*W*C, or "sum".
      weighting: "min_snr" weighs examples by min-SNR-`min_snr` (meant for "l2").
      dream: p of DREAM: the noise is moved towards the network's own error by
        sqrt(1 - gamma)^p, at the cost of a second evaluation; None is off.

    Returns:
      (loss, {"mse": mean squared error of the prediction, unweighted}).
    """
    choice("norm", norm, NORMS)
    choice("reduction", reduction, REDUCTIONS)
    choice("weighting", weighting, WEIGHTINGS)
    if dream is not None and dream < 0:
        raise ConfigError(f"dream = {dream} must be None or at least 0")
    config = params.config
    gamma = gamma_of(config, level)
    x = process.q_sample(x0, noise, jnp.sqrt(gamma))
    if dream is not None:
        out = jax.lax.stop_gradient(network(params, x, level, cond, key=key))
        own = process.predictions(config.prediction, out, x, gamma)[1]
        sigma = process.per_example(jnp.sqrt(1 - gamma), x)
        noise = noise + sigma**dream * (noise - own)
        x = process.q_sample(x0, noise, jnp.sqrt(gamma))
    out = network(params, x, level, cond, key=key)
    error = out - process.target(config.prediction, x0, noise, gamma)
    mse = jnp.mean(jnp.square(jax.lax.stop_gradient(error)))
    terms = jnp.abs(error) if norm == "l1" else jnp.square(error)
    if mask is not None:
        terms = terms * mask
    if weighting == "min_snr":
        weight = process.min_snr_weight(config.prediction, gamma, min_snr)
        terms = terms * process.per_example(weight, terms)
    return (jnp.mean(terms) if reduction == "mean" else jnp.sum(terms)), {"mse": mse}


def eps_loss(params, state, batch, key, *, levels: str = "paper", **options):
    """Denoising regression on batch["hr"] given batch["lr"], both in [0,1].

    Options:
      levels: how noise levels are drawn; see `draw_levels`.
      norm, reduction, weighting, min_snr, dream: see `denoising_loss`.
    """
    config = params.config
    x0 = 2 * batch["hr"] - 1
    cond = condition(config, batch["lr"]) if config.unet.cond_channels else None
    level_key, noise_key, dropout_key = jax.random.split(key, 3)
    level = draw_levels(config, level_key, len(x0), levels)
    noise = jax.random.normal(noise_key, x0.shape)
    dropout_key = dropout_key if config.unet.dropout else None
    loss, metrics = denoising_loss(params, x0, cond, noise, level, key=dropout_key, **options)
    return loss, (state, metrics)
