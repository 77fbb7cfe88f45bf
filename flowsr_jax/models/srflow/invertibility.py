"""Per-layer invertibility of an SRFlow model on a given LR image."""

from __future__ import annotations

import jax

from flowsr_jax.bijectors.inspect import InvertibilityReport, inspect_inverse
from flowsr_jax.models.srflow.model import build_flow, condition, latent_shapes


def check_invertibility(params, lr, key=None, *, temperature=None, limit: float = 1e-3):
    """See flowsr_jax.check_invertibility."""
    key = jax.random.key(0) if key is None else key
    temperature = params.config.temperature if temperature is None else temperature
    shapes = latent_shapes(params.config, lr.shape)
    keys = jax.random.split(key, len(shapes))
    latents = [temperature * jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True)]
    flow = build_flow(params.config)
    report, _ = inspect_inverse(flow, params["flow"], latents, condition(params, lr), limit)
    return report


__all__ = ["InvertibilityReport", "check_invertibility"]
