"""How LR images are made: the choice of a degradation and its numbers."""

from __future__ import annotations

import dataclasses
import math

from flowsr_jax.config import ConfigError, choice

KINDS = ("bicubic", "blur_noise_jpeg", "real_esrgan", "palette")
TASKS = ("colorize", "inpaint", "uncrop", "jpeg")
# Kinds of blur kernels, in the order of StageConfig.kernel_probabilities.
KERNELS = (
    "iso",
    "aniso",
    "generalized_iso",
    "generalized_aniso",
    "plateau_iso",
    "plateau_aniso",
)


def _number(value, whole=False) -> bool:
    kinds = int if whole else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)


def _probability(field, value):
    if not _number(value) or not 0 <= value <= 1:
        raise ConfigError(f"{field} = {value!r} must be a probability, 0..1")


def _shares(field, values, count):
    fine = isinstance(values, tuple) and len(values) == count
    fine = fine and all(_number(v) and v >= 0 for v in values)
    if not fine or abs(sum(values) - 1) > 1e-6:
        raise ConfigError(f"{field} = {values!r} must be {count} probabilities that sum to 1")


def _range(field, value, low, high, *, whole=False, around=None):
    fine = isinstance(value, tuple) and len(value) == 2
    fine = fine and all(_number(v, whole) and low <= v <= high for v in value)
    fine = fine and value[0] <= value[1]
    if not fine or (around is not None and not value[0] <= around <= value[1]):
        kind = "whole numbers" if whole else "numbers"
        middle = "" if around is None else f" with {around} between them"
        raise ConfigError(
            f"{field} = {value!r} must be two {kind} (lowest, highest) in {low}..{high}{middle}"
        )


def _odd_range(field, value):
    _range(field, value, 1, 99, whole=True)
    if not value[0] % 2 or not value[1] % 2:
        raise ConfigError(f"{field} = {value!r} must be odd")


@dataclasses.dataclass(frozen=True)
class StageConfig:
    """One stage of the second-order degradation; the defaults are Real-ESRGAN's first stage.

    Ranges are (lowest, highest), drawn uniformly.

    Attributes:
      blur_probability: of blurring at all.
      kernel_sizes: sides of the kernel; odd ones are drawn.
      sinc_probability: of a sinc kernel instead of one of the six kinds of `KERNELS`.
      kernel_probabilities: of the six kinds; they sum to 1.
      blur_sigma: deviations in pixels.
      beta_generalized: exponent of generalised Gaussians; half of the draws fall below 1.
      beta_plateau: exponent of plateau kernels, likewise.
      resize_probabilities: of enlarging, shrinking and keeping the size; they sum to 1.
      resize_factors: the smallest and the largest factor, with 1 between them.
      gaussian_probability: of Gaussian noise; else the noise is Poisson's.
      noise_sigma: deviations of Gaussian noise in 8-bit levels.
      poisson_scale: factors of Poisson noise.
      gray_probability: of the same noise in all channels.
      jpeg_quality: qualities of DiffJPEG, above 0 and below 100; need not be whole.
    """

    blur_probability: float = 1.0
    kernel_sizes: tuple[int, int] = (7, 21)
    sinc_probability: float = 0.1
    kernel_probabilities: tuple[float, ...] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    blur_sigma: tuple[float, float] = (0.2, 3.0)
    beta_generalized: tuple[float, float] = (0.5, 4.0)
    beta_plateau: tuple[float, float] = (1.0, 2.0)
    resize_probabilities: tuple[float, float, float] = (0.2, 0.7, 0.1)
    resize_factors: tuple[float, float] = (0.15, 1.5)
    gaussian_probability: float = 0.5
    noise_sigma: tuple[float, float] = (1.0, 30.0)
    poisson_scale: tuple[float, float] = (0.05, 3.0)
    gray_probability: float = 0.4
    jpeg_quality: tuple[float, float] = (30.0, 95.0)

    def __post_init__(self):
        for field in (
            "blur_probability",
            "sinc_probability",
            "gaussian_probability",
            "gray_probability",
        ):
            _probability(field, getattr(self, field))
        _odd_range("kernel_sizes", self.kernel_sizes)
        _shares("kernel_probabilities", self.kernel_probabilities, len(KERNELS))
        _shares("resize_probabilities", self.resize_probabilities, 3)
        _range("blur_sigma", self.blur_sigma, 0.1, 100)
        _range("beta_generalized", self.beta_generalized, 0.1, 100, around=1)
        _range("beta_plateau", self.beta_plateau, 0.1, 100, around=1)
        _range("resize_factors", self.resize_factors, 0.01, 100, around=1)
        _range("noise_sigma", self.noise_sigma, 0, 255)
        _range("poisson_scale", self.poisson_scale, 0, 100)
        _range("jpeg_quality", self.jpeg_quality, 1, 99)


@dataclasses.dataclass(frozen=True)
class SecondStageConfig(StageConfig):
    """The second stage: as `StageConfig`, with Real-ESRGAN's numbers for it."""

    blur_probability: float = 0.8
    blur_sigma: tuple[float, float] = (0.2, 1.5)
    resize_probabilities: tuple[float, float, float] = (0.3, 0.4, 0.3)
    resize_factors: tuple[float, float] = (0.3, 1.2)
    noise_sigma: tuple[float, float] = (1.0, 25.0)
    poisson_scale: tuple[float, float] = (0.05, 2.5)


@dataclasses.dataclass(frozen=True)
class SecondOrderConfig:
    """The second-order degradation; the defaults are Real-ESRGAN's x4plus options.

    Attributes:
      first, second: the two stages.
      final_sinc_probability: of the sinc filter after the last resize.
      final_sinc_sizes: sides of its kernel; odd ones are drawn.
      sharpen: sharpen the HR image (USM) first; it is the training target as well.
    """

    first: StageConfig = StageConfig()
    second: SecondStageConfig = SecondStageConfig()
    final_sinc_probability: float = 0.8
    final_sinc_sizes: tuple[int, int] = (7, 21)
    sharpen: bool = True

    def __post_init__(self):
        for field in ("first", "second"):
            if not isinstance(getattr(self, field), StageConfig):
                raise ConfigError(f"{field} = {getattr(self, field)!r} must be a StageConfig")
        _probability("final_sinc_probability", self.final_sinc_probability)
        _odd_range("final_sinc_sizes", self.final_sinc_sizes)


@dataclasses.dataclass(frozen=True)
class DegradationConfig:
    """How an LR image is made from an HR image.

    Attributes:
      kind: "bicubic" is MATLAB's, nothing else; "blur_noise_jpeg" is blur, MATLAB's
        bicubic, noise and JPEG, each off by default; "real_esrgan" is `second_order`;
        "palette" is one of `tasks` at scale 1 (see palette.py).
      blur_size: side of the isotropic Gaussian kernel, odd.
      blur_sigma: (lowest, highest) deviation in HR pixels; (0, 0) is off.
      noise_sigma: (lowest, highest) deviation in 8-bit levels; (0, 0) is off.
      noise_gray: probability of the same noise in all channels.
      jpeg_quality: (lowest, highest) quality of the real codec, whole numbers; None is off.
      second_order: numbers of "real_esrgan".
      tasks: of "palette", some of `TASKS`; each patch gets one of them, drawn uniformly.
    """

    kind: str = "bicubic"
    blur_size: int = 21
    blur_sigma: tuple[float, float] = (0.0, 0.0)
    noise_sigma: tuple[float, float] = (0.0, 0.0)
    noise_gray: float = 0.0
    jpeg_quality: tuple[int, int] | None = None
    second_order: SecondOrderConfig = SecondOrderConfig()
    tasks: tuple[str, ...] = ()

    def __post_init__(self):
        choice("kind", self.kind, KINDS)
        for task in self.tasks:
            choice("tasks", task, TASKS)
        if self.kind == "palette" and not self.tasks:
            raise ConfigError(f"kind = 'palette' needs tasks, some of {TASKS}")
        _odd_range("blur_size", (self.blur_size, self.blur_size))
        _range("blur_sigma", self.blur_sigma, 0, 100)
        _range("noise_sigma", self.noise_sigma, 0, 255)
        _probability("noise_gray", self.noise_gray)
        if self.jpeg_quality is not None:
            _range("jpeg_quality", self.jpeg_quality, 1, 100, whole=True)
        if not isinstance(self.second_order, SecondOrderConfig):
            raise ConfigError(f"second_order = {self.second_order!r} must be a SecondOrderConfig")
        # A number that its kind does not read is a mistake, not a wish.
        readers = {"second_order": "real_esrgan", "tasks": "palette"}
        for field in dataclasses.fields(self):
            reader = readers.get(field.name, "blur_noise_jpeg")
            value = getattr(self, field.name)
            if field.name != "kind" and self.kind != reader and value != field.default:
                raise ConfigError(
                    f"{field.name} = {value!r} needs kind = {reader!r}, not {self.kind!r}"
                )

    @property
    def deterministic(self) -> bool:
        """Whether the LR image depends on the HR image alone."""
        return self.kind == "bicubic"

    @property
    def whole(self) -> bool:
        """Whether it degrades the image that is asked for, not one with its surroundings."""
        return self.kind == "palette"
