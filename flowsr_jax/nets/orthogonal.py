"""Random orthogonal initial values, made on the host where that is possible.

Every distinct shape would be a program of its own (nets/random.py), here with a QR
decomposition in it.  With a fixed sign the decomposition is unique, so NumPy's and the
compiled one agree up to rounding.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from flowsr_jax.nets import random
from flowsr_jax.types import Array, Shape

FEWEST = 1 << 14  # values drawn at once


def orthogonal(key: Array, shape: Shape) -> Array:
    """Return Haar-distributed orthogonal values, float32, gain 1.

    The matrix [prod(shape[:-1]), shape[-1]] has orthonormal columns, or rows if it is wide.
    """
    count = math.prod(shape)
    values = random.normal(key, (max(FEWEST, 1 << (count - 1).bit_length()),))
    xp = jnp
    if not isinstance(values, jax.core.Tracer):
        xp, values = np, np.asarray(values)
    matrix = values[:count].reshape(-1, shape[-1])
    wide = matrix.shape[0] < matrix.shape[1]
    q, r = xp.linalg.qr(matrix.T if wide else matrix)
    q = q * xp.where(xp.diagonal(r) < 0, -1, 1).astype(np.float32)
    return jax.device_put((q.T if wide else q).reshape(shape))  # jnp.asarray compiles a copy
