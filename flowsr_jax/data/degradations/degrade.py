"""From an HR image to the pair that a model trains on, on the host."""

from __future__ import annotations

import numpy as np

from flowsr_jax.config import ConfigError
from flowsr_jax.data.degradations.config import DegradationConfig
from flowsr_jax.data.degradations.filtering import filter2d, usm_sharp
from flowsr_jax.data.degradations.kernels import gaussian_kernel
from flowsr_jax.data.degradations.noise import add_gaussian_noise
from flowsr_jax.data.degradations.palette import palette_source
from flowsr_jax.data.degradations.second_order import (
    apply_second_order,
    draw_second_order,
    smallest_side,
)
from flowsr_jax.math.jpeg import jpeg_codec


def degrade_image(
    hr: np.ndarray, scale: int, config: DegradationConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Make the LR image of an HR image.

    Runs in the worker processes of a pipeline: NumPy only, no JAX device is touched.

    Args:
      hr: uint8 [H,W,3]; both sides multiples of `scale`.
      scale: HR size over LR size, a whole number.
      config: the degradation.
      rng: the only source of randomness; the same state gives the same images.

    Returns:
      (hr, lr): uint8 [H,W,3], sharpened if the degradation sharpens, and uint8
      [H/scale,W/scale,3].  For kind "bicubic", lr is exactly imresize(hr, 1/scale).

    Raises:
      ConfigError: a scale that is no whole number above 0.
      ValueError: another dtype or shape, or an image too small for the degradation.
    """
    hr = np.asarray(hr)
    if isinstance(scale, bool) or not isinstance(scale, int | np.integer) or scale < 1:
        raise ConfigError(f"scale = {scale!r} must be a whole number of at least 1")
    if hr.dtype != np.uint8 or hr.ndim != 3 or hr.shape[2] != 3 or hr.size == 0:
        raise ValueError(f"hr must be uint8 [H,W,3], got {hr.dtype} {hr.shape}")
    if hr.shape[0] % scale or hr.shape[1] % scale:
        raise ValueError(f"the sides of hr, {hr.shape[:2]}, must be multiples of scale = {scale}")
    if config.kind == "palette":
        if scale != 1:
            raise ConfigError(f"kind = 'palette' needs scale = 1, not {scale}")
        return hr, palette_source(hr, config.tasks[int(rng.integers(len(config.tasks)))], rng)
    if config.kind == "real_esrgan":
        return _real_esrgan(hr, int(scale), config.second_order, rng)
    return hr, _blur_noise_jpeg(hr, int(scale), config, rng)


def _blur_noise_jpeg(hr, scale, config, rng):
    """Blur, shrink, add noise, compress; what is off draws nothing and rounds nothing."""
    from flowsr_jax.math.resize import imresize

    x = hr
    sigma = rng.uniform(*config.blur_sigma) if any(config.blur_sigma) else 0.0
    if sigma > 0.1:  # narrower ones have no weight outside their centre
        x = filter2d(_floats(hr), gaussian_kernel(config.blur_size, sigma))
    lr = imresize(x, 1 / scale)
    if any(config.noise_sigma):
        sigma = rng.uniform(*config.noise_sigma)
        gray = rng.random() < config.noise_gray
        z = rng.standard_normal(lr.shape[:2] if gray else lr.shape, np.float32)
        lr = add_gaussian_noise(_floats(lr), z, sigma)
    lr = _rounded(lr)
    if config.jpeg_quality is not None:
        low, high = config.jpeg_quality
        lr = jpeg_codec(lr, int(rng.integers(low, high + 1)))
    return lr


def _real_esrgan(hr, scale, config, rng):
    least = smallest_side(scale, config)
    if min(hr.shape[:2]) < least:
        raise ValueError(
            f"hr of {hr.shape[0]}x{hr.shape[1]} pixels is too small for this degradation at scale "
            f"{scale}; both sides must be at least {least}"
        )
    x = _floats(hr)
    if config.sharpen:
        x = usm_sharp(x)
    lr = apply_second_order(x, scale, draw_second_order(rng, config), rng)
    return (_rounded(x) if config.sharpen else hr), _rounded(lr)


def _floats(image):
    return image if image.dtype == np.float32 else image.astype(np.float32) / np.float32(255)


def _rounded(image):
    if image.dtype == np.uint8:
        return image
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
