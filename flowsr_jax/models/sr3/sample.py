"""SR3's `sample`: one compiled loop for all samplers, schedules and numbers of steps."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flowsr_jax import memory
from flowsr_jax.diffusion import chain, process
from flowsr_jax.diffusion.samplers import Coefficients, SamplerConfig, coefficients, grid
from flowsr_jax.diffusion.schedules import warn_if_signal_remains
from flowsr_jax.math.arrays import is_traced
from flowsr_jax.models.base import Params, View
from flowsr_jax.models.inputs import check_label
from flowsr_jax.models.sr3.arguments import (
    batch_shape,
    check_cond_level,
    check_guidance,
    check_shape,
    sampler_config,
)
from flowsr_jax.models.sr3.condition import condition, to_draw
from flowsr_jax.models.sr3.config import SR3Config
from flowsr_jax.models.sr3.network import SR3, network, network_levels
from flowsr_jax.types import Array, PyTree, Scalar, Shape

ROWS = 4096  # tables are padded to multiples: chains of all usual lengths share a program
UNUSED = (1 << 31) - 1  # number of a step that no chain has
STATIC = ("shape", "corrections", "shared", "trajectory", "seeded")


@functools.lru_cache(maxsize=64)
def _table(config: SR3Config, sampler: SamplerConfig) -> PyTree:
    gammas = grid(sampler, config.schedule)
    levels = network_levels(config, gammas[:-1])
    return coefficients(sampler, gammas, levels, config.prediction)


def sample(
    params: Params,
    lr: Array,
    key: Array | None = None,
    *,
    temperature: float | Array | None = None,
    num_samples: int | None = None,
    shape: Shape | None = None,
    label: Array | None = None,
    guidance: float | None = None,
    cond_level: Array | None = None,
    sampler: str | None = None,
    noise: Array | None = None,
    x_T: Array | None = None,
    noises: Array | None = None,
    corrector_noises: Array | None = None,
    cond_noise: Array | None = None,
    trajectory: int = 0,
    **options: Any,
) -> Array:
    """Draw images by iterative refinement; see flowsr_jax.sample.

    The chain is one compiled loop, and one program serves all lengths.  Inside jit, grad or
    vmap its length is fixed, which makes it differentiable in reverse (every step's
    intermediates are kept then).  Images of any size are padded by reflection to what the
    network can halve, and cropped.  Noise arrays have the size of the result.

    Args:
      params: SR3 parameters.
      lr: [B,h,w,C] in [0,1]; without a condition only its size counts, or None.
      key: PRNG key; may be None if all noise is given.
      temperature: factor of the chain's noise, the start included; None is 1.
      num_samples: None, or N images per LR; the condition is prepared once.  With lr None,
        the number of images.
      shape: with lr None, of one image or of the batch; None is the network's image_size.
      label: class of all images, or of each [B]; None is "no class".
      guidance: w of classifier-free guidance, eps = eps_u + w (eps_c - eps_u), at twice the
        cost; None is none.  eps_u is without the class, in a model without classes without
        the condition.
      cond_level: of `augmented` models: sqrt(gamma) of the noise added to the condition;
        None is 1, no noise.
      sampler: "ancestral", "ddim", "dpmpp2m", "pc", "langevin"; None is the model's default.
      noise: [x_T] from which all later noise is derived, place by place, so that windows of
        one large x_T agree where they overlap; or, one by one:
      x_T: start [(N,)B,H,W,C], standard normal.
      noises: [steps-1 or more, (N,)B,H,W,C], in the order of use.
      corrector_noises: [steps-1 (langevin: steps) or more, corrector_steps, (N,)B,H,W,C].
      cond_noise: [(N,)B,h,w,C], what fills holes or is added to the condition.
      trajectory: K > 0 returns K states of the chain, evenly spaced, the result last.
      **options: further fields of `SamplerConfig`: steps, schedule, spacing, variance,
        eta, clip, percentile, keep_eps, form, corrector_steps, snr, step_size.

    Returns:
      [B,H,W,C] float32, [N,B,H,W,C] with num_samples and an lr; with `trajectory` K in
      front.  In [0,1] scale; the published samplers (clip "static") end inside [0,1].

    Raises:
      ConfigError, ValueError: an unknown sampler or option, steps that the schedule does
        not have, noise of a wrong shape, no key for noise that is not given.

    Warns:
      ScheduleWarning: the schedule does not end in noise.
    """
    config = params.config
    chosen = sampler_config(config, sampler, **options)
    warn_if_signal_remains(chosen.schedule or config.schedule)
    check_guidance(config, guidance, label)
    check_cond_level(config, cond_level)
    table = _table(config, chosen)
    steps, corrections = len(table.level), chosen.corrections
    if not 0 <= trajectory <= steps:
        raise ValueError(f"trajectory = {trajectory} must lie between 0 and {steps}, the steps")
    seed = None
    if noise is not None:
        (x_T,) = (seed,) = noise
    out = batch_shape(config, lr, shape, num_samples, (x_T, label))
    arrays = params, lr, key, temperature, guidance, cond_level, x_T, noises, corrector_noises
    traced = any(map(is_traced, jax.tree.leaves((*arrays, cond_noise))))
    if not traced:
        kept = (trajectory or 1, *out)
        memory.require("shape", kept if trajectory else out, 4 * math.prod(kept), count=out[0])
    small = out if lr is None else (*out[:-3], *lr.shape[1:])
    corrected = steps - (chosen.name == "pc")  # levels with Langevin steps
    corrections *= corrected > 0
    check_shape("x_T", x_T, out)
    check_shape("noises", noises, (steps - 1, *out), rows=True)
    check_shape("corrector_noises", corrector_noises, (corrected, corrections, *out), rows=True)
    check_shape("cond_noise", cond_noise, small)
    noisy_condition = config.holes is not None or cond_level is not None
    if key is None and seed is None:
        wanted = {
            "x_T": (x_T, True),
            "noises": (noises, bool(np.any(table.noise)) and steps > 1),
            "corrector_noises": (corrector_noises, corrections > 0),
            "cond_noise": (cond_noise, noisy_condition),
        }
        missing = [name for name, (value, needed) in wanted.items() if needed and value is None]
        if missing:
            raise ValueError(f"give a key, or {', '.join(missing)}")
    if label is not None:
        label = check_label(config, label, out[-4])
        label = jnp.tile(label, math.prod(out[:-4]))  # ty: ignore[invalid-argument-type]
    return _draw(
        params,
        lr,
        key,
        table if traced else chain.pad(table, ROWS),
        None if traced else np.int32(steps),
        jnp.float32(1.0 if temperature is None else temperature),
        (x_T, noises, corrector_noises, cond_noise),
        label,
        None if guidance is None else jnp.float32(guidance),
        jnp.float32(cond_level) if cond_level is not None else None,
        jnp.float32(np.inf if chosen.clip == "none" else 1.0),
        jnp.float32(chosen.percentile) if chosen.clip == "dynamic" else None,
        None if chosen.name == "langevin" else jnp.float32(chosen.snr),
        shape=out,
        corrections=corrections,
        shared=not noisy_condition,
        trajectory=trajectory,
        seeded=seed is not None,
    )


@functools.partial(jax.jit, static_argnames=STATIC)
def _draw(
    params: Params,
    lr: Array,
    key: Array | None,
    table: Coefficients,
    steps: int | None,
    temperature: Scalar,
    given: Sequence[Any],
    label: Array | None,
    guidance: Any,
    cond_level: Any,
    limit: Any,
    percentile: float,
    snr: float,
    *,
    shape: Shape,
    corrections: int,
    shared: bool,
    trajectory: int,
    seeded: bool,
) -> Array:
    config, unet = params.config, params.config.unet
    *lead, h, w, c = shape
    count = math.prod(lead)
    flat = (count, h, w, c)
    margin = [(0, -h % unet.multiple), (0, -w % unet.multiple)]
    outside = [(0, 0), *margin, (0, 0)]

    def widen(x: Array) -> Array:
        return jnp.pad(x, outside, mode="symmetric") if any(m for _, m in margin) else x

    def source(given: Any, key: Any, shape: Shape, seed: Any = None) -> Any:
        """Return (step, ...) -> noise of `shape`, from arrays, a key or a seed."""
        if given is not None:
            rows = given.ndim - len(lead) - 3
            return chain.noise_from_array(
                jnp.asarray(given, jnp.float32).reshape(*given.shape[:rows], *shape)
            )
        if seed is not None:
            return chain.noise_from_seed(seed)
        return None if key is None else chain.noise_from_key(key, shape)

    keys = [None] * 4
    if key is not None:
        keys = [*jax.random.split(key, 3), jax.random.fold_in(key, 3)]
    seed = jnp.asarray(given[0], jnp.float32).reshape(flat) if seeded else None
    start, noise, corrector = (source(given[i], keys[i], flat, seed) for i in range(3))

    def scaled(draw: Any) -> Any:
        return None if draw is None else lambda *index: temperature * widen(draw(*index))

    prepared, cond, known = None, 0.0, None
    if unet.cond_channels:
        copies = math.prod(lead[:-1])
        if shared:
            cond = condition(config, lr)
        else:
            lr = jnp.tile(lr, (copies, 1, 1, 1))
            # Every s-th value of the seed has the place of an LR pixel.
            small = None if seed is None else seed[:, :: config.scale, :: config.scale]
            fill = source(given[3], keys[3], lr.shape, small)
            fill = fill() if given[3] is not None else fill(UNUSED)
            level = None if cond_level is None else jnp.full((count,), cond_level)
            cond = condition(config, lr, fill, level)
            known = ~to_draw(config, lr) if config.holes else None
        wide = widen(cond)
        prepared = SR3(config).apply({"params": params.tree}, wide, method="prepare")
        if shared:
            cond, prepared, wide = (jnp.tile(x, (copies, 1, 1, 1)) for x in (cond, prepared, wide))  # ty: ignore[invalid-argument-type]

    def denoise(x: Array, level: Array) -> Array:
        told = None if cond_level is None else cond_level[None]
        if guidance is None:
            return network(params, x, level[None], prepared=prepared, label=label, cond_level=told)
        labels = None if label is None else jnp.append(label, jnp.full_like(label, config.classes))
        plain = prepared if config.classes or prepared is None else 0 * prepared
        both = None if prepared is None else jnp.concatenate([prepared, plain])  # ty: ignore[invalid-argument-type]
        pair = jnp.concatenate([x, x])
        pair = network(params, pair, level[None], prepared=both, label=labels, cond_level=told)
        return process.guide(*jnp.split(pair, 2), guidance)

    gain = config.residual
    out = chain.refine(
        denoise,
        scaled(start)(),
        table,
        steps=steps,
        noise=scaled(noise),
        limit=limit * (gain or 1),
        percentile=percentile,
        center=gain * wide if gain else 0.0,
        corrector_steps=corrections,
        corrector_noise=scaled(corrector),
        snr=snr,
        trajectory=trajectory,
    )[..., :h, :w, :]
    if gain:
        out = cond + out / gain
    out = (out + 1) / 2
    if known is not None:
        out = jnp.where(known, lr, out)
    return out.reshape(*out.shape[:-4], *shape)


def noise_shapes(config: SR3Config, lr_shape: Shape, **options: Any) -> list[Shape]:
    """Return the shapes of `sample`'s `noise`: the start of the chain, [B,s*h,s*w,C]."""
    del options
    b, h, w, _ = lr_shape
    return [(b, config.scale * h, config.scale * w, config.unet.image_channels)]


def views(config: SR3Config, loss: str) -> tuple[View, ...]:
    """Return DPM-Solver++(2M) with noise in 20 steps, and an ancestral chain of at most 100."""
    del loss
    few, more = min(20, config.schedule.steps), min(100, config.schedule.steps)
    return (
        View(f"2M, {few} steps", _view("dpmpp2m", few, eta=1.0), stochastic=True),
        View(f"ancestral, {more} steps", _view("ancestral", more), stochastic=True),
    )


def _view(sampler: str, steps: int, **options: Any) -> Callable[..., Array]:
    return functools.partial(_draw_view, sampler=sampler, steps=steps, **options)


def _draw_view(params: Params, lr: Array, key: Array, **options: Any) -> Array:
    classes = params.config.classes
    if classes:  # validation does not say which
        label = jax.random.randint(jax.random.fold_in(key, 4), lr.shape[:1], 0, classes)
        options["label"] = label
    return sample(params, lr, key, **options)
