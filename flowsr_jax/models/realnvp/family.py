"""RealNVP's loss and family record."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from flowsr_jax.models.base import Family
from flowsr_jax.models.glow.family import check_shape
from flowsr_jax.models.glow.unconditional import Unconditional, check_no_lr, noisy, to_bits
from flowsr_jax.models.inputs import check_image as check_image_array
from flowsr_jax.models.realnvp.model import (
    RealNVPConfig,
    build_flow,
    flow_params,
    forward,
    forward_train,
    init,
    init_state,
    inverse,
    latent_shapes,
    move_statistics,
)

PENALISED = ("magnitude", "rescaling_scale")


def check_image(config: RealNVPConfig, image) -> None:
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
    ),
)
encode, decode, sample = FLOW.encode, FLOW.decode, FLOW.sample
log_prob, bits_per_dim = FLOW.log_prob, FLOW.bits_per_dim
check_invertibility = FLOW.check_invertibility


def penalty(weights):
    """Sum of squares of the weight norms' magnitudes and the checkerboards' scales."""
    leaves = jax.tree_util.tree_leaves_with_path(weights)
    return sum(jnp.sum(jnp.square(x)) for path, x in leaves if path[-1].key in PENALISED)


def nll_loss(params, state, batch, key, *, l2: float = 5e-5):
    """Mean bits per dimension, plus l2 times `penalty`, by the batch's statistics.

    `state` holds the moving statistics, which move towards the batch's; those in the
    parameters are not used (see flowsr_jax/train/state.py).  `batch` holds "hr", and
    optionally "noise" in [0,1) to dequantise by in place of a draw from the key.
    """
    image = noisy(batch, key)
    _, log_prob, used = forward_train(params, image)
    bits = jnp.mean(to_bits(log_prob, math.prod(image.shape[1:])))
    state = {**state, "statistics": move_statistics(params.config, state["statistics"], used)}
    return bits + l2 * penalty(params["flow"]), (state, {"bits_per_dim": bits})


FAMILY = Family(
    name="realnvp",
    config_class=RealNVPConfig,
    init=init,
    losses={"nll": nll_loss},
    check_lr=check_no_lr,
    sample=sample,
    check_hr=check_image,
    encode=encode,
    decode=decode,
    bits_per_dim=FLOW.bits_per_dim,
    init_state=init_state,
    views=FLOW.views,
    check_invertibility=check_invertibility,
    latent_shapes=latent_shapes,
    noise_shapes=latent_shapes,
    multiple=lambda config: config.multiple,
)
