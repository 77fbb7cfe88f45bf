"""SRFlow's verbs and validation views."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flowsr_jax.bijectors.invertibility import InvertibilityReport, inspect_inverse
from flowsr_jax.models.base import Params, View
from flowsr_jax.models.rrdb.network import apply as encoder_apply
from flowsr_jax.models.srflow.config import SRFlowConfig
from flowsr_jax.models.srflow.network import SRFlow, build_flow, condition, latent_shapes
from flowsr_jax.types import Array, Scalar


def encode(
    params: Params, hr: Array, lr: Array, *, sigma: Array | None = None
) -> tuple[list[Array], Array]:
    """Return exact latents (finest level first) and log p(hr | lr) in nats [B]; no noise added.

    Args:
      params: SRFlow parameters.
      hr: [B,s*h,s*w,3] in [0,1].
      lr: [B,h,w,3] in [0,1].
      sigma: of models with `told_noise`: the deviation of the noise that hr has, in grey
        levels, one number or one per image [B]; None is 0.

    Raises:
      ValueError: a sigma that the model cannot be told.
    """
    return _encode(params, hr, lr, _check_sigma(params.config, sigma))


@jax.jit
def _encode(params: Params, hr: Array, lr: Array, sigma: Array) -> tuple[list[Array], Array]:
    return SRFlow(params.config).apply({"params": params.tree}, hr, lr, sigma, method="encode")  # ty: ignore[invalid-explicit-return]


def decode(params: Params, latents: list[Array], lr: Array, *, sigma: Array | None = None) -> Array:
    """Return the image [B,s*h,s*w,3] of a latent list, not clipped; `sigma` as in `encode`."""
    return _decode(params, latents, lr, _check_sigma(params.config, sigma))


@jax.jit
def _decode(params: Params, latents: list[Array], lr: Array, sigma: Array) -> Array:
    return SRFlow(params.config).apply({"params": params.tree}, latents, lr, sigma, method="decode")  # ty: ignore[invalid-explicit-return]


def _check_sigma(config: SRFlowConfig, sigma: Any) -> Array | None:
    """Return sigma as float32, or None; ValueError unless the model can be told it."""
    if sigma is None:
        return None
    if not config.told_noise:
        raise ValueError("this SRFlow is told no noise (told_noise = 0): leave sigma out")
    if not isinstance(sigma, jax.core.Tracer):
        values = np.asarray(sigma, np.float32)
        if values.ndim > 1 or not np.all((values >= 0) & (values <= config.told_noise)):
            raise ValueError(
                f"sigma must be one number or one per image [B], from 0 to {config.told_noise:g} "
                f"grey levels, got {sigma!r}"
            )
    return jnp.asarray(sigma, jnp.float32)


def sample(
    params: Params,
    lr: Array,
    key: Array,
    *,
    temperature: float | Array | None = None,
    num_samples: int | None = None,
    noise: Array | None = None,
    sigma: Array | None = None,
    denoise: bool | None = None,
) -> Array:
    """Draw images of p(HR | LR); see flowsr_jax.sample.

    The latents are `temperature` times `noise` (shapes of `latent_shapes`).

    The encoder, the conditioning's share of every step, the determinants and the
    inverse matrices are computed once and shared by all samples.

    Args:
      params, lr, key, temperature, num_samples, noise: as in flowsr_jax.sample.
      sigma: of models with `told_noise`: the deviation in grey levels of the noise that is
        drawn along with the images; None is the config's `draw_noise`.
      denoise: take that noise away by one step, x + sigma^2 grad log p(x | lr), exact for
        Gaussian noise (Tweedie; Zhai et al., TarFlow, 2025, section 2.5); None does so
        where sigma is above 0.

    Raises:
      ValueError: a sigma that the model cannot be told.
    """
    config = params.config
    if sigma is None and config.draw_noise:
        sigma = config.draw_noise
    sigma = _check_sigma(config, sigma)
    denoise = sigma is not None if denoise is None else bool(denoise)
    return _sample(params, lr, key, temperature, noise, sigma, num_samples, denoise)


@functools.partial(jax.jit, static_argnums=(6, 7))
def _sample(
    params: Params,
    lr: Array,
    key: Array,
    temperature: Scalar | None,
    noise: Any,
    sigma: Any,
    num_samples: int | None,
    denoise: bool,
) -> Array:
    config = params.config
    flow = build_flow(config)
    cond = condition(params, lr, sigma)
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

    def draw(z: list[Array]) -> Array:
        return flow.inverse(params["flow"], z, cond, prepared)[0]

    images = jax.vmap(draw)([temperature * z for z in noise])
    if denoise and sigma is not None:
        model, variables = SRFlow(config), {"params": params.tree}
        density = lambda image: model.apply(variables, image, cond, method="density")  # noqa: E731
        score = jax.vmap(jax.grad(lambda image: jnp.sum(density(image)[1])))  # ty: ignore[invalid-argument-type]
        variance = jnp.square(sigma / 255.0).reshape(-1, 1, 1, 1)
        images = images + variance * score(images)
    return images[0] if num_samples is None else images


def encoder_image(params: Params, lr: Array, key: Array | None = None) -> Array:
    """Return the encoder's own image (the L1 estimate) [B,s*h,s*w,3]."""
    del key
    return encoder_apply(params["encoder"], lr, params.config.encoder)


@jax.jit
def _view(params: Params, lr: Array, key: Array, *, temperature: float | Array) -> Array:
    # Jitted: views of all temperatures share one program.
    return sample(params, lr, key, temperature=temperature)


def views(config: SRFlowConfig, loss: str) -> tuple[View, ...]:
    views = [View("RRDB", encoder_image)]
    if loss != "l1":
        for temperature in (0.0, 0.8, 1.0) if config.conditional_prior else (0.0, 0.5, 0.8):
            views.append(
                View(
                    f"T={temperature:g}",
                    functools.partial(_view, temperature=temperature),
                    stochastic=temperature > 0,
                )
            )
    return tuple(views)


def check_invertibility(
    params: Params,
    lr: Array,
    key: Array | None = None,
    *,
    temperature: float | Array | None = None,
    limit: float = 1e-3,
) -> InvertibilityReport:
    """Return the report of flowsr_jax.check_invertibility."""
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
