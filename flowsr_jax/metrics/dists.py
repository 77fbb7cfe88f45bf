"""DISTS: structure and texture similarity of VGG16 features (Ding et al. 2020), in JAX."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from flowsr_jax.metrics.backbones import get_backbone, taps
from flowsr_jax.metrics.images import rgb_pair
from flowsr_jax.metrics.perceptual_weights import DISTS_CHANNELS, select_weights

__all__ = ["dists"]

# ImageNet's mean and deviation.
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
EPS = 1e-6


def dists(params, a, b):
    """Return the deep image structure and texture similarity; 0 for equal images, lower is nearer.

    Compares means (texture) and covariances (structure) over space of each channel of the
    image and of VGG16's features with L2 pooling.  The images are not resized (the authors'
    script shrinks the shorter side to 256 first).

    Args:
      params: of `load_dists_weights`: {name: array}.
      a, b: RGB [H,W,3] or [B,H,W,3]; uint8, or float in [0,1].  One image against a
        batch is compared with each image of it.

    Returns:
      A float for one pair, float32 [B] for a batch.

    Raises:
      ValueError: shapes that differ or are below 16 pixels a side, no RGB, values that are
        not finite or not in [0,1], weights that are missing or of another network.

    Source: DISTS_pytorch 0.1; Ding et al., TPAMI 2020.
    """
    params = select_weights(params, "vgg", dists=True)
    a, b, single = rgb_pair(a, b, get_backbone("vgg").minimum, "DISTS")
    value = _dists(params, a, b)
    value = value[0] if single else value
    if isinstance(value, jax.core.Tracer):
        return value
    return float(value) if single else np.asarray(value)


@jax.jit
def _dists(params, a, b):
    x = jnp.concatenate([a, b])
    stages = [x, *taps(params, (x - MEAN) / STD, "vgg", l2_pool=True)]
    weights = [jnp.split(params[k], np.cumsum(DISTS_CHANNELS)[:-1]) for k in ("alpha", "beta")]
    similarity = 0.0
    for f, alpha, beta in zip(stages, *weights, strict=True):
        mean = f.mean(axis=(1, 2))
        # Centred: E[xy] - E[x] E[y] loses all digits on smooth images in float32.
        f = f - mean[:, None, None]
        variance = jnp.square(f).mean(axis=(1, 2))
        n = len(a)
        covariance = (f[:n] * f[n:]).mean(axis=(1, 2))
        texture = _ratio(mean[:n] * mean[n:], jnp.square(mean[:n]) + jnp.square(mean[n:]))
        structure = _ratio(covariance, variance[:n] + variance[n:])
        similarity += (alpha * texture + beta * structure).sum(axis=-1)
    return 1 - similarity / (params["alpha"].sum() + params["beta"].sum())


def _ratio(product, squares):
    return (2 * product + EPS) / (squares + EPS)
