"""Random initial values that compile in few programs.

Every distinct shape of jax.random.normal is a program of its own, and a model has
dozens of shapes.  Drawing a power of two of values and cutting the shape out of it
leaves a handful: initialising a model takes seconds instead of half a minute.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp

from flowsr_jax.types import Array, Shape


def normal(key: Array, shape: Shape) -> Array:
    """Return standard normal values of `shape`, float32."""
    return _cut(_normal(key, _size(shape)), shape)


def uniform(key: Array, shape: Shape, bound: float = 1.0) -> Array:
    """Return values uniform in [-bound, bound) of `shape`, float32."""
    return bound * _cut(_uniform(key, _size(shape)), shape)


def _size(shape: Shape) -> int:
    return max(1024, 1 << (math.prod(shape) - 1).bit_length())


def _cut(values: Array, shape: Shape) -> Array:
    return values[: math.prod(shape)].reshape(shape)


@functools.partial(jax.jit, static_argnums=1)
def _normal(key: Array, size: int) -> Array:
    return jax.random.normal(key, (size,), jnp.float32)


@functools.partial(jax.jit, static_argnums=1)
def _uniform(key: Array, size: int) -> Array:
    return jax.random.uniform(key, (size,), jnp.float32, minval=-1.0, maxval=1.0)
