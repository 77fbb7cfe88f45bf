"""Checks of what `sample` is given, before anything compiles."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from flowsr_jax.config import from_dict, to_dict
from flowsr_jax.diffusion.samplers import SamplerConfig
from flowsr_jax.math.arrays import shown
from flowsr_jax.models.sr3.config import SR3Config
from flowsr_jax.types import Array, Shape


def sampler_config(config: SR3Config, sampler: str | None = None, **options: Any) -> SamplerConfig:
    """Return the model's default sampler with some of its fields changed.

    Raises:
      ConfigError: an unknown sampler or option (the known ones are listed), or a bad value.
    """
    changed = options if sampler is None else {"name": sampler, **options}
    base = config.sampler
    values = {**to_dict(base), "schedule": base.schedule, **changed}
    return from_dict(SamplerConfig, values, "sample")


def image_shape(config: SR3Config) -> tuple[int, int, int]:
    """Return the shape of one image that a model without a condition draws."""
    return (config.unet.image_size, config.unet.image_size, config.unet.image_channels)


def batch_shape(
    config: SR3Config, lr: Array, shape: Shape | None, num_samples: int | None, given: Any
) -> tuple[int, ...]:
    """Return the shape of the result, without a trajectory's axis.

    Args:
      lr: [B,h,w,C] or None; shape, num_samples: as `sample` gets them.
      given: arrays that tell the count without an lr: x_T or noise, labels; or None.

    Raises:
      ValueError: a shape without or beside an lr that does not fit.
    """
    unet, scale = config.unet, config.scale
    if lr is not None:
        if shape is not None:
            raise ValueError(f"shape = {shape} is for lr = None; the size of lr tells it")
        b, h, w, _ = lr.shape
        out = (b, scale * h, scale * w, unet.image_channels)
        return out if num_samples is None else (num_samples, *out)
    image = image_shape(config)
    shape = image if shape is None else tuple(shape)
    if len(shape) == 3:
        counts = [len(x) for x in given if np.ndim(x)]
        shape = (num_samples or (counts or [1])[0], *shape)
    whole = all(isinstance(n, int) and n > 0 for n in shape)
    if len(shape) != 4 or not whole or shape[-1] != unet.image_channels:
        raise ValueError(f"shape must be that of one image, as {image}, or of a batch, got {shape}")
    if num_samples not in (None, shape[0]):
        raise ValueError(f"shape = {shape} and num_samples = {num_samples} do not agree")
    return shape


def check_shape(name: str, value: Any, want: tuple[int, ...], rows: bool = False) -> None:
    """Check that noise has the shape `want`, or with `rows` at least as many in the first axis."""
    if value is None:
        return
    got = tuple(np.shape(value))
    fits = got == want
    if rows and len(got) == len(want):
        fits = got[1:] == want[1:] and got[0] >= want[0]
    if not fits:
        more = " (or more rows)" if rows else ""
        raise ValueError(f"{name} must have the shape {want}{more}, got {got}")


def check_guidance(config: SR3Config, guidance: Any, label: Any) -> None:
    """Check a number >= 0, for a model that has something to leave out."""
    if guidance is None:
        return
    if config.classes and label is None:
        raise ValueError("guidance needs label: the class to move towards")
    if not (config.classes or config.unet.cond_channels):
        raise ValueError("guidance needs a model with classes or a condition")
    check_number("guidance", guidance, 0, np.inf)


def check_cond_level(config: SR3Config, level: Any) -> None:
    """Check sqrt(gamma) of the condition's noise, for a model that is told it."""
    if level is None:
        return
    if not config.augmented:
        raise ValueError("cond_level needs a model with augmented = True")
    check_number("cond_level", level, 0, 1)


def check_number(name: str, value: Any, low: float, high: float) -> None:
    """Check one number in [low, high]; a traced one passes."""
    if isinstance(value, jax.core.Tracer):
        return
    if np.ndim(value) or not low <= value <= high:
        raise ValueError(f"{name} must be one number in [{low:g}, {high:g}], got {shown(value)}")
