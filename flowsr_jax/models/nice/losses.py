"""NICE's loss."""

from __future__ import annotations

import math

import jax.numpy as jnp

from flowsr_jax.models.base import Params
from flowsr_jax.models.nice.config import RANGES
from flowsr_jax.models.nice.network import forward
from flowsr_jax.models.unconditional import noisy, to_bits
from flowsr_jax.types import Array, Batch, LossResult, State


def nll_loss(params: Params, state: State, batch: Batch, key: Array) -> LossResult:
    """Return the mean bits per dimension.

    `batch` holds "hr", and optionally "noise" in [0,1) to dequantise by in place of a
    draw from the key.  The metric log_likelihood, in nats, is that of published tables:
    the density on the range that the flow sees.
    """
    config = params.config
    log_prob = jnp.mean(forward(params, noisy(batch, key))[1])
    scaled = log_prob - config.dims * math.log(RANGES[config.range][0] * 255 / 256)
    bits = to_bits(log_prob, config.dims)
    return bits, (state, {"bits_per_dim": bits, "log_likelihood": scaled})
