"""NICE's verbs."""

from __future__ import annotations

import jax.numpy as jnp

from flowsr_jax.models.inputs import check_image as check_image_array
from flowsr_jax.models.nice.config import NICEConfig
from flowsr_jax.models.nice.network import build_flow, draw, forward, inverse, latent_shapes
from flowsr_jax.models.unconditional import Unconditional
from flowsr_jax.types import Array, Shape


def check_shape(config: NICEConfig, shape: Shape) -> None:
    """Raise ValueError unless examples of `shape` [B,...] are of the model's one shape."""
    if tuple(shape[1:]) != config.shape:
        raise ValueError(
            f"this NICE takes examples of shape {config.shape} only, got {tuple(shape[1:])}"
        )


def check_image(config: NICEConfig, image: Array) -> None:
    """Raise TypeError or ValueError unless NICE can take the examples."""
    if len(config.shape) == 3:
        check_image_array("hr", image, config.shape[-1], margin=64.0)
    elif not jnp.issubdtype(getattr(image, "dtype", None), jnp.floating):  # ty: ignore[invalid-argument-type]
        raise TypeError(f"hr must be a float array [B,{config.dims}] in [0, 1]")
    check_shape(config, image.shape)


FLOW = Unconditional(
    forward=forward,
    inverse=inverse,
    check_shape=check_shape,
    check_image=check_image,
    latent_shapes=latent_shapes,
    layers=lambda params, latents, label: (
        build_flow(params.config),
        params["flow"],
        latents,
        None,
    ),
    prior=draw,
)


encode, decode, sample = FLOW.encode, FLOW.decode, FLOW.sample


log_prob, bits_per_dim = FLOW.log_prob, FLOW.bits_per_dim


check_invertibility = FLOW.check_invertibility
