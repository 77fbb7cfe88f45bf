"""What the network is told beside the noisy image: condition, class, condition noise."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from flowsr_jax.math import holes
from flowsr_jax.math.resize import imresize
from flowsr_jax.models.sr3.config import SR3Config
from flowsr_jax.types import AnyArray, Array, Scalar


def condition(config: SR3Config, lr: Array, noise: Any = None, level: Any = None) -> Array:
    """Return the network's condition: the LR image [B,h,w,C] in [0,1], enlarged, in [-1,1].

    MATLAB's bicubic (a = -0.5), clipped as an 8-bit image would be; [B,s*h,s*w,C].

    Args:
      noise: standard-normal [B,h,w,C], for models with `holes`, which it fills, and for
      level: [B] sqrt(gamma) of the condition's own noise, of `augmented` models; the noise is
        added at the LR image's size, and nothing is clipped then.
    """
    if config.holes:
        return jnp.where(holes.find(lr), noise, 2 * jnp.clip(lr, 0, 1) - 1)
    noisy = config.augmented and level is not None
    if noisy:
        level = level[:, None, None, None]
        lr = (1 + level * (2 * lr - 1) + jnp.sqrt(1 - level * level) * noise) / 2
    if config.scale > 1:
        lr = imresize(lr, config.scale)  # ty: ignore[invalid-assignment]
    return 2 * (lr if noisy else jnp.clip(lr, 0, 1)) - 1


def to_draw(config: SR3Config, lr: Array) -> AnyArray:
    """Return where images of a model with `holes` are drawn, bool [B,h,w,1]; else lr stays."""
    found = holes.find(lr)
    if config.holes == "some":
        found = found | ~jnp.any(found, axis=(1, 2, 3), keepdims=True)
    return found


def drop(key: Array, value: Array, none: Scalar, probability: float) -> Array:
    """Replace each example of `value` [B,...] by `none` with the given probability."""
    if not probability:
        return value
    gone = jax.random.bernoulli(key, probability, value.shape[:1])
    return jnp.where(gone.reshape(-1, *(1,) * (value.ndim - 1)), none, value)
