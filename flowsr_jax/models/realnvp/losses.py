"""RealNVP's loss."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from flowsr_jax.models.base import Params
from flowsr_jax.models.realnvp.network import (
    forward_train,
    move_statistics,
)
from flowsr_jax.models.unconditional import noisy, to_bits
from flowsr_jax.types import Array, Batch, LossResult, PyTree, State

PENALISED = ("magnitude", "rescaling_scale")


def penalty(weights: PyTree) -> Array:
    """Return the sum of squares of the weight norms' magnitudes and the checkerboards' scales."""
    leaves = jax.tree_util.tree_leaves_with_path(weights)
    return sum(jnp.sum(jnp.square(x)) for path, x in leaves if path[-1].key in PENALISED)  # ty: ignore[invalid-explicit-return]


def nll_loss(
    params: Params, state: State, batch: Batch, key: Array, *, l2: float = 5e-5
) -> LossResult:
    """Return the mean bits per dimension, plus l2 times `penalty`, by the batch's statistics.

    `state` holds the moving statistics, which move towards the batch's; those in the
    parameters are not used (see flowsr_jax/train/state.py).  `batch` holds "hr", and
    optionally "noise" in [0,1) to dequantise by in place of a draw from the key.
    """
    image = noisy(batch, key)
    _, log_prob, used = forward_train(params, image)
    bits = jnp.mean(to_bits(log_prob, math.prod(image.shape[1:])))
    state = {**state, "statistics": move_statistics(params.config, state["statistics"], used)}
    return bits + l2 * penalty(params["flow"]), (state, {"bits_per_dim": bits})
