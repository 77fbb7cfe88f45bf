"""RRDB's loss."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from flowsr_jax.models.rrdb.network import apply


def l1_loss(params, state, batch, key):
    """Mean absolute error of the encoder's image against HR."""
    del key
    config = getattr(params.config, "encoder", params.config)
    sr = apply(params["encoder"], batch["lr"], config)
    loss = jnp.mean(jnp.abs(sr - batch["hr"]))
    mse = jnp.mean(jnp.square(jax.lax.stop_gradient(sr) - batch["hr"]))
    return loss, (state, {"l1": loss, "psnr": -10.0 * jnp.log10(mse)})
