"""A number per pixel, shown as a colour."""

from __future__ import annotations

import numpy as np

# Seventeen evenly spaced colours of Matplotlib's "inferno" (CC0).
INFERNO = np.array(
    [
        (0, 0, 4), (11, 7, 36), (33, 12, 74), (60, 9, 101), (87, 16, 109), (112, 25, 110),
        (137, 34, 106), (163, 43, 97), (187, 55, 85), (209, 70, 68), (227, 89, 50),
        (241, 113, 30), (249, 141, 10), (252, 171, 15), (249, 202, 50), (242, 232, 101),
        (252, 255, 164),
    ],
    np.float64,
)  # fmt: skip
COLOURS = np.stack(
    [np.interp(np.arange(256) / 255, np.linspace(0, 1, len(INFERNO)), c) for c in INFERNO.T], axis=1
)
COLOURS = np.rint(COLOURS).astype(np.uint8)


def heat_map(values, top: float) -> np.ndarray:
    """Return colour values from black (0) over purple and orange to pale yellow (`top` and more).

    Args:
      values: real numbers of any shape.
      top: the value with the last colour, above 0.

    Returns:
      uint8, the shape of `values` and a last axis of 3.

    Raises:
      ValueError: `top` is not above 0.
    """
    if not top > 0:
        raise ValueError(f"top = {top!r} must be above 0")
    part = np.clip(np.asarray(values, np.float64) / top, 0, 1)
    return COLOURS[np.rint(255 * part).astype(np.uint8)]
