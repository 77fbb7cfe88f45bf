"""SR3's sampling, views and family record."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from flowsr_jax.config import from_dict, to_dict
from flowsr_jax.diffusion import chain
from flowsr_jax.diffusion.samplers import SamplerConfig, coefficients, grid
from flowsr_jax.diffusion.schedules import warn_if_signal_remains
from flowsr_jax.models.base import Family, View
from flowsr_jax.models.inputs import check_image
from flowsr_jax.models.sr3 import torch_map
from flowsr_jax.models.sr3.losses import eps_loss
from flowsr_jax.models.sr3.model import (
    SR3Config,
    condition,
    init,
    network,
    network_levels,
    predict_noise,
)
from flowsr_jax.nets.unet import prepare

ROWS = 4096  # tables are padded to multiples: chains of all usual lengths share a program


def sampler_config(config: SR3Config, sampler: str | None = None, **options) -> SamplerConfig:
    """The model's default sampler with some of its fields changed.

    Raises:
      ConfigError: an unknown sampler or option (the known ones are listed), or a bad value.
    """
    changed = options if sampler is None else {"name": sampler, **options}
    base = config.sampler
    values = {**to_dict(base), "schedule": base.schedule, **changed}
    return from_dict(SamplerConfig, values, "sample")


@functools.lru_cache(maxsize=64)
def _table(config: SR3Config, sampler: SamplerConfig):
    gammas = grid(sampler, config.schedule)
    levels = network_levels(config, gammas[:-1])
    return coefficients(sampler, gammas, levels, config.prediction)


def noise_shapes(config: SR3Config, lr_shape, **options):
    """Shapes of `sample`'s `noise`: the start of the chain, [B,s*h,s*w,C]."""
    del options
    b, h, w, _ = lr_shape
    return [(b, config.scale * h, config.scale * w, config.unet.image_channels)]


def sample(
    params,
    lr,
    key=None,
    *,
    temperature=None,
    num_samples: int | None = None,
    sampler: str | None = None,
    noise=None,
    x_T=None,
    noises=None,
    corrector_noises=None,
    trajectory: int = 0,
    **options,
):
    """Draw images by iterative refinement; see flowsr_jax.sample.

    The chain is one compiled loop for all samplers, schedules and numbers of steps (not
    reverse-differentiable).  Images of any size are padded by reflection to what the
    network can halve, and cropped.  Noise arrays have the size of the result.

    Args:
      params: SR3 parameters.
      lr: [B,h,w,C] in [0,1]; without a condition only its size counts.
      key: PRNG key; may be None if all noise is given.
      temperature: factor of all noise, the start included; None is 1.
      num_samples: None, or N images per LR; the condition is prepared once.
      sampler: "ancestral", "ddim", "dpmpp2m" or "pc"; None is the model's default.
      noise: [x_T] from which all later noise is derived, place by place, so that windows of
        one large x_T agree where they overlap; or, one by one:
      x_T: start [(N,)B,H,W,C], standard normal.
      noises: [steps-1 or more, (N,)B,H,W,C], in the order of use.
      corrector_noises: [steps-1 or more, corrector_steps, (N,)B,H,W,C].
      trajectory: K > 0 returns K states of the chain, evenly spaced, the result last.
      **options: further fields of `SamplerConfig`: steps, schedule, spacing, variance,
        eta, clip, percentile, keep_eps, corrector_steps, snr.

    Returns:
      [B,H,W,C] float32, [N,B,H,W,C] with num_samples; with `trajectory` K in front.  In
      [0,1] scale; the published samplers (clip "static") end inside [0,1].

    Raises:
      ConfigError, ValueError: an unknown sampler or option, steps that the schedule does
        not have, noise of a wrong shape, no key for noise that is not given.

    Warns:
      ScheduleWarning: the schedule does not end in noise.
    """
    config = params.config
    chosen = sampler_config(config, sampler, **options)
    warn_if_signal_remains(chosen.schedule or config.schedule)
    table = _table(config, chosen)
    steps = len(table.level)
    corrections = chosen.corrector_steps if chosen.name == "pc" else 0
    noisy = bool(np.any(table.noise))
    if not 0 <= trajectory <= steps:
        raise ValueError(f"trajectory = {trajectory} must lie between 0 and {steps}, the steps")
    shape = noise_shapes(config, lr.shape)[0]
    shape = shape if num_samples is None else (num_samples, *shape)
    seed = None
    if noise is not None:
        (x_T,) = (seed,) = noise
    _check_noise("x_T", x_T, (), shape)
    _check_noise("noises", noises, (steps - 1,), shape)
    _check_noise("corrector_noises", corrector_noises, (steps - 1, corrections), shape)
    if key is None and seed is None:
        needed = {"x_T": x_T, "noises": noises, "corrector_noises": corrector_noises}
        wanted = (True, noisy and steps > 1, corrections and steps > 1)
        missing = [k for k, want in zip(needed, wanted, strict=True) if want and needed[k] is None]
        if missing:
            raise ValueError(f"give a key, or {', '.join(missing)}")
    return _draw(
        params,
        lr,
        key,
        chain.pad(table, ROWS),
        np.int32(steps),
        jnp.float32(1.0 if temperature is None else temperature),
        (x_T, noises, corrector_noises),
        jnp.float32(1.0 if chosen.clip == "static" else np.inf),
        jnp.float32(chosen.percentile) if chosen.clip == "dynamic" else None,
        jnp.float32(chosen.snr),
        corrections=corrections,
        num_samples=num_samples,
        trajectory=trajectory,
        seeded=seed is not None,
    )


def _check_noise(name, value, lead, shape):
    """Shape of given noise: at least lead[0] rows, then the rest exactly."""
    if value is None:
        return
    got = tuple(np.shape(value))
    want = (*lead, *shape)
    fits = got[1:] == want[1:] and got[0] >= want[0] if lead else got == want
    if not fits:
        raise ValueError(f"{name} must have the shape {want} (or more rows), got {got}")


@functools.partial(jax.jit, static_argnames=("corrections", "num_samples", "trajectory", "seeded"))
def _draw(
    params, lr, key, table, steps, temperature, given, limit, percentile, snr, *, corrections,
    num_samples, trajectory, seeded,
):  # fmt: skip
    config, unet = params.config, params.config.unet
    count = 1 if num_samples is None else num_samples
    b, h, w, c = noise_shapes(config, lr.shape)[0]
    margin = [(0, -h % unet.multiple), (0, -w % unet.multiple)]
    outside = [(0, 0), *margin, (0, 0)]

    def widen(x):
        return jnp.pad(x, outside, mode="symmetric") if any(m for _, m in margin) else x

    prepared = None
    if unet.cond_channels:
        prepared = prepare(params["unet"], widen(condition(config, lr)), unet)
        prepared = jnp.tile(prepared, (count, 1, 1, 1))

    keys = (None,) * 3 if key is None else jax.random.split(key, 3)
    shape = (count * b, h, w, c)

    def source(given, key):
        """(step, ...) -> noise of the padded size, from arrays or a key."""
        if given is not None:
            lead = given.ndim - (4 if num_samples is None else 5)
            draw = chain.noise_from_array(
                jnp.asarray(given, jnp.float32).reshape(*given.shape[:lead], *shape)
            )
        elif key is not None:
            draw = chain.noise_from_key(key, shape)
        else:
            return None
        return lambda *index: temperature * widen(draw(*index))

    start, noise, corrector_noise = (source(g, k) for g, k in zip(given, keys, strict=True))
    if seeded:
        draw = chain.noise_from_seed(jnp.asarray(given[0], jnp.float32).reshape(shape))
        noise = corrector_noise = lambda *index: temperature * widen(draw(*index))

    def denoise(x, level):
        return network(params, x, level[None], prepared=prepared)

    out = chain.refine(
        denoise,
        start(),
        table,
        steps=steps,
        noise=noise,
        limit=limit,
        percentile=percentile,
        corrector_steps=corrections,
        corrector_noise=corrector_noise,
        snr=snr,
        trajectory=trajectory,
    )
    out = (out[..., :h, :w, :] + 1) / 2
    lead = (trajectory,) if trajectory else ()
    return out.reshape(*lead, *(() if num_samples is None else (count,)), b, h, w, c)


def views(config: SR3Config, loss: str) -> tuple[View, ...]:
    """A 20-step DPM-Solver++(2M) chain, and an ancestral one of at most 100 steps."""
    del loss
    few, more = min(20, config.schedule.steps), min(100, config.schedule.steps)
    return (
        View(f"2M, {few} steps", _view("dpmpp2m", few), stochastic=True),
        View(f"ancestral, {more} steps", _view("ancestral", more), stochastic=True),
    )


def _view(sampler: str, steps: int):
    return functools.partial(sample, sampler=sampler, steps=steps)


FAMILY = Family(
    name="sr3",
    config_class=SR3Config,
    init=init,
    losses={"eps": eps_loss},
    check_lr=lambda config, lr: check_image("lr", lr, config.unet.image_channels),
    sample=sample,
    views=views,
    noise_shapes=noise_shapes,
    predict_noise=predict_noise,
    recognise_torch=torch_map.from_torch.recognise,
    from_torch=torch_map.from_torch,
)
