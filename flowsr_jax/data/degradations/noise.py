"""Gaussian and Poisson noise of 8-bit images, for NumPy and JAX arrays.

The random numbers are arguments, so that one code serves a NumPy generator on the host and
JAX keys in programs.
"""

from __future__ import annotations

import numpy as np

from flowsr_jax.math.arrays import check_images, namespace, per_image

GRAY = (0.2989, 0.587, 0.114)


def add_gaussian_noise(x, z, sigma):
    """Add Gaussian noise and clip to [0,1].

    Args:
      x: floats in [0,1], [H,W,C] or [B,H,W,C].
      z: standard normal draws of the shape of x; without the channel axis (grey noise)
        all channels get the same noise.
      sigma: deviation in 8-bit levels, one number or one per image [B].

    Returns:
      array like x, not rounded.

    Raises:
      ValueError: shapes or a dtype that do not fit.

    Source: BasicSR data/degradations.py.
    """
    check_images(x)
    z, _ = _noise_like("z", z, x)
    return namespace(x, z).clip(x + z * (per_image("sigma", sigma, x) / 255), 0, 1)


def poisson_rate(x, gray: bool = False, vals=None):
    """Return the rates from which `add_poisson_noise` wants its counts.

    Args:
      x: floats in [0,1], [H,W,C] or [B,H,W,C]; three channels for grey noise.
      gray: rates of the grey image, without the channel axis.
      vals: photons per unit of brightness, one number or one per image; None counts each
        image's distinct 8-bit values and takes the next power of two, as published
        (NumPy arrays only), and 256 for JAX arrays.

    Returns:
      (rate, vals): float32 rates [...,H,W,C] or [...,H,W], and vals as used.

    Raises:
      ValueError: another shape or dtype.
    """
    check_images(x, channels=3 if gray else None)
    level = _levels(x, gray)
    if vals is None and isinstance(level, np.ndarray):
        images = level.reshape(len(level), -1) if x.ndim == 4 else level.reshape(1, -1)
        vals = np.array([2.0 ** np.ceil(np.log2(len(np.unique(image)))) for image in images])
        vals = vals if x.ndim == 4 else float(vals[0])
    elif vals is None:
        vals = 256.0
    scale = per_image("vals", vals, x)
    rate = level * (scale[..., 0] if gray and scale.ndim else scale)
    return rate.astype(np.float32), vals


def add_poisson_noise(x, counts, scale, vals=256.0):
    """Add Poisson (shot) noise and clip to [0,1].

    Args:
      x: floats in [0,1], [H,W,C] or [B,H,W,C].
      counts: Poisson draws at the rates of `poisson_rate`; without the channel axis all
        channels get the noise of the grey image.
      scale: factor of the noise, one number or one per image [B].
      vals: as `poisson_rate` returned it.

    Returns:
      array like x, not rounded.

    Raises:
      ValueError: shapes or a dtype that do not fit.

    Source: BasicSR data/degradations.py.
    """
    check_images(x)
    counts, gray = _noise_like("counts", counts, x)
    level = _levels(x, gray)
    noise = counts / per_image("vals", vals, x) - (level[..., None] if gray else level)
    return namespace(x, counts).clip(x + per_image("scale", scale, x) * noise, 0, 1)


def _levels(x, gray):
    """Return the image, or its grey image, rounded to 8 bits, in [0,1]."""
    if gray:
        x = sum(weight * x[..., i] for i, weight in enumerate(GRAY))
    xp = namespace(x)
    return xp.clip(xp.round(x * 255), 0, 255) / 255


def _noise_like(name, noise, x):
    """Return (noise broadcasting against x, whether it is grey)."""
    gray = np.shape(noise) == x.shape[:-1]
    if not gray and np.shape(noise) != x.shape:
        raise ValueError(
            f"{name} must have the shape of x, {x.shape}, or {x.shape[:-1]} for grey noise; got "
            f"{np.shape(noise)}"
        )
    noise = namespace(noise, x).asarray(noise, x.dtype)
    return (noise[..., None] if gray else noise), gray
