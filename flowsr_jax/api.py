"""The public verbs.  All are pure functions of their arguments.

They work under jit, vmap and grad and on sharded arrays.  Shapes, dtypes, channel
counts and sizes are checked before any compilation; value ranges are checked when
the values are there (not while tracing).  Images are float in [0,1], RGB,
channels last; results are not clipped: `jnp.clip(sr, 0, 1)` is the caller's choice.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from flowsr_jax import memory
from flowsr_jax.bijectors.invertibility import InvertibilityReport
from flowsr_jax.io import torch_file, torch_import, weights
from flowsr_jax.io.torch_write import to_torch
from flowsr_jax.math import gaussian
from flowsr_jax.math.arrays import is_traced, shown
from flowsr_jax.models import Params, family_of, inputs, kind_of, verb
from flowsr_jax.models.base import Family
from flowsr_jax.models.importer import import_weights
from flowsr_jax.types import AnyArray, Array

Path = str | os.PathLike[str]


class NonFiniteWarning(RuntimeWarning):
    """A drawn image holds non-finite pixels (a flow that explodes)."""


def load(path: Path) -> Params:
    """Load parameters from a folder written by `save`, or from a run's work directory.

    "demo" is the small SRFlow 4x in the package, unless there is a path of that name.

    Raises:
      FileNotFoundError, ValueError: nothing there, or tensors that do not fit.
    """
    return weights.load(inputs.named(path))


def save(params: Params, path: Path) -> None:
    """Write parameters and their config to a folder (safetensors and JSON), atomically."""
    weights.save(params, inputs.named(path))


def from_torch(
    path_or_mapping: Path | Mapping[str, AnyArray],
    model: str | None = None,
    *,
    key: str | None = None,
    **overrides: Any,
) -> Params:
    """Return parameters from official weights, without PyTorch.

    Args:
      path_or_mapping: a .pth, .npz or .safetensors path (read by a restricted reader), that
        of a TensorFlow checkpoint (read by TensorFlow), or {official key: array}.
      model: name of a family, or of one of its forms (as ddpm, the form that is told
        timesteps); None infers it from the keys.
      key: the container or net to take of several, its path joined by dots ("ema",
        "state_dict.netG").
      **overrides: hyper-parameters that weights do not determine, e.g.
        stacked_blocks=(1, 8, 15, 22), affine_eps=1e-4.

    Raises:
      ValueError: weights of no known family, or keys that do not fit it.

    Warns:
      UserWarning: containers that were opened, prefixes removed, tensors not used or not
        finite, and what an evaluation decided.
    """
    notes: list[str] = []
    file = torch_file.open_weights(path_or_mapping, notes.append, key)
    recorded = torch_import.record_of(file, str(path_or_mapping))
    imported = import_weights(file.tensors, model, recorded=recorded, **overrides)
    notes += imported.notes
    if imported.ignored:
        names = ", ".join(imported.ignored[:3])
        notes.append(f"{len(imported.ignored)} unused tensors left out: {names}")
    if notes:
        warnings.warn("; ".join(notes), stacklevel=2)
    return imported.params


def read_model(path: Path) -> Params:
    """Return what the commands take as MODEL: `load`'s paths, or a file for `from_torch`."""
    return from_torch(path) if os.path.isfile(path) else load(path)


def sample(
    params: Params,
    lr: AnyArray | None,
    key: Array | None,
    *,
    temperature: ArrayLike | None = None,
    num_samples: int | None = None,
    **options: Any,
) -> Array:
    """Draw super-resolved images.

    Args:
      params: model parameters.
      lr: [B,h,w,3] float in [0,1]; None for models that draw images from nothing.
      key: a JAX PRNG key; the same key gives the same picture.  None with `noise=`, and for
        families that draw nothing.
      temperature: traced scalar >= 0, the standard deviation of all latents; 0 is the
        deterministic image.  None is the model's default.
      num_samples: None for one image per LR, or N for N samples per LR; what depends
        on the LR alone is computed once and shared by all of them.  With lr None, the
        number of images.
      **options: further options of the family.  Families that draw noise take `noise=`:
        the standard-normal arrays to use in place of draws from the key, in the shapes
        of `Family.noise_shapes`, with a leading axis N if there is num_samples.  With lr
        None: `shape` of an image or of the batch, and `label`, where there are classes.

    Returns:
      [B,s*h,s*w,3] float32, or [N,B,s*h,s*w,3] with num_samples and an lr.  Not clipped.

    Raises:
      TypeError, ValueError: an argument that the model cannot take.

    Warns:
      NonFiniteWarning: with the count of non-finite pixels (not while tracing).
    """
    family = family_of(params)
    family.check_lr(params.config, lr)
    inputs.check_options(family, options)
    drawn_alone = lr is None  # the family checks what else says how many and how large
    given = [options.get(name) for name in ("noise", "x_T")]
    if key is not None or (family.stochastic and all(x is None for x in given)):
        inputs.check_key(key)
    if not drawn_alone:
        inputs.check_temperature(temperature)
        if temperature is None:
            temperature = family.default_temperature(params.config)
        if temperature is not None:  # of any type: one program for all
            temperature = jnp.asarray(temperature, jnp.float32)
    inputs.check_num_samples(num_samples)
    if not drawn_alone and num_samples is not None and not (is_traced(lr) or is_traced(key)):
        pixels = lr.size // lr.shape[-1] * family.scale(params.config) ** 2
        size = 4 * num_samples * pixels * family.channels(params.config)
        memory.require("num_samples", num_samples, size, count=num_samples)
    if options.get("noise") is not None and not drawn_alone:
        options["noise"] = inputs.check_noise(family, params.config, lr, num_samples, **options)
    lr = None if drawn_alone else jnp.asarray(lr, jnp.float32)
    out = family.sample(
        params, lr, key, temperature=temperature, num_samples=num_samples, **options
    )
    if not is_traced(out):
        bad = int(jnp.sum(~jnp.isfinite(out)))
        if bad:
            warnings.warn(
                f"{bad} of {out.size} sampled values are not finite; lower the temperature, or see "
                "flowsr_jax.check_invertibility(params, lr)",
                NonFiniteWarning,
                stacklevel=2,
            )
    return out


def encode(
    params: Params, hr: AnyArray, lr: AnyArray | None = None, **options: Any
) -> tuple[list[Array], Array | None]:
    """Return the exact latents of an HR image and its log-likelihood.

    Args:
      params: parameters of an invertible model.
      hr: [B,s*h,s*w,3] float in [0,1].
      lr: [B,h,w,3] float in [0,1]; None for models that need none (IRN, Glow).
      **options: of the family, e.g. `label` of a class-conditional Glow.

    Returns:
      (latents, log_prob): a list, finest level first; log p(hr | lr) of the density on
      [0,1]-valued images, [B] float32 in nats, None for IRN, which is no density.  No
      noise is added.
    """
    encode_fn = verb(params, "encode")
    hr, given = _check_pair(params, hr, lr)
    return encode_fn(params, hr, **given, **options)


def decode(
    params: Params, latents: Sequence[AnyArray], lr: AnyArray | None = None, **options: Any
) -> Array:
    """Return the image of latents (finest level first) and LR, not clipped: `encode` inverted."""
    decode_fn = verb(params, "decode")
    family = family_of(params)
    if kind_of(params) != "super_resolution":
        _refuse_lr(family, lr)
        return decode_fn(params, latents, **options)
    family.check_lr(params.config, lr)
    assert lr is not None  # or `check_lr` has raised
    shapes = [tuple(s) for s in verb(params, "latent_shapes")(params.config, lr.shape)]
    got = [tuple(getattr(z, "shape", ())) for z in latents]
    if got != shapes:
        raise ValueError(
            f"latents must have the shapes {shapes} (finest level first) for lr "
            f"{tuple(lr.shape)}, got {got}"
        )
    latents = [jnp.asarray(z, jnp.float32) for z in latents]
    return decode_fn(params, latents, jnp.asarray(lr, jnp.float32), **options)


def bits_per_dim(
    params: Params,
    hr: AnyArray,
    lr: AnyArray | None = None,
    key: Array | None = None,
    **options: Any,
) -> Array:
    """Return the negative log-likelihood of 8-bit images, in bits per dimension [B].

    -log p(hr | lr) / (ln 2 * H * W * 3) + log2(255): the density at the image times the
    volume of an 8-bit cell (1/255 per value), all three channels counted.  With a `key`,
    uniform noise of one grey level is added first (dequantisation), which makes the
    expectation an upper bound on the code length of the 8-bit image.

    Raises:
      ValueError: a model without a likelihood (IRN: sum(z^2) is no density of images).
    """
    encode_fn = verb(params, "encode")
    family = family_of(params)
    if not family.likelihood:
        raise ValueError(f"family {family.name!r} has no likelihood, so no bits per dimension")
    hr, given = _check_pair(params, hr, lr)
    if key is not None:
        inputs.check_key(key)
    if family.bits_per_dim is not None:
        return family.bits_per_dim(params, hr, key=key, **given, **options)
    if key is not None:
        hr = hr + (jax.random.uniform(key, hr.shape, jnp.float32) - 0.5) / 255.0
    _, log_prob = encode_fn(params, hr, **given, **options)
    dims = hr.shape[1] * hr.shape[2] * hr.shape[3]
    return gaussian.bits_per_dim(log_prob, dims)


def downscale(params: Params, hr: AnyArray, *, quantize: bool = True) -> Array:
    """Return the LR image that a rescaling model makes of an HR image, for `upscale`.

    Args:
      params: parameters of a rescaling model (IRN).
      hr: [B,s*h,s*w,3] float in [0,1].
      quantize: 8-bit values, as a file holds them; else the network's own floats.

    Returns:
      [B,h,w,3] uint8, or float32 with quantize=False (not clipped).  Store it without
      loss: a JPEG file loses what `upscale` needs.

    Raises:
      TypeError, ValueError: an argument that the model cannot take.
    """
    if not isinstance(quantize, bool):
        raise TypeError(f"quantize must be True or False, got {shown(quantize)}")
    return verb(params, "downscale")(params, hr, quantize=quantize)


def upscale(
    params: Params,
    lr: AnyArray,
    key: Array | None = None,
    *,
    temperature: ArrayLike | None = None,
    z: AnyArray | None = None,
    **options: Any,
) -> Array:
    """Return the HR image of an LR image that `downscale` of the same model made.

    Args:
      params: parameters of a rescaling model (IRN).
      lr: [B,h,w,3] uint8 as `downscale` returns it, or float in [0,1].
      key: a JAX PRNG key to draw z from; with neither key nor z, z is 0.
      temperature: standard deviation of the drawn z; None is the model's default.
      z: [B,h,w,3*s*s-3], used as it is.
      **options: of the family.

    Returns:
      [B,s*h,s*w,3] float32, not clipped.

    Raises:
      TypeError, ValueError: an argument that the model cannot take.
    """
    return verb(params, "upscale")(params, lr, key, temperature=temperature, z=z, **options)


def predict_noise(
    params: Params, noisy: AnyArray, level: AnyArray, condition: AnyArray | None = None
) -> Array:
    """Return one evaluation of a diffusion model's network.

    Args:
      params: parameters of a diffusion family.
      noisy: [B,H,W,3] float in [-1,1] plus noise.
      level: [B]; sqrt(gamma) of the noise, or the integer step of DDPM models.
      condition: [B,H,W,3] float in [-1,1]; None for unconditional models.

    Returns:
      the predicted noise eps [B,H,W,3] float32.

    Raises:
      ValueError: a family without such a network, or arrays that do not fit.
    """
    return verb(params, "predict_noise")(params, noisy, level, condition)


def check_invertibility(
    params: Params,
    lr: AnyArray | None,
    key: Array | None = None,
    *,
    temperature: ArrayLike | None = None,
    limit: float = 1e-3,
) -> InvertibilityReport:
    """Return a report of a flow's numerical invertibility, layer by layer.

    Draws latents at `temperature` (None: the model's default), runs the inverse one
    layer at a time on lr [B,h,w,3] (None for models that draw images from nothing), and
    measures each layer's scales, the condition number of each 1x1 convolution and the
    round-trip error.

    Returns:
      A report; `print(report)` is a table, `report.fault` names the layer at fault
      (None if every layer's relative round-trip error is below `limit`).
    """
    check = verb(params, "check_invertibility")
    family_of(params).check_lr(params.config, lr)
    inputs.check_temperature(temperature)
    inputs.check_limit(limit)
    lr = None if lr is None else jnp.asarray(lr, jnp.float32)
    return check(params, lr, key, temperature=temperature, limit=limit)


def _refuse_lr(family: Family, lr: AnyArray | None) -> None:
    if lr is not None:
        raise ValueError(f"family {family.name!r} needs no lr here; leave it out")


def _check_pair(
    params: Params, hr: AnyArray, lr: AnyArray | None
) -> tuple[Array, dict[str, Array]]:
    """Return (hr in float32, {"lr": lr in float32} or {} for families that need none)."""
    family = family_of(params)
    if kind_of(params) != "super_resolution":
        _refuse_lr(family, lr)
        verb(params, "check_hr")(params.config, hr)
        return jnp.asarray(hr, jnp.float32), {}
    family.check_lr(params.config, lr)
    inputs.check_pair(hr, lr, family.scale(params.config), family.channels(params.config))
    return jnp.asarray(hr, jnp.float32), {"lr": jnp.asarray(lr, jnp.float32)}


__all__ = [
    "NonFiniteWarning",
    "bits_per_dim",
    "check_invertibility",
    "decode",
    "downscale",
    "encode",
    "from_torch",
    "load",
    "predict_noise",
    "sample",
    "save",
    "to_torch",
    "upscale",
]
