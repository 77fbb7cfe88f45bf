"""One image array, super-resolved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from flowsr_jax.drawing import Sampler, image_strips
from flowsr_jax.drawing.strips import silent
from flowsr_jax.metrics import to_uint8
from flowsr_jax.models import Params
from flowsr_jax.models.inputs import check_key
from flowsr_jax.upscaling.finish import Projector


def upscale_image(
    params: Params,
    rgb: np.ndarray,
    key: jax.Array,
    *,
    num_samples: int = 1,
    temperature: float | None = None,
    tile: int | str = "auto",
    back_project: bool = False,
    options: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = silent,
) -> np.ndarray:
    """Super-resolve one 8-bit image of any size.

    Samples with non-finite pixels are drawn again with another key, three times.

    Args:
      params: model parameters.
      rgb: uint8 [h,w,3].
      key: PRNG key.
      num_samples, temperature, tile, back_project, options: as `upscale_files`.
      say: receives a line whenever samples are drawn again.

    Returns:
      uint8 [num_samples, s*h, s*w, 3], clipped and rounded.

    Raises:
      ValueError: an argument that does not fit.
      SampleError: pixels that stay non-finite.
    """
    rgb = np.asarray(rgb)
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise ValueError(f"rgb must be uint8 [h,w,3], got {rgb.dtype} {rgb.shape}")
    check_key(key)
    sampler = Sampler(
        params, num_samples=num_samples, temperature=temperature, tile=tile, options=options
    )
    strips = image_strips(sampler, rgb, key, say=say)
    if back_project:
        strips = Projector(rgb, sampler.scale, num_samples).run(strips)
    return np.concatenate([to_uint8(strip) for strip in strips], axis=1)
