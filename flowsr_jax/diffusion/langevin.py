"""Annealed Langevin dynamics for score networks (Song & Ermon, 2019, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax


def annealed_langevin(
    score: Callable, x, sigmas, *, noise: Callable, inner_steps: int = 100, step_size=2e-5
):
    """Run `inner_steps` Langevin steps at each noise level, as one loop.

    x <- x + alpha/2 score + sqrt(alpha) z with alpha = step_size sigma^2 / sigma_last^2.

    Args:
      score: (x [B,...], index of the level) -> grad log density, like x.
      x: start [B,...].
      sigmas: [L] noise levels, decreasing; may be traced.
      noise: (level, inner step) -> standard-normal array like x.
      inner_steps: T, per level.
      step_size: of the last level.

    Returns:
      the final state [B,...].
    """
    sigmas = jnp.asarray(sigmas, x.dtype)
    alphas = step_size * jnp.square(sigmas / sigmas[-1])

    def body(i, x):
        level, inner = i // inner_steps, i % inner_steps
        alpha = alphas[level]
        return x + alpha / 2 * score(x, level) + jnp.sqrt(alpha) * noise(level, inner)

    return lax.fori_loop(0, len(sigmas) * inner_steps, body, x)
