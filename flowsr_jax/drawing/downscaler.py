"""The LR images of a rescaling model, window by window."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from flowsr_jax.drawing.windows import Windows
from flowsr_jax.models import Params, family_of, verb


class Downscaler(Windows):
    """A rescaling model, made ready to downscale windows of HR images.

    Args:
      params: parameters of a model that has `downscale`.
      tile: as `Sampler`, in LR pixels.

    Raises:
      ValueError: an argument out of its range, or another model.
    """

    channels_in = 3

    def __init__(self, params: Params, *, tile: int | str = "auto"):
        verb(params, "downscale")
        super().__init__(params, 1, tile)
        self.reads, self.gives = self.scale, 1

    def draw(self, hr: np.ndarray, key, top: int, left: int, group: int) -> np.ndarray:
        """Downscale a window: float32 [s*h,s*w,3] to [1,h,w,channels], neither clipped nor rounded.

        The other arguments are those of `Sampler.draw`; they do not matter.
        """
        del key, top, left
        shape = tuple(n // self.scale for n in hr.shape[:2])
        return np.asarray(self.compiled(shape, group)(self.params, hr[None]))

    def compiled(self, shape, group):
        del group
        return _compile(*self.avals(), tuple(n * self.scale for n in shape))


@functools.lru_cache(maxsize=64)
def _compile(tree, avals, shape):
    params = jax.tree.unflatten(tree, [jax.ShapeDtypeStruct(*a) for a in avals])
    downscale = functools.partial(family_of(params).downscale, quantize=False)
    hr = jax.ShapeDtypeStruct((1, *shape, 3), jnp.float32)
    return jax.jit(downscale).lower(params, hr).compile()
