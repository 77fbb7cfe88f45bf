"""Glow's loss and data-dependent initialisation."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from flowsr_jax.models.base import Params
from flowsr_jax.models.glow.network import (
    build_flow,
    forward,
    logits,
)
from flowsr_jax.models.inputs import check_label
from flowsr_jax.models.unconditional import noisy, to_bits
from flowsr_jax.types import Array, Batch, LossResult, State

LOG_2 = math.log(2.0)


def objective(params: Params, image: Array, label: Array | None = None) -> dict[str, Array]:
    """Return per-image terms of the loss, [B] each.

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
    bits_y = -jnp.take_along_axis(scores, label[:, None], axis=-1)[:, 0] / LOG_2  # ty: ignore[not-subscriptable]
    error = (jnp.argmax(scores, axis=-1) != label).astype(jnp.float32)  # ty: ignore[missing-union-attribute]
    return {"bits_per_dim": bits, "bits_y": bits_y, "class_error": error}


def nll_loss(params: Params, state: State, batch: Batch, key: Array) -> LossResult:
    """Return the mean bits per dimension plus class_weight times the bits of the class.

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


def init_from_data(params: Params, batch: Batch, key: Array) -> Params:
    """Return params with all ActNorms, those inside the couplings too, set from one batch."""
    image = noisy(batch, key, params.config.n_bits)
    flow_params, _, _ = build_flow(params.config).init_from_data(params["flow"], image)
    return params.replace(flow=flow_params)
