"""Colours where nothing is seen: filled from what is seen, so that they cannot bleed in."""

from __future__ import annotations

import numpy as np

NEAR = 4  # pixels from a visible one that are filled by their neighbours' mean


def fill_hidden(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Replace colours under alpha 0 by those of the nearest visible pixels.

    Programs store anything there (often black or white), and enlarging or shrinking the
    colours apart from alpha would draw it into the visible edge.  Close to visible pixels
    the mean of visible neighbours is taken, weighted by alpha; farther away the mean of
    growing squares.

    Args:
      pixels: [H,W] or [H,W,3], any real dtype, not multiplied by alpha.
      alpha: [H,W], 0 where nothing is seen.

    Returns:
      an array like `pixels`, the same where alpha is above 0.  Without any visible pixel,
      or any hidden one, `pixels` itself.
    """
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return pixels
    weight = (alpha / np.float32(alpha.max())).astype(np.float32)[..., None]
    values = pixels.reshape(*alpha.shape, -1) * weight
    for _ in range(NEAR):
        empty = weight[..., 0] == 0
        sums, total = (_around(x) for x in (values, weight))
        known = empty & (total[..., 0] > 0)
        values[known] = sums[known] / total[known]
        weight[known] = 1.0
    filled = _mean(values, weight).reshape(pixels.shape)
    if np.issubdtype(pixels.dtype, np.integer):
        filled = np.rint(filled)
    return np.where(hidden if pixels.ndim == 2 else hidden[..., None], filled, pixels).astype(
        pixels.dtype
    )


def _around(x: np.ndarray) -> np.ndarray:
    """Return the sums of squares of 3x3."""
    x = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    x = x[:-2] + x[1:-1] + x[2:]
    return x[:, :-2] + x[:, 1:-1] + x[:, 2:]


def _mean(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return values / weight; where the weight is 0, those of the square twice as large."""
    known = weight > 0
    out = values / np.where(known, weight, 1)
    if known.all():
        return out
    height, width = weight.shape[:2]
    even = ((0, height % 2), (0, width % 2), (0, 0))
    coarse = _mean(*(_halved(np.pad(x, even)) for x in (values, weight)))
    larger = coarse.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
    return np.where(known, out, larger)


def _halved(x: np.ndarray) -> np.ndarray:
    return x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]
