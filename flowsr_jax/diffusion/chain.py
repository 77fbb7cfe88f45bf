"""The one loop that walks a sampler's table of coefficients (samplers.py)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.random import threefry_2x32

from flowsr_jax.diffusion import process
from flowsr_jax.diffusion.samplers import Coefficients
from flowsr_jax.types import AnyArray, Array, PyTree, Scalar, Shape


def pad(table: Coefficients, multiple: int) -> Coefficients:
    """Return the table with zero rows up to a multiple: chains of many lengths share a program."""
    rows = len(table.level)
    extra = math.ceil(rows / multiple) * multiple - rows
    return Coefficients(*(np.pad(column, (0, extra)) for column in table))


def refine(
    denoise: Callable[..., Array],
    x: Array,
    table: Coefficients,
    *,
    steps: int | Array | None = None,
    noise: Callable[..., Array] | None = None,
    limit: float = 1.0,
    percentile: float | None = None,
    center: Scalar = 0.0,
    corrector_steps: int = 0,
    corrector_noise: Callable[..., Array] | None = None,
    snr: float | None = 0.16,
    trajectory: int = 0,
) -> Array:
    """Run a chain from noise to an image, as one loop.

    Args:
      denoise: (x [B,...], level scalar) -> network output like x.
      x: the start x_T [B,...]; its dtype is the state's.
      table: of `coefficients`; NumPy or traced, possibly padded.
      steps: rows to walk; None is all of them, and then reverse-mode differentiation
        works; a traced number leaves one program for every length.
      noise: step -> standard-normal array like x; None for deterministic samplers.
      limit: the predicted clean image is clipped to +-limit; infinity is no clipping.
      percentile: dynamic thresholding of it by `limit` instead (process.dynamic_threshold).
      center: what is added to it before, and taken away after, clipping.
      corrector_steps: Langevin steps at every level whose alpha is above 0.
      corrector_noise: (number of the level, from 0, index) -> array like x.
      snr: r of the corrector's step size 2 alpha (r |z| / |s|)^2, norms averaged over B;
        None makes alpha itself the step size (annealed Langevin dynamics).
      trajectory: keep this many states, evenly spaced, the last one included.

    Returns:
      the image [B,...], or with `trajectory` K the states [K,B,...]; not clipped.
    """
    total = len(table.level) if steps is None else steps
    columns = Coefficients(*(jnp.asarray(column, x.dtype) for column in table))

    def row_at(i: Array) -> Coefficients:
        return Coefficients(*(column[i] for column in columns))

    def body(i: Array, carry: PyTree) -> PyTree:
        x, previous, kept = carry
        row = row_at(i)
        if corrector_steps:
            x = lax.cond(row.alpha > 0, lambda x: correct(x, i, row), lambda x: x, x)
        out = denoise(x, row.level)
        x0 = row.x0_x * x + row.x0_out * out
        eps = row.eps_x * x + row.eps_out * out
        x0 = clip(x0 + center) - center
        x = row.x * x + row.x0 * x0 + row.eps * eps + row.previous * previous
        if noise is not None:
            x = x + row.noise * noise(i)
        if trajectory:
            # Slot j ends up with the last state of its share of the steps.
            slot = ((i + 1) * trajectory + total - 1) // total - 1
            kept = lax.dynamic_update_index_in_dim(kept, x, slot, 0)
        return x, x0, kept

    def clip(x0: Array) -> Array:
        if percentile is None:
            return jnp.clip(x0, -limit, limit)
        return limit * process.dynamic_threshold(x0 / limit, percentile)

    def correct(x: Array, i: Array, row: Coefficients) -> Array:
        def langevin(j: Array, x: Array) -> Array:
            # A predictor-corrector makes no correction at the first level.
            z = corrector_noise(i if snr is None else i - 1, j)  # ty: ignore[not-callable]
            score = row.score * (row.eps_x * x + row.eps_out * denoise(x, row.level))
            step = row.alpha
            if snr is not None:
                ratio = snr * _mean_norm(z) / _mean_norm(score)
                step = 2 * step * ratio * ratio
            return x + step * score + jnp.sqrt(2 * step) * z

        return lax.fori_loop(0, corrector_steps, langevin, x)

    kept = jnp.zeros((trajectory, *x.shape), x.dtype)
    x, _, kept = lax.fori_loop(0, total, body, (x, jnp.zeros_like(x), kept))
    return kept if trajectory else x


def _mean_norm(x: AnyArray) -> Array:
    return jnp.mean(jnp.sqrt(jnp.sum(jnp.square(x.reshape(len(x), -1)), axis=1)))


def noise_from_key(key: Array, shape: Shape, dtype: Any = jnp.float32) -> Callable[..., Array]:
    """Return (step, ...) -> fresh standard-normal array, for `refine`."""

    def at(*index: Any) -> Array:
        return jax.random.normal(functools.reduce(jax.random.fold_in, index, key), shape, dtype)

    return at


def noise_from_array(noises: Array) -> Callable[..., Array]:
    """Return step -> noises[step] (the last row beyond the end), for `refine`.

    The last step of a chain draws no noise, so N - 1 rows are enough for N steps.
    """
    noises = jnp.asarray(noises)

    def at(*index: Any) -> Array:
        z = noises
        for i in index:
            z = z[jnp.minimum(i, len(z) - 1)]
        return z

    return at


def noise_from_seed(seed: Array) -> Callable[..., Array]:
    """Return (step, ...) -> noise that depends, at each place, on `seed` there alone.

    A Threefry hash of the seed's bits, so that windows of one large seed see the same
    noise where they overlap, and no step's noise is ever stored.

    Args:
      seed: float32 [B,...,C] of fresh random values.
    """
    words = lax.bitcast_convert_type(seed.astype(jnp.float32), jnp.uint32)
    # Two words per place (its neighbour's channel too): equal values are then rare.
    counts = jnp.stack([words, jnp.roll(words, 1, axis=-1)])

    def at(*index: Any) -> Array:
        step, inner = (*index, -1)[:2]  # the predictor's noise is number -1
        key = jnp.stack([jnp.asarray(step), jnp.asarray(inner)]).astype(jnp.uint32)
        bits = threefry_2x32(key, counts.ravel()).reshape(counts.shape)[0]
        uniform = (bits >> 8).astype(jnp.float32) * 2.0**-23 + (2.0**-24 - 1)
        return math.sqrt(2) * lax.erf_inv(uniform)

    return at
