"""Filtering of images, for NumPy and JAX arrays: blur, sharpening, conditioning blur.

Borders are reflected without repeating the edge pixel, as OpenCV and the published
pipelines do.  Images are floating, [H,W,C] or [B,H,W,C].
"""

from __future__ import annotations

import numpy as np

from flowsr_jax.data.degradations.kernels import gaussian_kernel, gaussian_window
from flowsr_jax.math.arrays import check_images, check_per_image, namespace


def filter2d(x, k):
    """Return images correlated with a kernel (not flipped), the same for all channels.

    Works in the frequency domain, whose cost does not depend on the kernel's size.

    Args:
      x: floats, [H,W,C] or [B,H,W,C].
      k: [kh,kw], or one kernel per image [B,kh,kw]; odd sides.

    Returns:
      array like x.

    Raises:
      ValueError: another shape or dtype, or a kernel with an even side.

    Source: BasicSR utils/img_process_util.py.
    """
    import scipy.fft

    check_images(x)
    shape = np.shape(k)
    batched = len(shape) == 3 and x.ndim == 4 and shape[0] == x.shape[0]
    if not (len(shape) == 2 or batched) or shape[-2] % 2 == 0 or shape[-1] % 2 == 0:
        raise ValueError(
            f"k must be [kh,kw], or [B,kh,kw] for B images, with odd sides; got {shape} for x of "
            f"shape {x.shape}"
        )
    xp = namespace(x, k)
    height, width = x.shape[-3:-1]
    kh, kw = shape[-2:]
    margin = [(0, 0)] * (x.ndim - 3) + [(kh // 2,) * 2, (kw // 2,) * 2, (0, 0)]
    padded = xp.pad(x, margin, mode="reflect")
    # Large enough that only the part which is cut away wraps around.
    size = [scipy.fft.next_fast_len(n, real=True) for n in padded.shape[-3:-1]]
    flipped = xp.asarray(k, x.dtype)[..., ::-1, ::-1, None]
    fft, axes = (scipy.fft if xp is np else xp.fft), (-3, -2)  # scipy's is faster than NumPy's
    spectrum = fft.rfft2(padded, size, axes) * fft.rfft2(flipped, size, axes)
    out = fft.irfft2(spectrum, size, axes)
    return out[..., kh - 1 : kh - 1 + height, kw - 1 : kw - 1 + width, :]


def usm_sharp(x, amount: float = 0.5, size: int = 51, threshold: float = 10.0):
    """Return images after unsharp masking, only where the detail is strong (soft mask).

    Args:
      x: floats in [0,1], [H,W,C] or [B,H,W,C].
      amount: share of the detail (image minus blur) that is added.
      size: side of the Gaussian, odd; its deviation is OpenCV's automatic one,
        0.3 ((size - 1) / 2 - 1) + 0.8, which is 8 pixels for 51.
      threshold: detail in 8-bit levels above which a pixel is sharpened.

    Returns:
      array like x; clipped to [0,1] where it is sharpened.

    Raises:
      ValueError: another shape or dtype, or an even size.

    Source: BasicSR utils/img_process_util.py, USMSharp (Real-ESRGAN's targets).
    """
    xp = namespace(x)
    kernel = gaussian_kernel(size, 0.3 * ((size - 1) * 0.5 - 1) + 0.8)
    detail = x - filter2d(x, kernel)
    mask = (xp.abs(detail) * 255 > threshold).astype(x.dtype)
    mask = filter2d(mask, kernel)
    return mask * xp.clip(x + amount * detail, 0, 1) + (1 - mask) * x


def cond_blur(x, sigma, size: int = 3):
    """Blur the conditioning image of a cascade's training examples.

    CDM's recipe for the 128 and 256 px stages: half of the examples, 3 taps, sigma uniform
    in 0.4..0.6, none when sampling.  (The choice of examples is the caller's.)

    Args:
      x: floats, [H,W,C] or [B,H,W,C].
      sigma: deviation in pixels above 0, one number or one per image [B]; may be traced.
      size: taps, odd.

    Returns:
      array like x.

    Raises:
      ValueError: another shape or dtype, an even size, a deviation that is not above 0.

    Source: Ho et al. 2021 (CDM), numbers as its reimplementations give them; SR3 blurs too
    (its parameters are not printed).
    """
    check_images(x)
    check_per_image("sigma", sigma, x)
    xp = namespace(x, sigma)
    window = xp.asarray(gaussian_window(size, sigma), x.dtype)
    if window.ndim > 1:
        window = window[:, None, None, None, :]
    for axis in (x.ndim - 3, x.ndim - 2):
        margin = [(0, 0)] * x.ndim
        margin[axis] = (size // 2, size // 2)
        padded = xp.moveaxis(xp.pad(x, margin, mode="reflect"), axis, -1)
        n = x.shape[axis]
        taps = (padded[..., i : i + n] for i in range(size))
        x = xp.moveaxis(sum(window[..., i] * tap for i, tap in enumerate(taps)), -1, axis)
    return x
