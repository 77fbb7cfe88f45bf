"""Cascades: a model that draws small images, and others that enlarge them.

Source: Saharia et al. (2021), section 4.4; Ho et al. (2021, CDM).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from flowsr_jax import api
from flowsr_jax.models import Params


def sample_cascade(
    models: Sequence[Params],
    key,
    *,
    lr=None,
    num_samples: int = 1,
    options: Sequence[Mapping[str, Any]] = (),
    show: Callable[[int, jax.Array], None] = lambda stage, images: None,
) -> jax.Array:
    """Draw images stage by stage; every stage enlarges the 8-bit images of the one before.

    Args:
      models: parameters of the stages, of any family.  Without `lr` the first one draws
        images from nothing.
      key: PRNG key; each stage has one of its own.
      lr: [B,h,w,3] in [0,1], what the first stage enlarges; None for nothing.
      num_samples: number of images without `lr`; else one per image of `lr`.
      options: for each stage, keyword arguments of `flowsr_jax.sample` beside lr and key, as
        steps, label or cond_level; none at all is the models' defaults.
      show: called with each stage's number and its images, before the next one.

    Returns:
      [B,H,W,3] float32 of the last stage, not clipped.

    Raises:
      TypeError, ValueError: no stage, options of another number of stages, or an argument
        that a stage cannot take.
    """
    options = list(options) or [{}] * len(models)
    if not models or len(options) != len(models):
        raise ValueError(f"{len(models)} stages with options for {len(options)}")
    images = lr
    for stage, (params, given) in enumerate(zip(models, options, strict=True)):
        given = dict(given)
        if images is None:
            given["num_samples"] = num_samples
        elif stage:
            # The models were trained on LR images of 8 bits.
            images = jnp.round(255 * jnp.clip(images, 0, 1)) / 255
        images = api.sample(params, images, jax.random.fold_in(key, stage), **given)
        show(stage, images)
    return images
