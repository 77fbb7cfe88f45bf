"""Optimisers of a parameter group: directions without the learning rate.

Each is an optax transformation whose update is the direction u of
`w <- w - lr * u`; the step multiplies by the scheduled rate, so that the optimiser
state holds nothing that a schedule needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from flowsr_jax.train.config import GroupConfig


def make_optimizer(group: GroupConfig) -> optax.GradientTransformation:
    """Return the transformation gradient -> direction of a group."""
    b1, b2 = group.betas
    directions: dict[str, Callable[[], optax.GradientTransformation]] = {
        "adam": lambda: optax.scale_by_adam(b1, b2, group.eps),
        "adamw": lambda: optax.scale_by_adam(b1, b2, group.eps),
        "adamax": lambda: optax.scale_by_adamax(b1, b2, group.eps),
        "adamax_glow": lambda: scale_by_adamax_glow(b1, b2, group.eps),
        "sgd": lambda: optax.trace(b1) if b1 else optax.identity(),
    }
    direction = directions[group.optimizer]()
    if not group.weight_decay:
        return direction
    decay = optax.add_decayed_weights(group.weight_decay)
    # torch's Adam adds the decay to the gradient; AdamW adds it to the update.
    order = (direction, decay) if group.optimizer == "adamw" else (decay, direction)
    return optax.chain(*order)


def scale_by_adamax_glow(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Return Adamax as the released Glow code computes it (docs/papers/glow.md section 4).

    m = b1 m + (1-b1) g;  v = max(b2 v, |g|);
    u = m / (v + eps) * sqrt(1 - b2^t) / (1 - b1^t), t from 1.
    The factor sqrt(1 - b2^t), which plain Adamax lacks, makes the first steps small.
    """

    def init(params: Any) -> optax.ScaleByAdamState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return optax.ScaleByAdamState(jnp.zeros([], jnp.int32), zeros, zeros)

    def update(grads: Any, state: optax.ScaleByAdamState, params: Any = None):
        count = state.count + 1
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
        nu = jax.tree.map(lambda v, g: jnp.maximum(b2 * v, jnp.abs(g)), state.nu, grads)
        t = count.astype(jnp.float32)
        scale = jnp.sqrt(1 - b2**t) / (1 - b1**t)
        updates = jax.tree.map(lambda m, v: scale * m / (v + eps), mu, nu)
        return updates, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)
