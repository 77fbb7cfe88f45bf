"""The noise behind a sample, as a function of the place in the image.

The LR plane is divided into squares, and the noise of a square depends on the key, the
number of the sample and the square's place alone.  So any window of the plane can be
drawn on its own: overlapping windows see the same noise where they overlap, and the
noise of a large image never exists as a whole.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

SQUARE = 16  # LR pixels
IMPL = "threefry2x32"


def square_side(multiple: int) -> int:
    """Side of the squares for a model whose LR sides are multiples of `multiple`."""
    return math.lcm(SQUARE, multiple)


def threefry(key=None) -> jax.Array:
    """Make a typed Threefry key of any key (None: key 0), so that all share one compilation."""
    if key is None:
        return jax.random.key(0, impl=IMPL)
    if jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key):
        if jax.random.key_impl(key) == IMPL:
            return key
        key = jax.random.bits(key, (2,), "uint32")
    return jax.random.wrap_key_data(key, impl=IMPL)


def window_noise(key, samples, top, left, squares: tuple[int, int], shapes) -> list[jax.Array]:
    """Assemble the standard-normal noise of a window from its squares.

    Pure and jittable; `squares` and `shapes` are static, the rest may be traced.

    Args:
      key: PRNG key of the image.
      samples: int32 [N], the numbers of the samples.
      top, left: row and column of the window's first square, in squares.
      squares: the window's height and width, in squares.
      shapes: [(1,h,w,c), ...], the noise of one square.

    Returns:
      arrays [N, 1, squares[0]*h, squares[1]*w, c] float32, one per shape.
    """
    rows, columns = top + jnp.arange(squares[0]), left + jnp.arange(squares[1])
    places = jnp.stack(jnp.meshgrid(samples, rows, columns, indexing="ij"), axis=-1)

    def square(place):
        # One draw for all shapes: XLA takes seconds to compile each.
        place_key = functools.reduce(jax.random.fold_in, place, key)
        return jax.random.normal(place_key, (sum(sizes),), jnp.float32)

    sizes = [math.prod(shape) for shape in shapes]
    flat = jax.vmap(square)(places.reshape(-1, 3)).reshape(*places.shape[:3], -1)
    parts = jnp.split(flat, np.cumsum(sizes)[:-1], axis=-1)
    return [
        rearrange(z, "n r s (h w c) -> n 1 (r h) (s w) c", h=shape[1], w=shape[2])
        for z, shape in zip(parts, shapes, strict=True)
    ]
