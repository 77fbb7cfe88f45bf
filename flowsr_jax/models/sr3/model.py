"""SR3's model: configuration, condition, and one evaluation of the network.

Exact numerics: ../shared/spec/sr3.md.  The defaults are the public 16 -> 128 model's.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from flowsr_jax.config import ConfigError, choice
from flowsr_jax.diffusion import process
from flowsr_jax.diffusion.samplers import SamplerConfig
from flowsr_jax.diffusion.schedules import (
    ScheduleConfig,
    gammas,
    timestep_of,
    warn_if_signal_remains,
)
from flowsr_jax.math.resize import imresize
from flowsr_jax.models.base import Params
from flowsr_jax.nets.unet import UNetConfig, apply_unet, init_unet


@dataclasses.dataclass(frozen=True)
class SR3Config:
    """Hyper-parameters of SR3 and DDPM.

    Attributes:
      scale: super-resolution factor; 1 takes a condition of the image's own size.
      unet: the network; `unet.conditioning` "time" is the DDPM variant, and
        `unet.cond_channels` 0 a model without a condition.
      prediction: what the network gives: "eps" (published), "x0" or "v".
      schedule: noise levels of training.
      sampler: the default chain of `sample`.
    """

    family: ClassVar[str] = "sr3"
    scale: int = 8
    unet: UNetConfig = UNetConfig()
    prediction: str = "eps"
    schedule: ScheduleConfig = ScheduleConfig()
    sampler: SamplerConfig = SamplerConfig()

    def __post_init__(self):
        choice("prediction", self.prediction, process.PREDICTIONS)
        if self.scale < 1:
            raise ConfigError(f"scale = {self.scale} must be at least 1")
        if self.unet.cond_channels not in (0, self.unet.image_channels):
            raise ConfigError(
                f"unet.cond_channels = {self.unet.cond_channels} must be 0 or image_channels = "
                f"{self.unet.image_channels}"
            )

    @property
    def timed(self) -> bool:
        """The network is told integer timesteps, not noise levels."""
        return self.unet.conditioning == "time"


def init(config: SR3Config, key) -> Params:
    """Random parameters (the public code's orthogonal initial values, by default)."""
    warn_if_signal_remains(config.schedule)
    return Params({"unet": init_unet(key, config.unet)}, config)


def condition(config: SR3Config, lr):
    """The network's condition: the LR image [B,h,w,C] in [0,1], enlarged, in [-1,1].

    MATLAB's bicubic (a = -0.5), clipped as an 8-bit image would be; [B,s*h,s*w,C].
    """
    if config.scale > 1:
        lr = imresize(lr, config.scale)
    return 2 * jnp.clip(lr, 0, 1) - 1


def network_levels(config: SR3Config, gamma: np.ndarray) -> np.ndarray:
    """What the network is told at signal levels gamma [N]: sqrt(gamma) or timesteps."""
    return timestep_of(config.schedule, gamma) if config.timed else np.sqrt(gamma)


def gamma_of(config: SR3Config, level):
    """Return gamma of what the network is told, [B]."""
    if not config.timed:
        return jnp.square(level)
    known = jnp.asarray(gammas(config.schedule), jnp.float32)
    return known[jnp.asarray(level, jnp.int32)]


def network(params: Params, x, level, cond=None, **options):
    """The network's raw output [B,H,W,C] (its `prediction`); see `apply_unet`."""
    return apply_unet(params["unet"], x, level, params.config.unet, cond, **options)


@jax.jit
def _predict_noise(params, noisy, level, cond):
    out = network(params, noisy, level, cond)
    gamma = gamma_of(params.config, level)
    return process.predictions(params.config.prediction, out, noisy, gamma)[1]


def predict_noise(params: Params, noisy, level, condition=None):
    """The predicted noise of one network evaluation.

    Args:
      params: SR3 parameters.
      noisy: [B,H,W,C] noisy images (images in [-1,1]); H and W multiples of
        2^(levels - 1).
      level: [B] sqrt(gamma) in (0,1]; for the DDPM variant the timestep 0..T-1.
      condition: [B,H,W,C] in [-1,1]: the LR image enlarged; None without a condition.

    Returns:
      eps [B,H,W,C] float32.

    Raises:
      ValueError: shapes or levels that the model cannot take.
    """
    config = params.config
    unet = config.unet
    shape, channels = tuple(noisy.shape), unet.image_channels
    if len(shape) != 4 or shape[-1] != channels or 0 in shape:
        raise ValueError(f"noisy must be [B,H,W,{channels}], got shape {shape}")
    if shape[1] % unet.multiple or shape[2] % unet.multiple:
        raise ValueError(
            f"height and width of noisy must be multiples of {unet.multiple}, got "
            f"{shape[1]}x{shape[2]}; pad, and crop the result"
        )
    want = shape if unet.cond_channels else None
    got = None if condition is None else tuple(condition.shape)
    if got != want:
        raise ValueError(f"condition must have the shape {want} (as noisy), got {got}")
    if not isinstance(level, jax.core.Tracer):
        level = np.asarray(level)
        last = config.schedule.steps - 1
        if config.timed:
            fits = np.all((level >= 0) & (level <= last) & (level == np.round(level)))
        else:
            fits = np.all((level > 0) & (level <= 1))
        if not fits:
            what = f"timesteps 0..{last}" if config.timed else "sqrt(gamma) in (0, 1]"
            raise ValueError(f"level must be {what}, got {level}")
    if level.shape != shape[:1]:
        raise ValueError(f"level must be [B] = {shape[:1]}, got shape {level.shape}")
    cond = None if condition is None else jnp.asarray(condition, jnp.float32)
    return _predict_noise(params, jnp.asarray(noisy, jnp.float32), jnp.asarray(level), cond)
