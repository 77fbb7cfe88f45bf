"""Edits in the latent space of flows that draw images from nothing: Glow, RealNVP, NICE.

A *code* is an image's latents in one vector [D]: finest level first, each in C order, after
the priors (so Glow's codes are standard normal).  Glow's demo has the same order, so its
released directions (z_manipulate.npy) fit.  D is the number of values of the image.

Kingma and Dhariwal (2018) sections 6 and 7; docs/papers/glow.md section 5.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from flowsr_jax import api, memory
from flowsr_jax.editing.interpolate import interpolate
from flowsr_jax.models import Params, family_of, kind_of
from flowsr_jax.models.base import Family

TEMPERATURES = (0.0, 0.25, 0.6, 0.7, 0.8, 0.9, 1.0)


def check_unconditional(params: Params) -> Family:
    """Return the model's family, if it has exact latents and needs no LR.

    Raises:
      ValueError: another family.
    """

    family = family_of(params)
    if kind_of(params) != "unconditional" or family.encode is None or not family.likelihood:
        raise ValueError(f"family {family.name!r} is no flow that draws images from nothing")
    return family


def flatten(latents: Sequence[jax.Array]) -> jax.Array:
    """Return latents [B,...], finest level first, as codes [B,D]."""
    return jnp.concatenate([jnp.reshape(z, (len(z), -1)) for z in latents], axis=1)


def unflatten(params: Params, codes, shape: Sequence[int] | None = None) -> list[jax.Array]:
    """Return the latents of codes, the inverse of `flatten`, as `flowsr_jax.decode` takes them.

    Args:
      params: model parameters.
      codes: [B,D].
      shape: of one image, [H,W,C]; None is the size that the model draws.

    Raises:
      ValueError: codes of another length than that of the images.
    """
    family, codes = check_unconditional(params), jnp.asarray(codes)
    shape = tuple(family.image_shape(params.config) if shape is None else shape)
    if codes.ndim != 2 or codes.shape[1] != np.prod(shape):
        raise ValueError(
            f"codes of images {shape} must be [B,{np.prod(shape)}], got {tuple(codes.shape)}"
        )
    shapes = family.latent_shapes(params.config, (len(codes), *shape))
    ends = np.cumsum([np.prod(s[1:]) for s in shapes])[:-1].tolist()
    return [jnp.reshape(z, s) for z, s in zip(jnp.split(codes, ends, axis=1), shapes, strict=True)]


def to_codes(params: Params, images, *, label=None) -> jax.Array:
    """Return codes [B,D] of images [B,H,W,C] in [0,1].  No noise is added: they decode exactly.

    Args:
      label: class of the images, of a class-conditional model.

    Raises:
      ValueError: another family, or images that the model cannot take.
    """
    check_unconditional(params)
    return flatten(api.encode(params, images, **_given(label))[0])


def from_codes(params: Params, codes, shape=None, *, label=None) -> jax.Array:
    """Return images [B,H,W,C] of codes [B,D], not clipped; `shape` as in `unflatten`."""
    return api.decode(params, unflatten(params, codes, shape), **_given(label))


def temperature_sweep(
    params: Params,
    key,
    temperatures: Sequence[float] = TEMPERATURES,
    *,
    num_samples: int = 1,
    shape: Sequence[int] | None = None,
    label=None,
) -> jax.Array:
    """Return the same draws at several temperatures.

    Args:
      params: model parameters.
      key: PRNG key of the one noise.
      temperatures: factors of the latents, those of all levels; T of them.
      num_samples: B.
      shape: of one image; None is the model's.
      label: class of all images, or of each [B], of a class-conditional model.

    Returns:
      [T,B,H,W,C], not clipped.
    """
    check_unconditional(params)
    options = {"num_samples": num_samples, "shape": shape, **_given(label)}
    return jnp.stack(
        [api.sample(params, None, key, temperature=t, **options) for t in temperatures]
    )


def interpolate_images(params: Params, first, second, points: int = 5, *, label=None) -> jax.Array:
    """Return images on the straight line between the codes of two images.

    Args:
      params: model parameters.
      first, second: [H,W,C] in [0,1], of one shape.
      points: number of images; the first and the last one are the two, up to rounding.
      label: class of both, of a class-conditional model.

    Returns:
      [points,H,W,C], not clipped.

    Raises:
      ValueError: images of different shapes, or that the model cannot take; points < 2.
    """
    check_unconditional(params)
    check_points(points, np.shape(first))
    if np.shape(first) != np.shape(second):
        raise ValueError(
            f"the two images must have one shape, got {np.shape(first)} and {np.shape(second)}"
        )
    latents, _ = api.encode(params, jnp.stack([first, second]), **_given(label))
    ends = ([z[i] for z in latents] for i in (0, 1))
    line = interpolate(*ends, jnp.linspace(0.0, 1.0, points))
    return api.decode(params, line, **_given(label))


def attribute_directions(batches: Iterable[tuple], factor: float = 1.6) -> np.ndarray:
    """Return the mean code of images with an attribute minus that of images without it.

    Sums are kept, not codes, so the number of images is no matter of memory.

    Args:
      batches: pairs (codes [b,D], values [b,A]); 1 where an image has the attribute, else -1.
        For instance `((to_codes(params, x), v) for x, v in data)`.
      factor: of the difference; 1.6 is that of the released directions.

    Returns:
      [A,D] float32.

    Raises:
      ValueError: values other than 1 and -1, an attribute that all images have or lack, or
        no images.
    """
    sums = None  # [2,A,D]: with, without
    counts = 0
    for codes, values in batches:
        codes, values = np.asarray(codes), np.asarray(values)
        if values.ndim != 2 or len(values) != len(codes):
            raise ValueError(f"values must be [{len(codes)},A], got shape {values.shape}")
        if not np.isin(values, (-1, 1)).all():
            bad = values[~np.isin(values, (-1, 1))].flat[0]
            raise ValueError(f"values of attributes must be 1 or -1, got {bad}")
        marks = np.stack([values == 1, values == -1]).astype(codes.dtype)
        found = np.swapaxes(marks, 1, 2) @ codes
        sums = found.astype(np.float64) if sums is None else np.add(sums, found, out=sums)
        counts = counts + marks.sum(axis=1)
    if sums is None:
        raise ValueError("no images, so no directions of attributes")
    if not np.all(counts):
        index = int(np.flatnonzero((counts == 0).any(axis=0))[0])
        raise ValueError(
            f"attribute {index}: {int(counts[0, index])} images have it and "
            f"{int(counts[1, index])} lack it; both are needed"
        )
    means = sums / counts[..., None]
    return (factor * (means[0] - means[1])).astype(np.float32)


def manipulate(codes, directions, amounts) -> jax.Array:
    """Return codes moved along directions: z + sum over i of amount_i direction_i.

    Args:
      codes: [B,D].
      directions: [A,D].
      amounts: [A], or [B,A]; the released demo goes from -1 to 1.

    Returns:
      [B,D].
    """
    return jnp.asarray(codes) + jnp.asarray(amounts) @ jnp.asarray(directions)


def attribute_line(code, direction, points: int = 5, reach: float = 1.0) -> jax.Array:
    """Return [points,D] from code - reach * direction to code + reach * direction, [D] each."""
    check_points(points, np.shape(code))
    return manipulate(code, direction[None], jnp.linspace(-reach, reach, points)[:, None])


def projection(codes, directions) -> jax.Array:
    """Return how much of each attribute codes have: z . d / |d|^2, [B,D] and [A,D] to [B,A].

    Moving a code by a direction adds 1 to its score.
    """
    directions = jnp.asarray(directions)
    return jnp.asarray(codes) @ directions.T / jnp.sum(jnp.square(directions), axis=1)


def check_points(points, shape: Sequence[int] = (), name: str = "points") -> None:
    """Raise ValueError unless `points` is an integer >= 2 and so many images [H,W,C] fit."""
    if not isinstance(points, int) or points < 2:
        raise ValueError(f"{name} = {points!r} must be a whole number, at least 2")
    memory.require(name, points, 4 * points * math.prod(shape), count=points)


def _given(label) -> dict:
    return {} if label is None else {"label": label}
