"""Images and likelihoods of a model, for the evaluation."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from flowsr_jax import api, memory
from flowsr_jax.drawing import Downscaler, SampleError, Sampler, image_strips
from flowsr_jax.math.gaussian import fitted_bits_per_dim
from flowsr_jax.metrics import to_uint8
from flowsr_jax.models import Params, family_of, scale_of


def draw(
    sampler: Sampler, lr: np.ndarray, key: jax.Array, say: Callable[[str], None]
) -> np.ndarray:
    """Draw the images that `upscale_files` would write; large ones in tiles.

    A key gives the same noise at every temperature.

    Args:
      sampler: model, temperature and number of samples.
      lr: uint8 [h,w,3].
      key: PRNG key.
      say: receives a line whenever samples are drawn again.

    Returns:
      float32 [num_samples, s*h, s*w, 3], finite, not clipped.

    Raises:
      SampleError: pixels that stay non-finite.
    """
    while True:
        try:
            return np.concatenate(list(image_strips(sampler, lr, key, say=say)), axis=1)
        except Exception as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or not sampler.shrink():
                raise
            say("out of memory; trying smaller tiles")


def draw_tight(
    params: Params,
    lr: np.ndarray,
    key: jax.Array,
    *,
    num_samples: int = 1,
    temperature: float | None = None,
    options: Mapping[str, Any] | None = None,
) -> np.ndarray:
    """Draw as scripts do: in one piece, padded only to what the model needs.

    Args, result and errors as `draw`; every image size compiles.
    """
    step = family_of(params).multiple(params.config)
    height, width = lr.shape[:2]
    padding = [(0, -height % step), (0, -width % step), (0, 0)]
    padded = np.pad(lr, padding, mode="reflect")[None].astype(np.float32) / 255
    size = 4 * num_samples * lr.size * scale_of(params) ** 2
    memory.require("num_samples", num_samples, size, count=num_samples, host=True)
    found = []
    for i in range(num_samples):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", api.NonFiniteWarning)  # an error below
            each = jax.random.fold_in(key, i)
            image = api.sample(params, padded, each, temperature=temperature, **(options or {}))
        scale = scale_of(params)
        found.append(np.asarray(image)[0, : scale * height, : scale * width])
    bad = np.count_nonzero(~np.isfinite(found))
    if bad:
        raise SampleError(f"{bad} non-finite values in {num_samples} samples")
    return np.stack(found)


def make_lr(params: Params, hr: np.ndarray) -> np.ndarray:
    """Return the LR image that a rescaling model makes; of large ones in tiles.

    Args:
      params: of a model with `downscale`.
      hr: uint8 [s*h,s*w,3].

    Returns:
      uint8 [h,w,3].

    Raises:
      SampleError: pixels that are not finite.
    """
    return to_uint8(np.concatenate(list(image_strips(Downscaler(params), hr, None)), axis=1)[0])


def likelihood(
    params: Params, pair: Mapping[str, Any], say: Callable[[str], None]
) -> dict[str, float]:
    """Return bits per dimension of the HR image, and of a Gaussian to compare with.

    The images are cut at the bottom and right to sides that the model takes.  The Gaussian
    stands around the image of temperature 0 and has the best deviation for this image.

    Args:
      params: of a flow.
      pair: {"hr": uint8 [s*h,s*w,3], "lr": uint8 [h,w,3]}.
      say: as `draw`.

    Returns:
      {"bits_per_dim": of the flow, "gaussian_bits_per_dim": what it has to beat}.

    Raises:
      ValueError: an image too small for the model.
    """
    step, scale = family_of(params).multiple(params.config), scale_of(params)
    height, width = (n // step * step for n in pair["lr"].shape[:2])
    if 0 in (height, width):
        raise ValueError(f"a likelihood needs at least {step}x{step} LR pixels")
    lr, hr = pair["lr"][:height, :width], pair["hr"][: scale * height, : scale * width]
    low, high = (x[None].astype(np.float32) / 255 for x in (lr, hr))
    bits = float(api.bits_per_dim(params, high, low)[0])
    sampler = Sampler(params, temperature=0.0)
    estimate = draw(sampler, pair["lr"], jax.random.key(0), say)[0].astype(np.float64)
    gaussian = fitted_bits_per_dim(255 * estimate[: scale * height, : scale * width], hr)
    return {"bits_per_dim": bits, "gaussian_bits_per_dim": gaussian}
