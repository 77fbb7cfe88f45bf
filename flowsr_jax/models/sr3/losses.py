"""SR3's training losses: a noise level per example, one network call, a regression.

Source: docs/papers/sr3.md sections 4, 6 and 7; Saharia et al. (2021),
Algorithm 1; Song & Ermon (2019) for score matching; Hang et al. (2023) for min-SNR; Zhou et
al. (2023) for DREAM; Ho et al. (2021) for condition noise; Ho & Salimans (2022) for drops.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from flowsr_jax.config import ConfigError, choice
from flowsr_jax.diffusion import process
from flowsr_jax.diffusion.schedules import level_edges
from flowsr_jax.models.base import Params
from flowsr_jax.models.sr3.condition import condition, drop, to_draw
from flowsr_jax.models.sr3.config import SR3Config
from flowsr_jax.models.sr3.network import gamma_of, network
from flowsr_jax.types import AnyArray, Array, Batch, LossResult, State

LEVELS = ("paper", "public", "discrete")
NORMS = ("l1", "l2")
REDUCTIONS = ("mean", "sum")
WEIGHTINGS = ("none", "min_snr")


def draw_levels(config: SR3Config, key: Array, count: int, levels: str = "paper") -> Array:
    """Draw what the network is told, [count].

    levels "paper": t ~ U{1..T} per example, gamma ~ U(gamma_{t-1}, gamma_t).  "public": one
    t for the batch, sqrt(gamma) uniform between its edges, per example.  "discrete": one of
    the schedule's own levels per example, as score networks are trained.  The DDPM variant
    draws one timestep per example in any case.
    """
    choice("levels", levels, LEVELS)
    key_t, key_u = jax.random.split(key)
    steps = config.schedule.steps
    if config.timed:
        return jax.random.randint(key_t, (count,), 0, steps)
    t = jax.random.randint(key_t, (1 if levels == "public" else count,), 1, steps + 1)
    edges = level_edges(config.schedule)
    if levels == "discrete":
        return jnp.asarray(edges, jnp.float32)[t]
    u = jax.random.uniform(key_u, (count,), jnp.float32)
    edges = jnp.asarray(edges**2 if levels == "paper" else edges, jnp.float32)
    drawn = edges[t - 1] + u * (edges[t] - edges[t - 1])
    return jnp.sqrt(drawn) if levels == "paper" else drawn


def denoising_loss(
    params: Params,
    x0: Array,
    cond: Array,
    noise: Array,
    level: Array,
    *,
    key: Array | None = None,
    label: Array | None = None,
    cond_level: Array | None = None,
    mask: Array | None = None,
    norm: str = "l1",
    reduction: str = "mean",
    weighting: str = "none",
    min_snr: float = 5.0,
    dream: float | None = None,
) -> tuple[Array, dict[str, Array]]:
    """Return the regression loss at given noise and levels.

    Args:
      params: SR3 parameters.
      x0: clean images [B,H,W,C] in [-1,1] (with `residual`, what is diffused).
      cond: conditions [B,H,W,C] in [-1,1], or None.
      noise: standard-normal [B,H,W,C].
      level: [B] sqrt(gamma), or timesteps for the DDPM variant.
      key: of dropout; None evaluates without.
      label, cond_level: [B], for models that are told them.
      mask: [B,H,W,1] or like x0, bool or float: 1 counts, 0 does not.
      norm: "l1" (published) or "l2".
      reduction: "mean", the public code's sum over B*H*W*C (over what counts, with a mask),
        or "sum".
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

    def evaluate(x: AnyArray) -> Array:
        return network(params, x, level, cond, label=label, cond_level=cond_level, key=key)  # ty: ignore[invalid-argument-type]

    x = process.q_sample(x0, noise, jnp.sqrt(gamma))
    if dream is not None:
        out = jax.lax.stop_gradient(evaluate(x))
        own = process.predictions(config.prediction, out, x, gamma)[1]
        sigma = process.per_example(jnp.sqrt(1 - gamma), x)
        noise = noise + sigma**dream * (noise - own)
        x = process.q_sample(x0, noise, jnp.sqrt(gamma))
    error = evaluate(x) - process.target(config.prediction, x0, noise, gamma)
    total = error.size
    if mask is not None:
        counts = jnp.broadcast_to(mask, error.shape).astype(error.dtype)
        error, total = counts * error, jnp.maximum(jnp.sum(counts), 1)
    mse = jnp.sum(jnp.square(jax.lax.stop_gradient(error))) / total
    terms = jnp.abs(error) if norm == "l1" else jnp.square(error)
    if weighting == "min_snr":
        weight = process.min_snr_weight(config.prediction, gamma, min_snr)
        terms = terms * process.per_example(weight, terms)
    return jnp.sum(terms) / (total if reduction == "mean" else 1), {"mse": mse}


def eps_loss(
    params: Params,
    state: State,
    batch: Batch,
    key: Array,
    *,
    levels: str = "paper",
    drop_label: float = 0.0,
    drop_condition: float = 0.0,
    cond_noise: float = 0.5,
    **options: Any,
) -> LossResult:
    """Return the denoising regression on batch["hr"] given batch["lr"], both in [0,1].

    Options:
      levels: how noise levels are drawn; see `draw_levels`.
      drop_label, drop_condition: probability of "no class" and of a condition of zeros, for
        classifier-free guidance.
      cond_noise: of `augmented` models: the condition gets noise of a level drawn from this
        share of the schedule's steps (the clean end).
      norm, reduction, weighting, min_snr, dream: see `denoising_loss`.
    """
    config = params.config
    for name, value in (("drop_label", drop_label), ("drop_condition", drop_condition)):
        if not 0 <= value < 1:
            raise ConfigError(f"{name} = {value} must lie in [0, 1)")
    if not 0 < cond_noise <= 1:
        raise ConfigError(f"cond_noise = {cond_noise} must lie in (0, 1]")
    x0, lr, count = 2 * batch["hr"] - 1, batch["lr"], len(batch["hr"])
    level_key, noise_key, dropout_key = jax.random.split(key, 3)
    given = {"key": dropout_key if config.unet.dropout else None}
    extra = jax.random.split(jax.random.fold_in(key, 3), 4)
    cond = None
    if config.unet.cond_channels:
        if config.augmented:
            edges = level_edges(config.schedule)
            last = max(1, round(cond_noise * config.schedule.steps))
            step = jax.random.randint(extra[0], (count,), 0, last + 1)
            given["cond_level"] = jnp.asarray(edges, jnp.float32)[step]
        fill = None
        if config.augmented or config.holes:
            fill = jax.random.normal(extra[1], lr.shape, jnp.float32)
        cond = condition(config, lr, fill, given.get("cond_level"))
        if config.residual:
            x0 = config.residual * (x0 - cond)
        if config.holes:
            given["mask"] = to_draw(config, lr)
        cond = drop(extra[2], cond, 0.0, drop_condition)
    if config.classes:
        if "label" not in batch:
            raise ConfigError(
                f"the model has classes = {config.classes}, but the data bring no labels"
            )
        given["label"] = drop(extra[3], batch["label"], config.classes, drop_label)
    level = draw_levels(config, level_key, count, levels)
    noise = jax.random.normal(noise_key, x0.shape, jnp.float32)
    loss, metrics = denoising_loss(params, x0, cond, noise, level, **given, **options)  # ty: ignore[invalid-argument-type]
    return loss, (state, metrics)
