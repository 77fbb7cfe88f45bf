"""The second-order degradation of Real-ESRGAN, on the host.

First all parameters of an image are drawn (`draw_second_order`), then they are applied
(`apply_second_order`), so that what was drawn can be looked at, kept, or set by hand.

Source: Wang et al. 2021, section 3; Real-ESRGAN's realesrgan_dataset.py, realesrgan_model.py
and options/train_realesrgan_x4plus.yml.  There the resize factors and modes, and the choice
between Gaussian and Poisson noise, are drawn once per batch; here once per image.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from flowsr_jax.data.degradations import kernels
from flowsr_jax.data.degradations.config import KERNELS, SecondOrderConfig, StageConfig
from flowsr_jax.data.degradations.filtering import filter2d
from flowsr_jax.data.degradations.interpolate import MODES, torch_interpolate
from flowsr_jax.data.degradations.noise import (
    add_gaussian_noise,
    add_poisson_noise,
    poisson_rate,
)
from flowsr_jax.math.jpeg import diff_jpeg


class Kernel(NamedTuple):
    """A drawn blur kernel: a kind of `KERNELS` or "sinc", and the numbers it reads."""

    kind: str
    size: int
    sigma: tuple[float, float] = (0.0, 0.0)
    theta: float = 0.0
    beta: float = 1.0
    cutoff: float = 0.0

    def array(self) -> np.ndarray:
        """Return the kernel, float64 [size,size]."""
        if self.kind == "sinc":
            return kernels.sinc_kernel(self.size, self.cutoff)
        arguments = (self.size, *self.sigma, self.theta)
        if self.kind.startswith("generalized"):
            return kernels.generalized_kernel(*arguments, beta=self.beta)
        if self.kind.startswith("plateau"):
            return kernels.plateau_kernel(*arguments, beta=self.beta)
        return kernels.gaussian_kernel(*arguments)


class Stage(NamedTuple):
    """Drawn parameters of one stage; see `StageConfig` for the units."""

    kernel: Kernel | None
    factor: float
    mode: str
    noise: str  # "gaussian" or "poisson"
    strength: float  # sigma or scale of the noise
    gray: bool
    quality: float


class SecondOrder(NamedTuple):
    """Drawn parameters of one image."""

    first: Stage
    second: Stage
    sinc: Kernel | None
    jpeg_last: bool  # the second JPEG comes after the last resize and the sinc filter
    mode: str  # of the last resize


def draw_second_order(rng: np.random.Generator, config: SecondOrderConfig) -> SecondOrder:
    """Draw all parameters of one image (the noise itself is drawn when it is applied)."""
    first, second = _draw_stage(rng, config.first), _draw_stage(rng, config.second)
    sinc = None
    if rng.random() < config.final_sinc_probability:
        size = _odd(rng, config.final_sinc_sizes)
        sinc = Kernel("sinc", size, cutoff=rng.uniform(math.pi / 3, math.pi))
    return SecondOrder(first, second, sinc, bool(rng.random() < 0.5), _pick(rng, MODES))


def draw_kernel(rng: np.random.Generator, config: StageConfig) -> Kernel:
    """Draw the blur kernel of a stage."""
    size = _odd(rng, config.kernel_sizes)
    if rng.random() < config.sinc_probability:
        lowest = math.pi / 3 if size < 13 else math.pi / 5
        return Kernel("sinc", size, cutoff=rng.uniform(lowest, math.pi))
    kind = _pick(rng, KERNELS, config.kernel_probabilities)
    sigma_x, sigma_y = (rng.uniform(*config.blur_sigma) for _ in range(2))
    theta = rng.uniform(-math.pi, math.pi)
    if not kind.endswith("aniso"):
        sigma_y, theta = sigma_x, 0.0
    beta = 1.0
    if kind.startswith(("generalized", "plateau")):
        low, high = config.beta_plateau if kind.startswith("plateau") else config.beta_generalized
        beta = rng.uniform(low, 1) if rng.random() < 0.5 else rng.uniform(1, high)
    return Kernel(kind, size, (sigma_x, sigma_y), theta, beta)


def apply_second_order(
    x: np.ndarray, scale: int, drawn: SecondOrder, rng: np.random.Generator
) -> np.ndarray:
    """Degrade an image with drawn parameters.

    Args:
      x: the HR image, float32 [H,W,3] in [0,1], sharpened if wanted; H and W multiples of
        `scale`.
      scale: HR size over LR size.
      drawn: the parameters.
      rng: draws the noise.

    Returns:
      the LR image, float32 [H/scale,W/scale,3] in [0,1], not rounded to 8 bits.

    Raises:
      ValueError: another shape or dtype, or an image so small that a stage leaves nothing.
    """
    height, width = x.shape[0] // scale, x.shape[1] // scale
    first, second = drawn.first, drawn.second

    x = _blur(x, first.kernel)
    if first.factor != 1:
        x = torch_interpolate(x, scale=first.factor, mode=first.mode)
    x = _jpeg(_add_noise(x, first, rng), first.quality)

    x = _blur(x, second.kernel)
    size = (int(height * second.factor), int(width * second.factor))
    x = _add_noise(torch_interpolate(x, size, mode=second.mode), second, rng)
    if not drawn.jpeg_last:
        x = _jpeg(x, second.quality)
    x = _blur(torch_interpolate(x, (height, width), mode=drawn.mode), drawn.sinc)
    if drawn.jpeg_last:
        x = _jpeg(x, second.quality)
    return np.clip(x, 0, 1)


def smallest_side(scale: int, config: SecondOrderConfig) -> int:
    """Return the smallest HR side that no draw of the resize factors shrinks to nothing."""
    first, second = (stage.resize_factors[0] for stage in (config.first, config.second))
    return max(math.ceil(1 / first), scale * math.ceil(1 / second))


def _draw_stage(rng, config):
    kernel = draw_kernel(rng, config) if rng.random() < config.blur_probability else None
    low, high = config.resize_factors
    direction = _pick(rng, ("up", "down", "keep"), config.resize_probabilities)
    bounds = {"up": (1, high), "down": (low, 1), "keep": (1, 1)}[direction]
    factor, mode = rng.uniform(*bounds), _pick(rng, MODES)
    noise = "gaussian" if rng.random() < config.gaussian_probability else "poisson"
    strength = rng.uniform(*(config.noise_sigma if noise == "gaussian" else config.poisson_scale))
    gray = bool(rng.random() < config.gray_probability)
    return Stage(kernel, factor, mode, noise, strength, gray, rng.uniform(*config.jpeg_quality))


def _pick(rng, names, probabilities=None):
    if probabilities is None:
        return names[int(rng.integers(len(names)))]
    shares = np.asarray(probabilities)
    return names[int(rng.choice(len(names), p=shares / shares.sum()))]


def _odd(rng, bounds):
    low, high = bounds
    return low + 2 * int(rng.integers((high - low) // 2 + 1))


def _blur(x, kernel):
    return x if kernel is None else filter2d(x, kernel.array())


def _add_noise(x, stage, rng):
    if stage.noise == "gaussian":
        shape = x.shape[:-1] if stage.gray else x.shape
        return add_gaussian_noise(x, rng.standard_normal(shape, np.float32), stage.strength)
    rate, vals = poisson_rate(x, stage.gray)
    return add_poisson_noise(x, rng.poisson(rate), stage.strength, vals)


def _jpeg(x, quality):
    return diff_jpeg(np.clip(x, 0, 1), quality, rounding="hard")
