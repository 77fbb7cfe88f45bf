"""SRFlow's verbs and validation views."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from flowsr_jax.bijectors.invertibility import inspect_inverse
from flowsr_jax.math.gaussian import standard_normal_log_prob
from flowsr_jax.models.base import View
from flowsr_jax.models.rrdb.network import apply as encoder_apply
from flowsr_jax.models.srflow.network import build_flow, condition, latent_shapes


@jax.jit
def encode(params, hr, lr):
    """Exact latents (finest level first) and log p(hr | lr) in nats [B]; no noise added."""
    flow = build_flow(params.config)
    latents, logdet = flow.forward(params["flow"], hr, condition(params, lr))
    return latents, logdet + sum(standard_normal_log_prob(z) for z in latents)


@jax.jit
def decode(params, latents, lr):
    """The image [B,s*h,s*w,3] of a latent list; not clipped."""
    image, _ = build_flow(params.config).inverse(params["flow"], latents, condition(params, lr))
    return image


@functools.partial(jax.jit, static_argnames=("num_samples",))
def sample(params, lr, key, *, temperature=None, num_samples=None, noise=None):
    """Draw images of p(HR | LR); see flowsr_jax.sample.

    The latents are `temperature` times `noise` (shapes of `latent_shapes`).

    The encoder, the conditioning's share of every step, the determinants and the
    inverse matrices are computed once and shared by all samples.
    """
    config = params.config
    flow = build_flow(config)
    cond = condition(params, lr)
    prepared = flow.prepare(params["flow"], cond, inverse=True)
    temperature = jnp.float32(config.temperature if temperature is None else temperature)
    if noise is None:
        n = 1 if num_samples is None else num_samples
        shapes = latent_shapes(config, lr.shape)
        noise = [
            jax.random.normal(k, (n, *shape), jnp.float32)
            for k, shape in zip(jax.random.split(key, len(shapes)), shapes, strict=True)
        ]
    elif num_samples is None:
        noise = [z[None] for z in noise]

    def draw(z):
        return flow.inverse(params["flow"], z, cond, prepared)[0]

    images = jax.vmap(draw)([temperature * z for z in noise])
    return images[0] if num_samples is None else images


def encoder_image(params, lr, key=None):
    """The encoder's own image (the L1 estimate) [B,s*h,s*w,3]."""
    del key
    return encoder_apply(params["encoder"], lr, params.config.encoder)


def views(config, loss):
    views = [View("RRDB", encoder_image)]
    if loss != "l1":
        for temperature in (0.0, 0.5, 0.8):
            views.append(
                View(
                    f"T={temperature:g}",
                    functools.partial(sample, temperature=temperature),
                    stochastic=temperature > 0,
                )
            )
    return tuple(views)


def check_invertibility(params, lr, key=None, *, temperature=None, limit: float = 1e-3):
    """See flowsr_jax.check_invertibility."""
    key = jax.random.key(0) if key is None else key
    temperature = params.config.temperature if temperature is None else temperature
    shapes = latent_shapes(params.config, lr.shape)
    keys = jax.random.split(key, len(shapes))
    latents = [
        temperature * jax.random.normal(k, s, jnp.float32)
        for k, s in zip(keys, shapes, strict=True)
    ]
    flow = build_flow(params.config)
    report, _ = inspect_inverse(flow, params["flow"], latents, condition(params, lr), limit)
    return report
