"""Glow's loss, data-dependent initialisation and family record."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from flowsr_jax.models.base import Family, Params
from flowsr_jax.models.glow.model import (
    GlowConfig,
    build_flow,
    forward,
    init,
    inverse,
    latent_shapes,
    logits,
    unwhiten,
)
from flowsr_jax.models.glow.tf_map import TF_MAP
from flowsr_jax.models.glow.unconditional import (
    Unconditional,
    check_no_lr,
    noisy,
    to_bits,
)
from flowsr_jax.models.inputs import check_image as check_image_array
from flowsr_jax.models.inputs import check_label

LOG_2 = math.log(2.0)


def check_shape(config, shape) -> None:
    """Raise ValueError unless images of `shape` [B,H,W,C] can be squeezed."""
    h, w, channels = shape[1:]
    m = config.multiple
    if channels != config.channels:
        raise ValueError(f"images must have {config.channels} channels, got shape {tuple(shape)}")
    if h % m or w % m:
        up = f"{-(-h // m) * m}x{-(-w // m) * m}"
        down = f"{h // m * m}x{w // m * m}, or " if h >= m and w >= m else ""
        raise ValueError(
            f"image height and width must be multiples of {m}, got {h}x{w}; take {down}{up}"
        )


def check_image(config: GlowConfig, image) -> None:
    """Raise TypeError or ValueError unless Glow can take the images."""
    # What a flow decodes need not lie in [0,1] and must encode again, so the margin is wide.
    check_image_array("hr", image, config.channels, margin=64.0)
    check_shape(config, image.shape)


def _layers(params, latents, label):
    return build_flow(params.config), params["flow"], unwhiten(params, latents, label)


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


def objective(params: Params, image, label=None):
    """Per-image terms of the loss, [B] each.

    Args:
      params: Glow parameters.
      image: dequantised images [B,H,W,C].
      label: int [B] with classes, else None.

    Returns:
      {"bits_per_dim": of n_bits images, "bits_y": cross-entropy of the class in bits,
      "class_error": 1 where the class is not the likeliest}; without a classifier 0, 1.
    """
    config = params.config
    _, log_prob, top = forward(params, image, label)
    bits = to_bits(log_prob, math.prod(image.shape[1:]), config.n_bits)
    if not config.has_classifier:
        return {"bits_per_dim": bits, "bits_y": 0.0 * bits, "class_error": jnp.ones_like(bits)}
    scores = jax.nn.log_softmax(logits(params, top))
    bits_y = -jnp.take_along_axis(scores, label[:, None], axis=-1)[:, 0] / LOG_2
    error = (jnp.argmax(scores, axis=-1) != label).astype(jnp.float32)
    return {"bits_per_dim": bits, "bits_y": bits_y, "class_error": error}


def nll_loss(params, state, batch, key):
    """Mean bits per dimension plus class_weight times the bits of the class.

    `batch` holds "hr", with classes "label" (int [B]), and optionally "noise" in [0,1)
    to dequantise by in place of a draw from the key.
    """
    config = params.config
    label = check_label(config, batch.get("label") if config.classes else None, len(batch["hr"]))
    terms = objective(params, noisy(batch, key, config.n_bits), label)
    metrics = {name: jnp.mean(value) for name, value in terms.items()}
    if not config.has_classifier:
        return metrics["bits_per_dim"], (state, {"bits_per_dim": metrics["bits_per_dim"]})
    loss = metrics["bits_per_dim"] + config.class_weight * metrics["bits_y"]
    return loss, (state, metrics)


def init_from_data(params, batch, key):
    """Data-dependent ActNorms, those inside the couplings too, from one batch in one pass."""
    image = noisy(batch, key, params.config.n_bits)
    flow_params, _, _ = build_flow(params.config).init_from_data(params["flow"], image)
    return params.replace(flow=flow_params)


FAMILY = Family(
    name="glow",
    config_class=GlowConfig,
    init=init,
    losses={"nll": nll_loss},
    check_lr=check_no_lr,
    sample=sample,
    check_hr=check_image,
    encode=encode,
    decode=decode,
    bits_per_dim=FLOW.bits_per_dim,
    init_from_data=init_from_data,
    views=FLOW.views,
    check_invertibility=check_invertibility,
    latent_shapes=latent_shapes,
    noise_shapes=latent_shapes,
    recognise_torch=TF_MAP.recognise,
    from_torch=TF_MAP,
    multiple=lambda config: config.multiple,
)
