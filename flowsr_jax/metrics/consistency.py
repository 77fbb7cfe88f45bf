"""Does the result fit its input: LR-PSNR and consistency."""

from __future__ import annotations

import numpy as np

from flowsr_jax.math.resize import imresize
from flowsr_jax.metrics.basic import psnr
from flowsr_jax.metrics.images import levels, to_uint8


def lr_psnr(sr, ref, scale: int, *, uint8: bool = True) -> float:
    """Return the PSNR between the downsampled result and the low-resolution input.

    Two protocols, told apart by the size of `ref`:
      - `ref` is the given LR, and `sr` is exactly `scale` times its size: the result is
        downsampled and compared with it (SRFlow).
      - `ref` is the HR image: it is cropped to multiples of 8, the result is cut to the
        same size, and both are downsampled (NTIRE 2021/22).

    Args:
      sr, ref: RGB [H,W,3] or grey [H,W]; uint8 or float in [0,1].
      scale: whole number, at least 2.
      uint8: both images are first rounded to 8 bits and so is every pass of the
        downsampling, as both protocols do; False computes on floats with peak 1.

    Returns:
      dB, infinity for identical low-resolution images.

    Raises:
      ValueError: sizes that fit neither protocol.

    Source: SRFlow test.py; NTIRE 2021/22 measure.py.
    """
    small, reference = _low_resolution(sr, ref, scale, uint8)
    if uint8:
        return psnr(small, reference)
    mse = np.mean(np.square(small - reference))
    return float(-10 * np.log10(mse)) if mse > 0 else float("inf")


def consistency_mse(sr, ref, scale: int, uint8: bool = False) -> float:
    """Return the mean squared error between LR images, in units of 1e-5 on [0,1].

    Args:
      sr, ref, scale: as `lr_psnr` (the same two protocols).
      uint8: round to 8 bits as `lr_psnr` does; False computes on floats.

    Returns:
      MSE * 1e5.

    Raises:
      ValueError: sizes that fit neither protocol.

    Source: SR3 paper, "consistency" (its range and rounding are not stated).
    """
    small, reference = _low_resolution(sr, ref, scale, uint8)
    if uint8:
        small, reference = (x.astype(np.float64) / 255 for x in (small, reference))
    return float(np.mean(np.square(small - reference)) * 1e5)


def _low_resolution(sr, ref, scale, uint8):
    """Return (downsampled sr, low-resolution reference): both uint8 or both [0,1] floats."""
    if isinstance(scale, bool) or scale != int(scale) or scale < 2:
        raise ValueError(f"scale = {scale!r} must be a whole number, at least 2")
    scale = int(scale)
    sr, ref = (to_uint8(x) if uint8 else levels(x, n) / 255 for x, n in ((sr, "sr"), (ref, "ref")))
    for name, x in (("sr", sr), ("ref", ref)):
        if x.ndim not in (2, 3):
            raise ValueError(f"{name} must be one image [H,W,C] or [H,W], got shape {x.shape}")
    (h, w), (rh, rw) = sr.shape[:2], ref.shape[:2]
    if sr.shape[2:] == ref.shape[2:]:
        if (h, w) == (rh * scale, rw * scale):
            return imresize(sr, 1 / scale), ref
        ch, cw = rh // 8 * 8, rw // 8 * 8
        # An SR made from a padded or cropped LR differs from the HR by less than 8 pixels.
        if min(ch, cw) > 0 and ch <= h < rh + 8 and cw <= w < rw + 8:
            return imresize(sr[:ch, :cw], 1 / scale), imresize(ref[:ch, :cw], 1 / scale)
    raise ValueError(
        f"ref of shape {ref.shape} fits sr of shape {sr.shape} neither as its LR "
        f"(sr must be {scale} times it) nor as its HR (sr must cover it, cropped to multiples of 8)"
    )
