"""IRN's training losses: sums over pixels and channels, means over the batch.

Xiao et al. (ECCV 2020), "Training objectives"; exact forms in docs/papers/irn.md section 4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from flowsr_jax.config import choice
from flowsr_jax.math.gaussian import sum_event
from flowsr_jax.models.base import Params
from flowsr_jax.models.irn import compression
from flowsr_jax.models.irn.config import IRNConfig
from flowsr_jax.models.irn.network import COLOR_MATRIX, forward, inverse, quantize, z_shape
from flowsr_jax.nets.conv import matmul
from flowsr_jax.types import Array, Batch, LossResult, Scalar, State


def squared(a: Array, b: Array) -> Array:
    """Return the mean over B of the sum of (a - b)^2."""
    return jnp.mean(sum_event(jnp.square(a - b)))


def charbonnier(a: Array, b: Array) -> Array:
    """Return the mean over B of the sum of sqrt((a - b)^2 + 1e-6): the released code's "l1"."""
    return jnp.mean(sum_event(jnp.sqrt(jnp.square(a - b) + 1e-6)))


_DISTANCES = {"l1": charbonnier, "l2": squared}


def distance(kind: str) -> Callable[[Array, Array], Array]:
    """Return the function of a distance's name, "l1" or "l2"."""
    return _DISTANCES[choice("loss", kind, tuple(_DISTANCES))]


def lr_guide(config: IRNConfig, batch: Batch) -> Array:
    """Return what the LR image is drawn to: batch["lr"], or for IRN-Color the luminance of HR."""
    if config.scale > 1:
        return batch["lr"]
    return matmul(batch["hr"], jnp.asarray(COLOR_MATRIX, jnp.float32)[:1].T)


def fit_weight(config: IRNConfig) -> float:
    """Return the released weight of the LR guidance: scale^2, and 3 for IRN-Color."""
    return 3.0 if config.scale == 1 else float(config.scale**2)


def draw_z(key: Array, config: IRNConfig, lr: Array) -> Array:
    """Return z at the configured standard deviation, for LR images [B,h,w,C]."""
    return config.z_scale * jax.random.normal(key, z_shape(config, lr.shape), jnp.float32)


def rescale_terms(
    params: Params,
    hr: Array,
    guide: Array | None,
    z: Array,
    *,
    lambda_fit: float | None = None,
    lambda_rec: float = 1.0,
    lambda_ce: float = 1.0,
    forward_loss: str = "l2",
    backward_loss: str = "l1",
    lr_noise: Scalar = 0.0,
) -> tuple[dict[str, Array], Array]:
    """Return the three weighted terms of the rescaling loss, and the reconstruction.

    Args:
      params: IRN parameters.
      hr: [B,s*h,s*w,3] in [0,1].
      guide: [B,h,w,3], the bicubic LR in float, neither rounded nor clipped.
      z: [B,h,w,3*s*s - 3], drawn afresh (not the z of the forward pass).
      lambda_fit: weight of the guidance; None is `fit_weight`.
      lambda_rec, lambda_ce: weights of the reconstruction and of sum(z^2).
      forward_loss, backward_loss: "l1" or "l2" of guidance and reconstruction.
      lr_noise: added to the quantised LR before the inverse.

    Returns:
      ({"l_forw_fit", "l_forw_ce", "l_back_rec"}, reconstruction [B,s*h,s*w,3]).
    """
    lambda_fit = fit_weight(params.config) if lambda_fit is None else lambda_fit
    fit, reconstruct = distance(forward_loss), distance(backward_loss)
    lr, z_forward = forward(params, hr)
    image = inverse(params, quantize(lr) + lr_noise, z)
    terms = {
        "l_forw_fit": lambda_fit * fit(lr, guide),  # ty: ignore[invalid-argument-type]
        "l_forw_ce": lambda_ce * jnp.mean(sum_event(jnp.square(z_forward))),
        "l_back_rec": lambda_rec * reconstruct(hr, image),
    }
    return terms, image


def rescale_loss(
    params: Params,
    state: State,
    batch: Batch,
    key: Array,
    *,
    lr_noise: Scalar = 0.0,
    **options: Any,
) -> LossResult:
    """Return loss "rescale": LR guidance, HR reconstruction and distribution matching.

    Options:
      lambda_fit, lambda_rec, lambda_ce, forward_loss, backward_loss: see `rescale_terms`.
      lr_noise: standard deviation of noise on the quantised LR, added in half of the
        steps (0.01 in the released fine-tuning of x2).
    """
    z_key, coin_key, noise_key = jax.random.split(key, 3)
    guide = lr_guide(params.config, batch)
    noise = 0.0
    if lr_noise:
        coin = jax.random.bernoulli(coin_key)
        noise = coin * lr_noise * jax.random.normal(noise_key, guide.shape, jnp.float32)
    z = draw_z(z_key, params.config, guide)
    terms, image = rescale_terms(params, batch["hr"], guide, z, lr_noise=noise, **options)
    return sum(terms.values()), (state, {**terms, "psnr": psnr(image, batch["hr"])})  # ty: ignore[invalid-explicit-return]


def psnr(image: Array, hr: Array) -> Array:
    """Return the RGB PSNR in dB of a whole batch, for the log (no gradient)."""
    error = jnp.clip(jax.lax.stop_gradient(image), 0.0, 1.0) - hr
    return -10.0 * jnp.log10(jnp.mean(jnp.square(error)))


def replace(a: Array, b: Array) -> Array:
    """Return the value of b; the gradient goes to both a and b unchanged."""
    return b + (a - jax.lax.stop_gradient(a))


def restore_terms(
    params: Params,
    hr: Array,
    guide: Array | None,
    z: Array,
    *,
    codec: Callable[[Array], Array] = compression.jpeg,
    differentiable: bool = False,
    lambda_jpeg: float = 1.0,
    lambda_fit: float = 0.0,
    lambda_rec: float = 0.0,
    lambda_ce: float = 0.0,
) -> tuple[dict[str, Array], Array]:
    """Return the weighted terms of IRN-Compression; a term of weight 0 is left out.

    The released training moves the restorer alone, by "l_jpeg_rec" alone.  With the
    generator trained too, "l_jpeg_rec" also pulls the quantised LR to the restored one.

    Args:
      params: IRN parameters with the group "restorer".
      hr, guide, z: as for `rescale_terms`.
      codec: LR in [0,1] -> LR as it is after compression.
      differentiable: the reconstruction's gradient reaches the generator through codec and
        restorer; else, as released, it also goes to the quantised LR unchanged.
      lambda_jpeg: weight of |LR - restored|^2; the others are those of `rescale_terms`,
        with the restored LR (quantised) in the inverse.

    Returns:
      ({term: value}, restored LR [B,h,w,3]).
    """
    config = params.config
    lr, z_forward = forward(params, hr)
    quantized = quantize(lr)
    stored = codec(quantized) if differentiable else jax.lax.stop_gradient(codec(quantized))
    restored = compression.restore(params["restorer"], stored, config.restorer, config.compute)
    terms = {"l_jpeg_rec": lambda_jpeg * squared(quantized, restored)}
    if lambda_fit:
        terms["l_forw_fit"] = lambda_fit * squared(lr, guide)  # ty: ignore[invalid-argument-type]
    if lambda_ce:
        terms["l_forw_ce"] = lambda_ce * jnp.mean(sum_event(jnp.square(z_forward)))
    if lambda_rec:
        used = quantize(restored)
        image = inverse(params, used if differentiable else replace(quantized, used), z)
        terms["l_back_rec"] = lambda_rec * charbonnier(hr, image)
    return terms, restored


def restore_loss(
    params: Params,
    state: State,
    batch: Batch,
    key: Array,
    *,
    codec: str = "jpeg",
    quality: int = 90,
    **weights: Any,
) -> LossResult:
    """Return loss "restore" of IRN-Compression: JPEG between the directions, and the restorer.

    Options:
      codec, quality: see `compression.codec`.
      lambda_jpeg, lambda_fit, lambda_rec, lambda_ce: see `restore_terms`.
    """
    z = draw_z(key, params.config, batch["lr"])
    terms, _ = restore_terms(
        params,
        batch["hr"],
        batch["lr"],
        z,
        codec=compression.codec(codec, quality),
        differentiable=codec != "jpeg",
        **weights,
    )
    return sum(terms.values()), (state, terms)  # ty: ignore[invalid-explicit-return]
