"""Draws windows: one compilation per window size, which also says what memory it needs."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flowsr_jax import api
from flowsr_jax.drawing.noise import square_side, threefry, window_noise
from flowsr_jax.drawing.windows import Windows
from flowsr_jax.models import Params, family_of
from flowsr_jax.models.inputs import check_temperature


class Sampler(Windows):
    """A model, made ready to draw windows of images; see `window` and `draw`.

    Args:
      params: model parameters.
      num_samples: samples per image, at least 1.
      temperature: as `flowsr_jax.sample`; None is the model's default.
      tile: LR pixels between the windows of a tiled image (32 or more, rounded up to
        the noise's squares); 0 draws every image in one piece; "auto" does so as long
        as the free memory allows, and else takes the largest tile that it allows.
      options: further options of the family's `sample`.

    Raises:
      ValueError: an argument out of its range, or a family that does not enlarge images.
    """

    redraws = 3

    def __init__(
        self,
        params: Params,
        *,
        num_samples: int = 1,
        temperature: float | None = None,
        tile: int | str = "auto",
        options: Mapping[str, Any] | None = None,
    ):
        super().__init__(params, num_samples, tile)
        check_temperature(temperature)
        if options:
            _check_options(params, options, self.channels)
        self.reads, self.gives, self.channels_in = 1, self.scale, self.channels
        self._temperature = None if temperature is None else np.float32(temperature)
        self._options = tuple(sorted((options or {}).items()))

    def draw(self, lr: np.ndarray, key, top: int, left: int, group: int) -> np.ndarray:
        """Draw all samples of a window.

        Args:
          lr: float32 [h,w,channels_in] in [0,1].
          key: the image's key, from `noise.threefry`.
          top, left: the window's place in the LR plane; multiples of `step`, except for a
            rescaling model.
          group: number of samples drawn at once.

        Returns:
          float32 [num_samples, s*h, s*w, 3], not clipped; may hold non-finite pixels.
        """
        run = self.compiled(lr.shape[:2], group)
        parts = []
        for first in range(0, self.num_samples, group):
            samples = np.arange(first, first + group, dtype=np.int32)
            place = np.array([top, left], np.int32)
            out = run(self.params, lr[None], key, samples, place, self._temperature)
            parts.append(np.asarray(out)[:, 0])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def but(self, **options) -> Sampler:
        """Return a sampler that differs in options of the family's `sample`."""
        other = copy.copy(self)
        other._options = tuple(sorted({**dict(self._options), **options}.items()))
        other._per_pixel = {}
        return other

    def compiled(self, shape, group):
        # A rescaling model restores with z = 0 and draws no noise: a program of its own.  Other
        # models take the temperature as an argument, so T = 0 shares the program of all T.
        zero = self.rescales and self._temperature == 0
        how = "zero" if zero else "default" if self._temperature is None else "given"
        return _compile(*self.avals(), shape, group, how, self._options, self.channels)


def _check_options(params: Params, options: Mapping[str, Any], channels: int) -> None:
    """Raise ValueError unless the family's `sample` takes the options with these values."""
    family = family_of(params)
    taken = inspect.signature(family.sample).parameters
    others = any(p.kind is p.VAR_KEYWORD for p in taken.values())
    unknown = [] if others else [name for name in options if name not in taken]
    if unknown:
        raise ValueError(f"family {family.name!r} has no {' and no '.join(unknown)} to choose")
    side = square_side(family.multiple(params.config))
    lr = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
    # Tracing alone raises the errors of wrong options.
    draw = functools.partial(family.sample, num_samples=1, temperature=None, **options)
    jax.eval_shape(draw, params, lr, jax.eval_shape(threefry))


@functools.lru_cache(maxsize=64)
def _compile(tree, avals, shape, group, temperature_is, options, channels):
    """Compile the drawing of a window of `shape` LR pixels; all arguments are hashable."""
    params = jax.tree.unflatten(tree, [jax.ShapeDtypeStruct(*a) for a in avals])
    family, options = family_of(params), dict(options)
    step = square_side(family.multiple(params.config))

    def draw(params, lr, key, samples, place, temperature):
        how = {"temperature": temperature, "num_samples": group, **options}
        if not family.stochastic:
            return api.sample(params, lr, None, **how)
        if family.noise_shapes is None:  # no noise that windows could share: a key for each
            for part in (samples[0], *(place // step)):
                key = jax.random.fold_in(key, part)
            return api.sample(params, lr, key, **how)
        noise_shapes = functools.partial(family.noise_shapes, params.config, **options)
        if temperature_is == "zero":
            noise = [jnp.zeros((group, *z)) for z in noise_shapes((1, *shape, 3))]
        else:
            squares = noise_shapes((1, step, step, 3))
            aligned = family.kind(params.config) != "rescaling"
            noise = _noise(key, samples, place, shape, step, squares, aligned)
        return api.sample(params, lr, None, noise=noise, **how)

    return (
        jax.jit(draw)
        .lower(
            params,
            jax.ShapeDtypeStruct((1, *shape, channels), jnp.float32),
            jax.eval_shape(threefry),
            jax.ShapeDtypeStruct((group,), jnp.int32),
            jax.ShapeDtypeStruct((2,), jnp.int32),
            None if temperature_is == "default" else jax.ShapeDtypeStruct((), jnp.float32),
        )
        .compile()
    )


def _noise(key, samples, place, shape, step, squares, aligned):
    """Noise of a window, [N,1,H,W,c] each; of squares, or cut out of those that it touches."""
    first, offset = place // step, place % step
    if aligned:
        return window_noise(key, samples, *first, tuple(n // step for n in shape), squares)
    number = tuple(-(-n // step) + 1 for n in shape)
    noise = window_noise(key, samples, *first, number, squares)
    for axis in (0, 1):
        sides = [square[axis + 1] for square in squares]
        noise = [
            jax.lax.dynamic_slice_in_dim(
                z, offset[axis] * side // step, shape[axis] * side // step, axis + 2
            )
            for z, side in zip(noise, sides, strict=True)
        ]
    return noise
