"""Multi-scale structural similarity (Wang, Simoncelli, Bovik 2003)."""

from __future__ import annotations

import numpy as np

from flowsr_jax.metrics.basic import prepare

__all__ = ["ms_ssim"]

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SIGMA, RADIUS = 1.5, 5
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
MINIMUM = 2 * RADIUS * 2 ** (len(WEIGHTS) - 1) + 1


def ms_ssim(a, b, *, y: bool = False, crop: int = 0) -> float:
    """Return the multi-scale structural similarity over five scales, mean over the channels.

    Per channel the product of relu(mean contrast-structure)^w of the four finer scales and
    relu(mean SSIM)^w of the coarsest; 11x11 Gaussian window of sigma 1.5, valid region.
    Images are halved by 2x2 means; when a side is odd, one row and one column are repeated
    at the top and left first (as piq does).

    Args:
      a, b: images [H,W,3], [H,W,1] or [H,W]; uint8, or float in [0,1].
      y: compare the BT.601 luma (not rounded) of RGB images; the range stays 255.
      crop: pixels removed from each side first.

    Returns:
      a number in [0, 1].

    Raises:
      ValueError: images that differ in shape, are no images, or are smaller than
        161 pixels a side after the crop.

    Source: piq 0.8 multi_scale_ssim, equal to it.
    """
    a, b = prepare(a, b, y, crop)
    if min(a.shape[:2]) < MINIMUM:
        raise ValueError(
            f"images of {a.shape[0]}x{a.shape[1]} pixels are too small for the five scales of "
            f"MS-SSIM: at least {MINIMUM} pixels a side"
        )
    value = 1.0
    for scale, weight in enumerate(WEIGHTS):
        if scale:
            a, b = _halve(a), _halve(b)
        contrast, similarity = _moments(a, b)
        term = similarity if scale == len(WEIGHTS) - 1 else contrast
        value = value * np.maximum(term, 0) ** weight
    return float(np.mean(value))


def _moments(a, b):
    """Return the means over the valid region, per channel: (contrast-structure, SSIM)."""
    mean_a, mean_b = _blur(a), _blur(b)
    variances = _blur(a * a) - mean_a**2 + _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    contrast = (2 * covariance + C2) / (variances + C2)
    luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    return contrast.mean(axis=(0, 1)), (luminance * contrast).mean(axis=(0, 1))


def _blur(x):
    from scipy.ndimage import gaussian_filter  # a slow import: only when used

    blurred = gaussian_filter(x, SIGMA, radius=RADIUS, axes=(0, 1))
    return blurred[RADIUS:-RADIUS, RADIUS:-RADIUS]


def _halve(x):
    height, width = x.shape[:2]
    if height % 2 or width % 2:
        x = np.pad(x, ((1, 0), (1, 0), (0, 0)), mode="edge")
        height, width = height + 1, width + 1
    x = x[: height // 2 * 2, : width // 2 * 2]
    return (x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4
