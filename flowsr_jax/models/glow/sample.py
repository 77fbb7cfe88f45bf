"""Glow's verbs."""

from __future__ import annotations

from typing import Any

from flowsr_jax.models.base import Params
from flowsr_jax.models.glow.config import GlowConfig
from flowsr_jax.models.glow.network import (
    forward,
    inverse,
    latent_shapes,
    whole_flow,
    whole_params,
)
from flowsr_jax.models.inputs import check_image as check_image_array
from flowsr_jax.models.unconditional import Unconditional, check_shape
from flowsr_jax.types import Array


def check_image(config: GlowConfig, image: Array) -> None:
    """Raise TypeError or ValueError unless Glow can take the images."""
    # What a flow decodes need not lie in [0,1] and must encode again, so the margin is wide.
    check_image_array("hr", image, config.channels, margin=64.0)
    check_shape(config, image.shape)


def _layers(params: Params, latents: list[Array], label: Array) -> tuple[Any, ...]:
    return whole_flow(params.config), whole_params(params), latents, {"label": label}


FLOW = Unconditional(
    forward=lambda params, image, label: forward(params, image, label)[:2],
    inverse=inverse,
    check_shape=check_shape,
    check_image=check_image,
    latent_shapes=latent_shapes,
    layers=_layers,
)


encode, decode, sample = FLOW.encode, FLOW.decode, FLOW.sample


log_prob, bits_per_dim = FLOW.log_prob, FLOW.bits_per_dim


check_invertibility = FLOW.check_invertibility
