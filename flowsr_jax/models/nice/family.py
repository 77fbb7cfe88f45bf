"""NICE's loss and family record."""

from __future__ import annotations

import math

import jax.numpy as jnp

from flowsr_jax.models.base import Family
from flowsr_jax.models.glow.unconditional import Unconditional, check_no_lr, noisy, to_bits
from flowsr_jax.models.inputs import check_image as check_image_array
from flowsr_jax.models.nice.model import (
    RANGES,
    NICEConfig,
    build_flow,
    draw,
    forward,
    init,
    inverse,
    latent_shapes,
)


def check_shape(config: NICEConfig, shape) -> None:
    """Raise ValueError unless examples of `shape` [B,...] are of the model's one shape."""
    if tuple(shape[1:]) != config.shape:
        raise ValueError(
            f"this NICE takes examples of shape {config.shape} only, got {tuple(shape[1:])}"
        )


def check_image(config: NICEConfig, image) -> None:
    """Raise TypeError or ValueError unless NICE can take the examples."""
    if len(config.shape) == 3:
        check_image_array("hr", image, config.shape[-1], margin=64.0)
    elif not jnp.issubdtype(getattr(image, "dtype", None), jnp.floating):
        raise TypeError(f"hr must be a float array [B,{config.dims}] in [0, 1]")
    check_shape(config, image.shape)


FLOW = Unconditional(
    forward=forward,
    inverse=inverse,
    check_shape=check_shape,
    check_image=check_image,
    latent_shapes=latent_shapes,
    layers=lambda params, latents, label: (build_flow(params.config), params["flow"], latents),
    prior=draw,
)
encode, decode, sample = FLOW.encode, FLOW.decode, FLOW.sample
log_prob, bits_per_dim = FLOW.log_prob, FLOW.bits_per_dim
check_invertibility = FLOW.check_invertibility


def nll_loss(params, state, batch, key):
    """Mean bits per dimension.

    `batch` holds "hr", and optionally "noise" in [0,1) to dequantise by in place of a
    draw from the key.  The metric log_likelihood, in nats, is that of published tables:
    the density on the range that the flow sees.
    """
    config = params.config
    log_prob = jnp.mean(forward(params, noisy(batch, key))[1])
    scaled = log_prob - config.dims * math.log(RANGES[config.range][0] * 255 / 256)
    bits = to_bits(log_prob, config.dims)
    return bits, (state, {"bits_per_dim": bits, "log_likelihood": scaled})


FAMILY = Family(
    name="nice",
    config_class=NICEConfig,
    init=init,
    losses={"nll": nll_loss},
    check_lr=check_no_lr,
    sample=sample,
    check_hr=check_image,
    encode=encode,
    decode=decode,
    bits_per_dim=FLOW.bits_per_dim,
    views=FLOW.views,
    check_invertibility=check_invertibility,
    latent_shapes=latent_shapes,
    noise_shapes=latent_shapes,
)
