"""GMSD: gradient magnitude similarity deviation (Xue, Zhang, Mou and Bovik, TIP 2014)."""

import numpy as np

from flowsr_jax import Metric
from flowsr_jax.metrics import rgb_to_y

T = 170.0  # section III.A, for grey levels 0..255


def gmsd(image: np.ndarray, hr: np.ndarray) -> float:
    """Return the deviation of the similarity of gradients, 0 for equal images.

    Args:
      image, hr: uint8 [H,W,3], at least 8 pixels a side; their BT.601 luma is compared.
    """
    a, b = (_magnitude(_halved(rgb_to_y(x))) for x in (image, hr))
    return float(np.std((2 * a * b + T) / (a * a + b * b + T)))


def _halved(y: np.ndarray) -> np.ndarray:
    """Means of 2x2 pixels at every second place."""
    h, w = (n // 2 * 2 for n in y.shape)
    return y[:h, :w].reshape(h // 2, 2, w // 2, 2).mean(axis=(1, 3))


def _magnitude(y: np.ndarray) -> np.ndarray:
    """Magnitude of the Prewitt gradient (means of 3), without the border (the paper pads it)."""
    sums = [sum(np.roll(y, shift, axis) for shift in (-1, 0, 1)) / 3 for axis in (0, 1)]
    rows = np.roll(sums[1], 1, 0) - np.roll(sums[1], -1, 0)
    columns = np.roll(sums[0], 1, 1) - np.roll(sums[0], -1, 1)
    return np.hypot(rows, columns)[1:-1, 1:-1]


GMSD = Metric("GMSD", 4, gmsd, higher=False)
