"""PSNR and SSIM of one image pair."""

from __future__ import annotations

import numpy as np

from flowsr_jax.extras import require
from flowsr_jax.metrics.color import FORWARD, OFFSET
from flowsr_jax.metrics.images import pair, to_uint8

__all__ = ["psnr", "ssim", "ssim_skimage", "to_uint8"]


def psnr(a, b, *, y: bool = False, crop: int = 0, eps: float = 0.0) -> float:
    """Return the peak signal-to-noise ratio in dB, peak 255 (uint8) or 1 (float): one number.

    10 log10(1 / (MSE + eps)), the MSE over all pixels and channels on the [0,1] scale.

    Args:
      a, b: images [H,W,3], [H,W,1] or [H,W]; uint8, or float in [0,1] (not clipped).
      y: compare the BT.601 luma (not rounded) of RGB images; the peak stays 255.
      crop: pixels removed from each side first.
      eps: added to the MSE; BasicSR's tensor variant has 1e-8, which caps at 80 dB.

    Returns:
      dB; infinity for identical images when eps is 0.

    Raises:
      ValueError: images that differ in shape, or are no images.

    Source: BasicSR calculate_psnr, calculate_psnr_pt; scikit-image's equals it.
    """
    if not eps >= 0:
        raise ValueError(f"eps = {eps!r} must be at least 0")
    a, b = prepare(a, b, y, crop)
    mse = np.mean(np.square(a - b)) / 255**2 + eps
    return float(-10 * np.log10(mse)) if mse > 0 else float("inf")


def ssim(a, b, *, y: bool = False, crop: int = 0) -> float:
    """Return the structural similarity of Wang et al. 2004 (MATLAB, BasicSR, IRN, the SR3 port).

    Gaussian 11x11 window of sigma 1.5, valid region only, mean over the channels.

    Args:
      a, b: images [H,W,3], [H,W,1] or [H,W]; uint8, or float in [0,1].
      y: compare the BT.601 luma (not rounded) of RGB images; the range stays 255.
      crop: pixels removed from each side first.

    Returns:
      a number in [-1, 1].

    Raises:
      ValueError: images that differ in shape, are no images, or are smaller than
        11 pixels a side after the crop.
    """
    a, b = prepare(a, b, y, crop)
    return _ssim(a, b, 11, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)


def ssim_skimage(a, b, *, y: bool = False, crop: int = 0) -> float:
    """Return the structural similarity with scikit-image's defaults, as SRFlow reports it.

    Uniform 7x7 window, sample covariance (N - 1); another number than `ssim`.
    Arguments, result and errors as `ssim`, but at least 7 pixels a side.

    Source: SRFlow Measure.py.
    """
    a, b = prepare(a, b, y, crop)
    return _ssim(a, b, 7)


def prepare(a, b, y: bool, crop: int):
    """Return both images as [H,W,C] grey levels, borders cropped; one channel, luma, with y."""
    a, b = pair(a, b, crop)
    if y:
        if a.shape[2] != 3:
            raise ValueError(f"y=True needs RGB images, got {a.shape[2]} channel")
        a, b = (x @ FORWARD[:, :1] / 255 + OFFSET[0] for x in (a, b))
    return a, b


def _ssim(a, b, window, **options):
    require("skimage")
    from skimage.metrics import structural_similarity  # a slow import: only when used

    if min(a.shape[:2]) < window:
        raise ValueError(
            f"images of {a.shape[0]}x{a.shape[1]} pixels are smaller than the "
            f"{window}x{window} window of this SSIM"
        )
    return float(structural_similarity(a, b, data_range=255, channel_axis=2, **options))
