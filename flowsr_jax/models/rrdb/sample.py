"""RRDB's one verb and its validation view."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from flowsr_jax.models.base import View
from flowsr_jax.models.rrdb.config import RRDBConfig
from flowsr_jax.models.rrdb.network import apply


@functools.partial(jax.jit, static_argnames=("num_samples",))
def sample(params, lr, key=None, *, temperature=None, num_samples=None):
    """The deterministic image; key and temperature are accepted and unused."""
    del key, temperature
    sr = apply(params["encoder"], lr, params.config)
    return sr if num_samples is None else jnp.broadcast_to(sr, (num_samples, *sr.shape))


def views(config: RRDBConfig, loss: str) -> tuple[View, ...]:
    """The one image."""
    del config, loss
    return (View("RRDB", lambda params, lr, key: sample(params, lr)),)
