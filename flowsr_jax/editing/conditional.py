"""Edits of super-resolved images through their exact latents.

For every family whose `encode` and `decode` take an LR image (SRFlow).  All are pure
functions that work under jit; images are float in [0,1], results are not clipped.  No
noise is added when encoding.  Errors are those of `flowsr_jax.encode` and `decode`, and
of the masks.

Source: Lugmayr et al. (ECCV 2020), applications; docs/papers/srflow.md section 9.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from flowsr_jax import api
from flowsr_jax.editing.interpolate import interpolate
from flowsr_jax.editing.masks import check_mask, latent_masks
from flowsr_jax.editing.normalize import normalize_latents
from flowsr_jax.math.resize import imresize
from flowsr_jax.models import Params, family_of, kind_of, scale_of, verb
from flowsr_jax.models.inputs import check_key, check_temperature


def check_model(params: Params) -> None:
    """Raise ValueError unless the model has exact latents of an HR image given its LR."""
    verb(params, "encode")
    family = family_of(params)
    if kind_of(params) != "super_resolution":
        raise ValueError(
            f"family {family.name!r} takes no LR image; this edit is for models that encode an HR "
            "image together with its LR (SRFlow)"
        )


def draw_latents(params: Params, lr, key, temperature=None) -> list[jax.Array]:
    """Return latents of a random image: `temperature` times standard-normal draws.

    Args:
      params: parameters of a conditional flow.
      lr: [B,h,w,3] float in [0,1].
      key: PRNG key.
      temperature: scalar >= 0; None is the model's default.

    Returns:
      float32 latents, finest level first; `flowsr_jax.decode` makes the images of them.
    """
    check_model(params)
    check_key(key)
    family = family_of(params)
    family.check_lr(params.config, lr)
    shapes = family.latent_shapes(params.config, lr.shape)
    keys = jax.random.split(key, len(shapes))
    t = temperature_of(params, temperature)
    return [t * jax.random.normal(k, s, jnp.float32) for k, s in zip(keys, shapes, strict=True)]


def temperature_of(params: Params, temperature):
    """Return the temperature as a float32 scalar; None is the model's default."""
    check_temperature(temperature)
    own = family_of(params).default_temperature(params.config)
    return jnp.float32(own if temperature is None else temperature)


def own_lr(params: Params, hr):
    """Return the MATLAB-bicubic LR [B,h,w,3] of HR images [B,s*h,s*w,3]; not clipped."""
    return imresize(jnp.asarray(hr, jnp.float32), 1 / scale_of(params))


def resample(params: Params, lr, latents: Sequence[jax.Array], mask, key, temperature=None):
    """Draw the latents of a region again.

    The change ends where the flow's networks end to see the region: see docs/editing.md.

    Args:
      params: parameters of a conditional flow.
      lr: [B,h,w,3] float in [0,1].
      latents: of the image to change, from `flowsr_jax.encode` or `draw_latents`.
      mask: bool, of HR size, [H,W], [B,H,W] or [B,H,W,1]; True where to draw.
      key: PRNG key.
      temperature: of the new latents, scalar >= 0; None is the model's default.

    Returns:
      (images [B,s*h,s*w,3], latents): decoded, and what was decoded.
    """
    fresh = draw_latents(params, lr, key, temperature)
    got = [tuple(getattr(z, "shape", ())) for z in latents]
    if got != [z.shape for z in fresh]:
        raise ValueError(f"latents must have the shapes {[z.shape for z in fresh]}, got {got}")
    masks = _masks(params, lr, mask)
    mixed = [jnp.where(m, f, z) for m, f, z in zip(masks, fresh, latents, strict=True)]
    return api.decode(params, mixed, lr), mixed


def normalize(params: Params, hr, lr, key, temperature=None, mode: str = "global", mask=None):
    """Return an image with its latents normalised; see `normalize_latents`.

    Args:
      params: parameters of a conditional flow.
      hr: [B,s*h,s*w,3] float in [0,1].
      lr: [B,h,w,3], its LR.
      key: PRNG key of the drawn statistics.
      temperature: scalar >= 0; None is the model's default.
      mode: "global", "local" or "spatial".
      mask: bool, of HR size; None is everywhere.

    Returns:
      [B,s*h,s*w,3] float32.
    """
    check_model(params)
    latents, _ = api.encode(params, hr, lr)
    t = temperature_of(params, temperature)
    masks = None if mask is None else _masks(params, lr, mask)
    return api.decode(params, normalize_latents(latents, key, t, mode, masks), lr)


def content_transfer(params: Params, edited_hr, lr, mask, key, temperature=None):
    """Make content that was pasted or painted into an image fit the image's LR.

    The edited image is encoded with the LR of the image without the edit, normalised
    locally where it was edited, and decoded with the same LR.  Arguments and result as
    `normalize`.
    """
    return normalize(params, edited_hr, lr, key, temperature, "local", mask)


def transfer(params: Params, hr_source, lr_source, lr_target):
    """Return the texture of one image on another: its latents, decoded with the other's LR.

    Args:
      params: parameters of a conditional flow.
      hr_source: [B,s*h,s*w,3] float in [0,1], where the texture is from.
      lr_source: [B,h,w,3], its LR.
      lr_target: [B,h,w,3], LR of the same size.

    Returns:
      [B,s*h,s*w,3] float32; hr_source itself (up to rounding) for lr_target = lr_source.
    """
    check_model(params)
    latents, _ = api.encode(params, hr_source, lr_source)
    return api.decode(params, latents, lr_target)


def restore(params: Params, degraded_hr, key, temperature=None):
    """Remove noise and other faults that are gone in the image's LR.

    The image is encoded with its own MATLAB-bicubic LR, its latents are normalised
    spatially and then locally, and decoded with that LR.

    Args:
      params: parameters of a conditional flow.
      degraded_hr: [B,s*h,s*w,3] float in [0,1].
      key: PRNG key of the drawn statistics.
      temperature: scalar >= 0; None is the model's default.

    Returns:
      [B,s*h,s*w,3] float32.
    """
    check_model(params)
    check_key(key)
    lr = own_lr(params, degraded_hr)
    latents, _ = api.encode(params, degraded_hr, lr)
    t = temperature_of(params, temperature)
    for k, mode in zip(jax.random.split(key), ("spatial", "local"), strict=True):
        latents = normalize_latents(latents, k, t, mode)
    return api.decode(params, latents, lr)


def interpolate_images(
    params: Params, hr_a, hr_b, weights, lr=None, *, keep_variance: bool = False
) -> jax.Array:
    """Return images on the way from one to another, through their latents.

    Args:
      params: parameters of a conditional flow.
      hr_a, hr_b: [B,s*h,s*w,3] float in [0,1].
      weights: [N]; 0 is hr_a and 1 is hr_b, up to the rounding of encode and decode.
      lr: [B,h,w,3] that both belong to, as two samples of one LR do.  None: each is
        encoded with its own MATLAB-bicubic LR, and these are interpolated linearly too.
      keep_variance: as `interpolate.interpolate`.

    Returns:
      [N,B,s*h,s*w,3] float32.
    """
    check_model(params)
    lrs = [own_lr(params, hr) for hr in (hr_a, hr_b)] if lr is None else [lr, lr]
    ends = [api.encode(params, hr, x)[0] for hr, x in zip((hr_a, hr_b), lrs, strict=True)]
    images = []
    for w in jnp.asarray(weights, jnp.float32):
        latents = interpolate(*ends, w, keep_variance=keep_variance)
        between = lr if lr is not None else (1 - w) * lrs[0] + w * lrs[1]
        images.append(api.decode(params, latents, between))
    return jnp.stack(images)


def _masks(params: Params, lr, mask):
    b, h, w, _ = lr.shape
    check_mask(mask, (h * scale_of(params), w * scale_of(params)), b)
    return latent_masks(mask, family_of(params).latent_shapes(params.config, lr.shape))
