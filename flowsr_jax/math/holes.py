"""Holes in images: pixels that are to be filled in, marked by one exact colour.

So an image with holes is an ordinary 8-bit image, in files (lossless ones) and in batches,
and needs no mask beside it.
"""

from __future__ import annotations

import numpy as np

from flowsr_jax.types import AnyArray

MARK = (255, 0, 255)


def mark(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return uint8 [H,W,3] with the pixels of `mask`, bool [H,W], in the mark's colour.

    Other pixels that have this very colour become one level darker.
    """
    image = np.array(image)
    image[np.all(image == MARK, axis=-1)] = (254, 0, 255)
    image[mask] = MARK
    return image


def find(image: AnyArray) -> AnyArray:
    """Return where float images [...,3] in [0,1] have the mark's colour, bool [...,1].

    NumPy or JAX arrays; 8-bit levels that differ from the mark are no holes.
    """
    return abs(image - np.float32(MARK) / 255).max(axis=-1, keepdims=True) < 1 / 1024  # ty: ignore[invalid-argument-type]
