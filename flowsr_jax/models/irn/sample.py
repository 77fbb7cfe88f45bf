"""IRN's verbs and validation views."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from flowsr_jax.bijectors.invertibility import InvertibilityReport, inspect_inverse
from flowsr_jax.models.base import Params, View
from flowsr_jax.models.inputs import check_image, check_key, check_lr, check_temperature
from flowsr_jax.models.irn import compression
from flowsr_jax.models.irn.config import IRNConfig
from flowsr_jax.models.irn.network import (
    build_flow,
    forward,
    inverse,
    prepare_inverse,
    quantize,
    z_shape,
)
from flowsr_jax.models.programs import Input, Program, verb_programs
from flowsr_jax.types import Array


def check_hr(config: IRNConfig, hr: Array) -> None:
    """Raise unless hr is an HR batch that the model can take: [B,H,W,3], float in [0,1].

    Raises:
      TypeError, ValueError: names what is allowed; H and W must be multiples of the scale.
    """
    check_image("hr", hr)
    h, w = hr.shape[1:3]
    s = config.scale
    if h % s or w % s:
        raise ValueError(
            f"hr height and width must be multiples of {s}, got {h}x{w}; crop at the bottom and "
            f"right to {h // s * s}x{w // s * s}"
        )


def downscale(params: Params, hr: Array, *, quantize: bool = True) -> Array:
    """Return the LR image that `upscale` can turn back into hr.

    Args:
      params: IRN parameters.
      hr: [B,s*h,s*w,3] float in [0,1].
      quantize: return 8-bit values, as a file holds them; the network's own float values
        (not clipped) otherwise.

    Returns:
      [B,h,w,3] uint8, or float32 with quantize=False; one channel for IRN-Color.  Store
      it losslessly: a JPEG file loses what `upscale` needs.

    Raises:
      TypeError, ValueError: see `check_hr`.
    """
    check_hr(params.config, hr)
    return _downscale(params, jnp.asarray(hr, jnp.float32), quantize=quantize)


@functools.partial(jax.jit, static_argnames="quantize")
def _downscale(params: Params, hr: Array, quantize: bool) -> Array:
    lr, _ = forward(params, hr)
    return jnp.round(jnp.clip(lr, 0.0, 1.0) * 255.0).astype(jnp.uint8) if quantize else lr


def upscale(
    params: Params,
    lr: Array,
    key: Array | None = None,
    *,
    temperature: float | Array | None = None,
    z: Array | None = None,
    restore: bool | None = None,
) -> Array:
    """Return the HR image of an LR image that `downscale` made (of other images: a poor one).

    Args:
      params: IRN parameters.
      lr: [B,h,w,3] uint8, or float in [0,1] (not rounded).
      key: JAX PRNG key of z; with neither key nor z, z is zero.
      temperature: standard deviation of z drawn from key; None is the model's default.
      z: [B,h,w,3*s*s - 3], used as it is.
      restore: repair JPEG artefacts of lr first; None: where the model has a restorer.

    Returns:
      [B,s*h,s*w,3] float32, not clipped.

    Raises:
      TypeError, ValueError: an argument that the model cannot take.
    """
    config = params.config
    if getattr(lr, "dtype", None) == jnp.uint8:
        lr = jnp.asarray(lr, jnp.float32) / 255.0
    check_lr(lr, config.channels)
    check_temperature(temperature)
    if restore and config.restorer is None:
        raise ValueError("restore=True needs a model with a restorer (IRN-Compression)")
    shape = z_shape(config, lr.shape)
    if key is not None:
        if z is not None:
            raise ValueError("give key or z, not both")
        check_key(key)
        temperature = config.z_scale if temperature is None else temperature
        z = temperature * jax.random.normal(key, shape, jnp.float32)
    elif temperature is not None:
        raise ValueError("temperature needs a key: without one z is zero, or as given")
    elif z is None:
        z = jnp.zeros(shape)
    elif tuple(getattr(z, "shape", ())) != shape:
        got = tuple(getattr(z, "shape", ()))
        raise ValueError(f"z must have the shape {shape} for lr {tuple(lr.shape)}, got {got}")
    lr, noise = jnp.asarray(lr, jnp.float32), [jnp.asarray(z, jnp.float32)]
    return sample(params, lr, None, temperature=1.0, noise=noise, restore=restore is not False)


@functools.partial(jax.jit, static_argnames=("num_samples", "restore"))
def sample(
    params: Params,
    lr: Array,
    key: Array,
    *,
    temperature: float | Array | None = None,
    num_samples: int | None = None,
    noise: Any = None,
    restore: bool = True,
) -> Array:
    """Draw HR images of an LR image that `downscale` made; see flowsr_jax.sample.

    z is `temperature` times `noise`, a list of one array.  A model with a restorer
    repairs the LR image first, unless restore=False.
    """
    config = params.config
    if restore and config.restorer is not None:
        lr = quantize(compression.restore(params["restorer"], lr, config.restorer, config.compute))
    temperature = jnp.float32(config.z_scale if temperature is None else temperature)
    if noise is None:
        n = 1 if num_samples is None else num_samples
        noise = [jax.random.normal(key, (n, *z_shape(config, lr.shape)), jnp.float32)]
    elif num_samples is None:
        noise = [z[None] for z in noise]
    prepared = prepare_inverse(params)
    images = jax.vmap(lambda z: inverse(params, lr, z, prepared))(temperature * noise[0])
    return images[0] if num_samples is None else images


def encode(params: Params, hr: Array) -> tuple[list[Array], None]:
    """Return ([LR, z], None) of the exact forward pass, not rounded or clipped; no likelihood."""
    return list(_forward(params, hr)), None


def decode(params: Params, latents: list[Array]) -> Array:
    """Return the HR image of [LR, z], not clipped: the exact inverse of `encode`.

    Raises:
      ValueError: shapes that are not those of LR and z.
    """
    got = [tuple(getattr(x, "shape", ())) for x in latents]
    channels = params.config.channels
    want = [(*got[0][:3], channels), z_shape(params.config, got[0])] if got else None
    if got != want or len(got[0]) != 4:
        z = params.config.latent_channels
        raise ValueError(f"latents must be LR [B,h,w,{channels}] and z [B,h,w,{z}], got {got}")
    return _inverse(params, *(jnp.asarray(x, jnp.float32) for x in latents))


_forward, _inverse = jax.jit(forward), jax.jit(inverse)


def check_invertibility(
    params: Params,
    lr: Array,
    key: Array | None = None,
    *,
    temperature: float | Array | None = None,
    limit: float = 1e-3,
) -> InvertibilityReport:
    """Return the report of flowsr_jax.check_invertibility."""
    config = params.config
    key = jax.random.key(0) if key is None else key
    temperature = config.z_scale if temperature is None else temperature
    z = temperature * jax.random.normal(key, z_shape(config, lr.shape), jnp.float32)
    latents = [jnp.concatenate([lr, z], axis=-1)]
    report, _ = inspect_inverse(build_flow(config), params["generator"], latents, None, limit)
    return report


def views(config: IRNConfig, loss: str) -> tuple[View, ...]:
    del loss
    # IRN-Compression is judged on LR images that went through JPEG.
    draw = sample if config.restorer is None else _sample_after_jpeg
    views = [View("z=0", functools.partial(draw, temperature=0.0))]
    if config.z_scale:
        views.insert(0, View(f"T={config.z_scale:g}", draw, stochastic=True))
    return tuple(views)


@jax.jit
def _sample_after_jpeg(
    params: Params, lr: Array, key: Array, *, temperature: float | Array | None = None
) -> Array:
    return sample(params, compression.jpeg(lr), key, temperature=temperature)


def programs(family: Any, config: IRNConfig, lr: tuple, options: Any) -> dict[str, Program]:
    """Return both ways for other runtimes, "downscale" and "upscale"; see `Family.programs`."""
    hr = (lr[0], config.scale * lr[1], config.scale * lr[2], 3)
    return {
        "downscale": Program(
            lambda params, hr: quantize(forward(params, hr)[0]),
            {"hr": Input(hr, "HR images in [0,1]")},
            "LR images in multiples of 1/255",
        ),
        "upscale": verb_programs(family, config, lr, options)["sample"],
    }
