"""LPIPS 0.1: perceptual distance of images (Zhang et al. 2018), in JAX."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from flowsr_jax.metrics.backbones import get_backbone, taps
from flowsr_jax.metrics.images import rgb_pair
from flowsr_jax.metrics.perceptual_weights import linear_names, select_weights

__all__ = ["lpips", "pairwise_lpips"]

# Of images in [-1,1]; ImageNet's mean and deviation on that scale, rounded.
SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
SCALE = np.array([0.458, 0.448, 0.450], np.float32)
EPS_NORM = 1e-10


def lpips(params, a, b, *, net: str = "alex", spatial: bool = False, per_layer: bool = False):
    """Return the learned perceptual distance; 0 for equal images, lower is nearer.

    Features of both images are normalised to unit length per position; their squared
    difference, weighted by channel, is averaged over positions and summed over layers.
    Works under jit, vmap and grad (with respect to images, floats in [0,1], and `params`).
    Every image size compiles once.

    Args:
      params: of `load_lpips_weights`: {official name: array}.
      a, b: RGB [H,W,3] or [B,H,W,3]; uint8, or float in [0,1].  One image against a
        batch is compared with each image of it.
      net: "alex" (SRFlow, NTIRE; at least 31 pixels a side) or "vgg" (BasicSR; 16).
      spatial: a map instead of a number: each layer upsampled bilinearly to H x W.  Its
        mean is near the number, but not equal to it.
      per_layer: the five layers' terms instead of their sum.

    Returns:
      A float for one pair; else a float32 array with the axes [B] (of a batch), [5]
      (per_layer), [H,W] (spatial), in this order.

    Raises:
      ValueError: shapes that differ or are too small, no RGB, values that are not finite
        or not in [0,1], another net, weights that are missing or of another net.

    Source: lpips 0.1.4 (version "0.1", lpips=True); Zhang et al., CVPR 2018, eq. 1.
    """
    params = select_weights(params, net, linear=True)
    a, b, single = rgb_pair(a, b, get_backbone(net).minimum, f"LPIPS with net={net!r}")
    terms = _terms(params, 2 * a - 1, 2 * b - 1, net=net, spatial=bool(spatial))
    value = terms if per_layer else terms.sum(axis=1)
    if single:
        value = value[0]
    if isinstance(value, jax.core.Tracer):
        return value
    return float(value) if value.ndim == 0 else np.asarray(value)


def pairwise_lpips(params, samples, *, net: str = "alex", spatial: bool = False) -> float:
    """Return the mean LPIPS over all pairs of samples of one image: a measure of diversity.

    The features of each sample are computed once.

    Args:
      params, net: as `lpips`.
      samples: [N,H,W,3], N >= 2; uint8 or float in [0,1].
      spatial: mean of the spatial map instead of the plain number.

    Returns:
      The mean over i < j.

    Raises:
      ValueError: fewer than two samples, or as `lpips`.

    Source: Palette (Saharia et al. 2022).
    """
    params = select_weights(params, net, linear=True)
    samples = np.asarray(samples)
    if samples.ndim != 4 or len(samples) < 2:
        raise ValueError(f"samples must be [N,H,W,3] with N >= 2, got shape {samples.shape}")
    x, _, _ = rgb_pair(samples, samples, get_backbone(net).minimum, f"LPIPS with net={net!r}")
    left, right = np.triu_indices(len(samples), 1)
    return float(_pairwise(params, 2 * x - 1, left, right, net=net, spatial=bool(spatial)))


@functools.partial(jax.jit, static_argnames=("net", "spatial"))
def _terms(params, a, b, *, net, spatial):
    """Return the layers' terms [B,5] or [B,5,H,W] of images in [-1,1]."""
    features = _features(params, jnp.concatenate([a, b]), net)
    first, second = ([f[: len(a)] for f in features], [f[len(a) :] for f in features])
    return _distance(params, (a, first), (b, second), spatial)


@functools.partial(jax.jit, static_argnames=("net", "spatial"))
def _pairwise(params, x, left, right, *, net, spatial):
    features = _features(params, x, net)

    def distance(pair):
        first, second = ((x[i][None], [f[i][None] for f in features]) for i in pair)
        return _distance(params, first, second, spatial)

    return jax.lax.map(distance, (left, right)).sum(axis=2).mean()


def _features(params, x, net):
    """Return unit vectors over the channels at each position of each layer."""
    found = taps(params, (x - SHIFT) / SCALE, net)
    return [f / (jnp.sqrt(jnp.sum(f * f, -1, keepdims=True)) + EPS_NORM) for f in found]


def _distance(params, first, second, spatial):
    (a, first), (b, second) = first, second
    terms = []
    for name, f, g in zip(linear_names(), first, second, strict=True):
        term = (jnp.square(f - g) * jnp.reshape(params[name], -1)).sum(axis=-1)
        if spatial:
            terms.append(jax.image.resize(term, (len(term), *a.shape[1:3]), "bilinear"))
        else:
            terms.append(term.mean(axis=(1, 2)))
    terms = jnp.stack(terms, axis=1)
    # A convolution may round the items of a batch differently: equal images would get 1e-16,
    # and the NTIRE score of a perfect sample a ratio of such numbers.
    same = jnp.all(a == b, axis=(1, 2, 3))
    return jnp.where(same.reshape(-1, *[1] * (terms.ndim - 1)), 0, terms)
