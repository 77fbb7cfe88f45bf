"""RealNVP's verbs."""

from __future__ import annotations

from flowsr_jax.models.inputs import check_image as check_image_array
from flowsr_jax.models.realnvp.config import RealNVPConfig
from flowsr_jax.models.realnvp.network import (
    build_flow,
    flow_params,
    forward,
    inverse,
    latent_shapes,
)
from flowsr_jax.models.unconditional import Unconditional, check_shape
from flowsr_jax.types import Array


def check_image(config: RealNVPConfig, image: Array) -> None:
    """Raise TypeError or ValueError unless RealNVP can take the images.

    With a logit, values outside [-low, 1 - low] / width have no image.
    """
    check_image_array("hr", image, config.channels, margin=0.055 if config.width else 64.0)
    check_shape(config, image.shape)


FLOW = Unconditional(
    forward=forward,
    inverse=inverse,
    check_shape=check_shape,
    check_image=check_image,
    latent_shapes=latent_shapes,
    layers=lambda params, latents, label: (
        build_flow(params.config),
        flow_params(params),
        latents,
        None,
    ),
)


encode, decode, sample = FLOW.encode, FLOW.decode, FLOW.sample


log_prob, bits_per_dim = FLOW.log_prob, FLOW.bits_per_dim


check_invertibility = FLOW.check_invertibility
