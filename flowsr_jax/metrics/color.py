"""BT.601 studio-swing YCbCr, as MATLAB's rgb2ycbcr and the super-resolution papers.

The result keeps the scale of the input: 0..255 for uint8, [0,1] for floats.
JPEG's YCbCr is another (full-range) matrix and is not this one.
"""

from __future__ import annotations

import numpy as np

from flowsr_jax.metrics.images import levels

# Grey levels out = RGB grey levels @ FORWARD / 255 + OFFSET.
FORWARD = np.array(
    [[65.481, -37.797, 112.0], [128.553, -74.203, -93.786], [24.966, 112.0, -18.214]]
)
OFFSET = np.array([16.0, 128.0, 128.0])
# The published rounded inverse (BasicSR, IRN), not the exact inverse of FORWARD.
BACKWARD = 255 * np.array(
    [
        [0.00456621, 0.00456621, 0.00456621],
        [0.0, -0.00153632, 0.00791071],
        [0.00625893, -0.00318811, 0.0],
    ]
)
BACKWARD_OFFSET = np.array([-222.921, 135.576, -276.836])


def rgb_to_y(rgb) -> np.ndarray:
    """Return the luma Y of an RGB image, never rounded.

    Args:
      rgb: [...,3]; uint8, or float in [0,1].

    Returns:
      float64 [...]: 16..235 for uint8 input, 16/255..235/255 for float input.

    Raises:
      ValueError: another dtype, range or channel count.

    Source: BasicSR color_util.rgb2ycbcr(y_only=True); ITU-R BT.601.
    """
    grey = _channels(rgb, "rgb") @ FORWARD[:, 0] / 255 + OFFSET[0]
    return grey if np.asarray(rgb).dtype == np.uint8 else grey / 255


def rgb_to_ycbcr(rgb) -> np.ndarray:
    """Convert RGB to YCbCr.

    Args:
      rgb: [...,3]; uint8, or float in [0,1].

    Returns:
      [...,3]: uint8 (rounded) for uint8 input; float64 in [0,1], not rounded, for floats.

    Raises:
      ValueError: another dtype, range or channel count.

    Source: BasicSR color_util.rgb2ycbcr.
    """
    return _same_kind(_channels(rgb, "rgb") @ FORWARD / 255 + OFFSET, rgb)


def ycbcr_to_rgb(ycbcr) -> np.ndarray:
    """Convert YCbCr to RGB with the published rounded inverse matrix.

    Args:
      ycbcr: [...,3]; uint8, or float in [0,1].

    Returns:
      [...,3]: uint8, rounded and clipped, for uint8 input (the published code wraps
      modulo 256 on overshoot; this one does not); float64, neither clipped nor
      rounded, for floats.

    Raises:
      ValueError: another dtype, range or channel count.

    Source: BasicSR color_util.ycbcr2rgb.
    """
    return _same_kind(_channels(ycbcr, "ycbcr") @ BACKWARD + BACKWARD_OFFSET, ycbcr)


def _channels(x, name):
    x = levels(x, name)
    if x.ndim < 1 or x.shape[-1] != 3:
        raise ValueError(f"{name} must have 3 channels on its last axis, got shape {x.shape}")
    return x


def _same_kind(grey, source):
    if np.asarray(source).dtype == np.uint8:
        return np.clip(np.rint(grey), 0, 255).astype(np.uint8)
    return grey / 255
