"""Blur kernels of the blind super-resolution pipelines: NumPy float64, summing to 1.

Anisotropic kernels take the deviations along the two axes of an ellipse and its rotation;
without `sigma_y` they are isotropic.  The source of all of them is BasicSR's
data/degradations.py (Real-ESRGAN, Wang et al. 2021, section 3).
"""

from __future__ import annotations

import numpy as np

from flowsr_jax.math.arrays import check_values, namespace


def gaussian_kernel(
    size: int, sigma_x: float, sigma_y: float | None = None, theta: float = 0.0
) -> np.ndarray:
    """Return a Gaussian, exp(-Q/2), where Q = v^T Sigma^-1 v.

    Args:
      size: side, odd.
      sigma_x, sigma_y: deviations in pixels along the ellipse's axes, above 0.
      theta: rotation of the ellipse in radians.

    Returns:
      float64 [size,size].

    Raises:
      ValueError: an even size or a deviation that is not above 0.
    """
    return _normalised(np.exp(-0.5 * _quadratic(size, sigma_x, sigma_y, theta)))


def generalized_kernel(
    size: int, sigma_x: float, sigma_y: float | None = None, theta: float = 0.0, *, beta: float
) -> np.ndarray:
    """Return a generalised Gaussian, exp(-Q^beta / 2), with beta > 0 (else as `gaussian_kernel`).

    Source: Pascal et al. 2013; beta < 1 has heavy tails, beta > 1 a flat top.
    """
    check_values("beta", beta, 0, np.inf, ends=False)
    return _normalised(np.exp(-0.5 * _quadratic(size, sigma_x, sigma_y, theta) ** beta))


def plateau_kernel(
    size: int, sigma_x: float, sigma_y: float | None = None, theta: float = 0.0, *, beta: float
) -> np.ndarray:
    """Return a plateau-shaped kernel, 1 / (Q^beta + 1), beta > 0 (else as `gaussian_kernel`)."""
    check_values("beta", beta, 0, np.inf, ends=False)
    return _normalised(1 / (_quadratic(size, sigma_x, sigma_y, theta) ** beta + 1))


def sinc_kernel(size: int, cutoff: float, pad_to: int = 0) -> np.ndarray:
    """Return a circular low-pass filter, which rings as sharpened or compressed images do.

    Args:
      size: side, odd.
      cutoff: frequency w in radians per pixel, 0 < w <= pi.
      pad_to: side of the result, odd; the border is filled with zeros.

    Returns:
      float64 [size,size], or [pad_to,pad_to] if that is larger: w J1(w r) / (2 pi r).

    Raises:
      ValueError: an even side, or a cut-off outside its range.
    """
    from scipy.special import j1

    check_values("cutoff", cutoff, 1e-6, np.pi)
    x, y = _grid(size)
    r = np.hypot(x, y)
    center = size // 2
    r[center, center] = 1  # the limit at r = 0 is set below
    kernel = cutoff * j1(cutoff * r) / (2 * np.pi * r)
    kernel[center, center] = cutoff**2 / (4 * np.pi)
    kernel = _normalised(kernel)
    if pad_to > size:
        _grid(pad_to)
        kernel = np.pad(kernel, (pad_to - size) // 2)
    return kernel


def gaussian_window(size: int, sigma):
    """Return the 1-D Gaussian window of a separable blur.

    Args:
      size: taps, odd.
      sigma: deviation in pixels, a number or an array [...], above 0; may be traced.

    Returns:
      [...,size], summing to 1.  (CDM's conditioning blur takes 3 taps, sigma 0.4..0.6.)

    Raises:
      ValueError: an even size or a deviation that is not above 0.
    """
    check_values("sigma", sigma, 0, np.inf, ends=False)
    xp = namespace(sigma)
    taps = np.exp if xp is np else xp.exp
    window = taps(-0.5 * (_line(size) / xp.asarray(sigma)[..., None]) ** 2)
    return window / window.sum(axis=-1, keepdims=True)


def _line(size):
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1 or not size % 2:
        raise ValueError(f"the size of a kernel must be an odd whole number, got {size!r}")
    return np.arange(size) - size // 2


def _grid(size):
    line = _line(size)
    return np.meshgrid(line, line)


def _quadratic(size, sigma_x, sigma_y, theta):
    """Return Q(x,y) = v^T Sigma^-1 v on the grid of a kernel; x counts columns."""
    sigma_y = sigma_x if sigma_y is None else sigma_y
    for name, sigma in (("sigma_x", sigma_x), ("sigma_y", sigma_y)):
        check_values(name, sigma, 0, np.inf, ends=False)
    x, y = _grid(size)
    cos, sin = np.cos(theta), np.sin(theta)
    along, across = cos * x + sin * y, cos * y - sin * x
    return (along / sigma_x) ** 2 + (across / sigma_y) ** 2


def _normalised(kernel):
    return kernel / kernel.sum()
