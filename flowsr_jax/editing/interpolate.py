"""Latents between two latents; of any model."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def interpolate(
    latents_a: Sequence[jax.Array],
    latents_b: Sequence[jax.Array],
    weights,
    *,
    keep_variance: bool = False,
) -> list[jax.Array]:
    """Return latents on the line from one list to another: (1 - w) a + w b.

    Args:
      latents_a, latents_b: float latents of the same shapes, of any model.
      weights: [N] numbers or a scalar; 0 is a, 1 is b, exactly.
      keep_variance: divide by sqrt((1 - w)^2 + w^2): half-way between two independent
        draws the latents are then as large as the draws, not 1/sqrt(2) of it.

    Returns:
      float32 latents, with a leading axis N where `weights` has one.

    Raises:
      ValueError: latents of different shapes, weights of a higher rank.
    """
    shapes = [[tuple(getattr(z, "shape", ())) for z in zs] for zs in (latents_a, latents_b)]
    if not shapes[0] or shapes[0] != shapes[1]:
        raise ValueError(
            f"both latent lists must have the same shapes, got {shapes[0]}, {shapes[1]}"
        )
    w = jnp.asarray(weights, jnp.float32)
    if w.ndim > 1:
        raise ValueError(f"weights must be a number or [N], got shape {w.shape}")
    size = jnp.sqrt(jnp.square(1 - w) + jnp.square(w)) if keep_variance else jnp.ones_like(w)
    first, second = (1 - w) / size, w / size
    out = []
    for a, b in zip(latents_a, latents_b, strict=True):
        a, b = jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)
        u, v = (x.reshape(*x.shape, *[1] * a.ndim) for x in (first, second))
        out.append(u * a + v * b)
    return out
