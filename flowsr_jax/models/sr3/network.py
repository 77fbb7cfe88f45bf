"""SR3's model: initial parameters, and one evaluation of the network.

Exact numerics: docs/papers/sr3.md.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from flowsr_jax.diffusion import process
from flowsr_jax.diffusion.schedules import gammas, timestep_of, warn_if_signal_remains
from flowsr_jax.models.base import Params
from flowsr_jax.models.inputs import check_label
from flowsr_jax.models.sr3.condition import condition
from flowsr_jax.models.sr3.config import SR3Config
from flowsr_jax.nets.conv import PLAIN
from flowsr_jax.nets.embedding import ClassEmbedding, LevelEmbedding
from flowsr_jax.nets.unet import UNet
from flowsr_jax.types import Array, PyTree

__all__ = ["SR3Config", "condition", "gamma_of", "init", "network", "predict_noise"]


class SR3(nn.Module):
    """SR3's network as a Flax module; its parameters are the groups of `Params`.

    These are {"unet"}, "classes" of a model with classes, "augmentation" of an `augmented` one.
    """

    config: SR3Config

    def setup(self) -> None:
        d = self.config.unet.channels
        self.unet = UNet(self.config.unet)
        if self.config.classes:
            self.classes = ClassEmbedding(self.config.classes, d)
        if self.config.augmented:
            self.augmentation = LevelEmbedding(d)

    def embedding(
        self, label: Array | None = None, cond_level: Array | None = None
    ) -> Array | None:
        """Return what is added to the level embedding, [B,D]; None for models without.

        Args:
          label: int32 [B]; `config.classes` is "no class", as is None.
          cond_level: [B] of the condition's own noise; None is 1, no noise.
        """
        total = None
        if self.config.classes:
            label = jnp.full((1,), self.config.classes) if label is None else label
            total = self.classes(label)
        if self.config.augmented:
            own = self.augmentation(jnp.ones((1,)) if cond_level is None else cond_level)
            total = own if total is None else total + own
        return total

    def prepare(self, cond: Array) -> PyTree:
        """Return what the noisy image does not change; see `UNet.prepare`."""
        return self.unet.prepare(cond)

    def __call__(
        self,
        x: Array,
        level: Array,
        cond: Array | None = None,
        *,
        label: Array | None = None,
        cond_level: Array | None = None,
        **options: Any,
    ) -> Array:
        """Return the network's raw output [B,H,W,C], its `prediction`; see `UNet`, `embedding`."""
        extra = self.embedding(label, cond_level)
        return self.unet(x, level, cond, embedding=extra, **options)


def init(config: SR3Config, key: Array) -> Params:
    """Return random parameters (the public code's orthogonal initial values, by default)."""
    warn_if_signal_remains(config.schedule)
    unet, side = config.unet, config.unet.multiple
    x = jax.ShapeDtypeStruct((1, side, side, unet.image_channels), jnp.float32)
    level, cond = jax.ShapeDtypeStruct((1,), jnp.float32), x if unet.cond_channels else None
    # The form of convolutions does not matter to parameters; the plain one is traced fastest.
    plain = SR3(dataclasses.replace(config, unet=dataclasses.replace(unet, compute=PLAIN)))
    return Params(plain.lazy_init(key, x, level, cond)["params"], config)


def network_levels(config: SR3Config, gamma: np.ndarray) -> np.ndarray:
    """Return what the network is told at signal levels gamma [N]: sqrt(gamma) or timesteps."""
    return timestep_of(config.schedule, gamma) if config.timed else np.sqrt(gamma)


def gamma_of(config: SR3Config, level: Array) -> Array:
    """Return gamma of what the network is told, [B]."""
    if not config.timed:
        return jnp.square(level)
    known = jnp.asarray(gammas(config.schedule), jnp.float32)
    return known[jnp.asarray(level, jnp.int32)]


def network(
    params: Params,
    x: Array,
    level: Array,
    cond: Array | None = None,
    *,
    label: Array | None = None,
    cond_level: Array | None = None,
    **options: Any,
) -> Array:
    """Return the network's raw output [B,H,W,C] (its `prediction`); see `SR3`."""
    options |= {"label": label, "cond_level": cond_level}
    return SR3(params.config).apply({"params": params.tree}, x, level, cond, **options)  # ty: ignore[invalid-explicit-return]


@jax.jit
def _predict_noise(params: Params, noisy: Array, level: Array, cond: Array, label: Array) -> Array:
    out = network(params, noisy, level, cond, label=label)
    gamma = gamma_of(params.config, level)
    return process.predictions(params.config.prediction, out, noisy, gamma)[1]


def predict_noise(
    params: Params,
    noisy: Array,
    level: Array,
    condition: Array | None = None,
    label: Array | None = None,
) -> Array:
    """Return the predicted noise of one network evaluation.

    Args:
      params: SR3 parameters.
      noisy: [B,H,W,C] noisy images (images in [-1,1]; with `residual` r, r times their
        difference to the condition); H and W multiples of 2^(levels - 1).
      level: [B] sqrt(gamma) in (0,1]; for the DDPM variant the timestep 0..T-1.
      condition: [B,H,W,C] in [-1,1]: the LR image enlarged; None without a condition.
      label: int [B]: classes, of a model that has them; None is "no class".

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
        level = np.asarray(level)  # ty: ignore[invalid-assignment]
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
    if label is not None:
        label = check_label(config, label, shape[0])
    noisy, level = jnp.asarray(noisy, jnp.float32), jnp.asarray(level)
    return _predict_noise(params, noisy, level, cond, label)
