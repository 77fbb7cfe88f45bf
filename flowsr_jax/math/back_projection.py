"""Put an image onto the set of images whose MATLAB-bicubic LR is a given one.

The downscaling A of `imresize` is linear and separable, so the smallest change of x that
makes A x = lr is A^T (A A^T)^-1 (lr - A x), with one banded system per axis.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from flowsr_jax.math.resize import downscale_taps
from flowsr_jax.types import AnyArray

TOLERANCE = 0.02 / 255  # largest error of the LR at which there is no need to go on
RELAXATION = 1.8  # steps longer than the projection: half the iterations


def back_project(sr: AnyArray, lr: AnyArray, scale: int, *, iterations: int = 15) -> np.ndarray:
    """Return the image nearest to a given one whose LR is the given LR.

    Alternates between the images with that LR and those with values in [0,1] (POCS, with
    over-relaxation).  Where that clips, a small error of the LR may remain; an LR that
    no image in [0,1] has is approached only.

    Args:
      sr: [H,W] or [H,W,C] float, nominal range [0,1].
      lr: [H/scale,W/scale] or [H/scale,W/scale,C] float in [0,1].
      scale: whole number, at least 2.
      iterations: at most so many corrections, at least 1.

    Returns:
      float64 of the shape of `sr`, in [0,1].

    Raises:
      ValueError: shapes that do not fit, or a bad scale or number of iterations.
    """
    sr, lr = (np.asarray(x, np.float64) for x in (sr, lr))
    if isinstance(scale, bool) or scale != int(scale) or scale < 2:
        raise ValueError(f"scale = {scale!r} must be a whole number, at least 2")
    if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 1:
        raise ValueError(f"iterations = {iterations!r} must be a whole number, at least 1")
    scale, height, width = int(scale), *lr.shape[:2]
    if lr.ndim not in (2, 3) or sr.shape != (scale * height, scale * width, *lr.shape[2:]):
        raise ValueError(f"sr must be {scale} times lr, got shapes {sr.shape} and {lr.shape}")
    rows, columns = _axis(height, scale), _axis(width, scale)
    x = sr.clip(0, 1)
    for i in range(iterations):
        error = lr - columns.down(rows.down(x, 0), 1)
        if np.abs(error).max() < TOLERANCE:
            break
        step = 1 if i in (0, iterations - 1) else RELAXATION
        x += step * columns.up(rows.up(error, 0), 1)
        x.clip(0, 1, out=x)
    return x


class _Axis:
    """The downscaling A of one axis of n LR pixels, and A^T (A A^T)^-1."""

    def __init__(self, n: int, scale: int) -> None:
        from scipy.linalg import cholesky_banded
        from scipy.sparse import csr_array

        weights, index = downscale_taps(n, scale)
        starts = np.arange(0, weights.size + 1, weights.shape[1])
        # Where the border mirrors, an index occurs twice in a row; products add them up.
        self._down = csr_array((weights.ravel(), index.ravel(), starts), shape=(n, n * scale))
        self._up = self._down.T.tocsr()
        gram = (self._down @ self._up).tocoo()
        upper = gram.col >= gram.row
        row, col, value = gram.row[upper], gram.col[upper], gram.data[upper]
        band = int((col - row).max())
        banded = np.zeros((band + 1, n))
        np.add.at(banded, (band + row - col, col), value)
        self._cholesky = cholesky_banded(banded)

    def down(self, x: np.ndarray, axis: int) -> np.ndarray:
        return _along(lambda y: self._down @ y, x, axis)

    def up(self, x: np.ndarray, axis: int) -> np.ndarray:
        from scipy.linalg import cho_solve_banded

        return _along(lambda y: self._up @ cho_solve_banded((self._cholesky, False), y), x, axis)


_axis = functools.lru_cache(maxsize=16)(_Axis)


def _along(function: Callable[[np.ndarray], np.ndarray], x: np.ndarray, axis: int) -> np.ndarray:
    """Apply a function of columns [n, any number] along an axis."""
    x = np.moveaxis(x, axis, 0)
    y = function(x.reshape(len(x), -1))
    return np.moveaxis(y.reshape(len(y), *x.shape[1:]), 0, axis)
