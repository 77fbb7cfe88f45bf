"""Draws windows: one compilation per window size, which also says what memory it needs."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flowsr_jax import api
from flowsr_jax.models import Params, family_of
from flowsr_jax.models.inputs import check_temperature
from flowsr_jax.upscaling import memory
from flowsr_jax.upscaling.noise import square_side, threefry, window_noise
from flowsr_jax.upscaling.tiles import OVERLAP, floor_length, padded_length, round_up

MAX_PIXELS = 1_500_000  # LR pixels in one piece, however large the memory
LARGE = 512  # larger images are not measured as a whole, but by a window of half the side
SMALL = 128  # windows up to this side are drawn without a look at the memory
MIN_TILE = 32
SHARE = 0.5  # of the free memory
GUESS = 200  # times the output, where a backend does not tell its use


class Sampler:
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

    def __init__(
        self,
        params: Params,
        *,
        num_samples: int = 1,
        temperature: float | None = None,
        tile: int | str = "auto",
        options: Mapping[str, Any] | None = None,
    ):
        self.scale = getattr(params.config, "scale", None)
        if self.scale is None:
            raise ValueError(f"family {params.config.family!r} does not enlarge images")
        if not _whole(num_samples) or num_samples < 1:
            raise ValueError(f"num_samples = {num_samples!r} must be a whole number, at least 1")
        if tile != "auto" and (not _whole(tile) or 0 != tile < MIN_TILE):
            raise ValueError(
                f"tile = {tile!r} must be 'auto', 0 (one piece), or at least {MIN_TILE} LR pixels"
            )
        check_temperature(temperature)
        self.params = params
        self.num_samples = num_samples
        self.tile = tile
        self.step = square_side(family_of(params).multiple(params.config))
        self._temperature = None if temperature is None else np.float32(temperature)
        self._options = tuple(sorted((options or {}).items()))
        self._per_pixel: dict[int, float] = {}
        self.budget = int(SHARE * memory.device_memory())
        self._strip = SHARE / 2 * memory.host_memory()

    def window(self, height: int, width: int) -> tuple[int, int, int]:
        """Choose how an image of height x width LR pixels is drawn.

        Returns:
          (height, width) of the windows, which is the padded image if it is drawn in
          one piece; and how many samples are drawn at once (all, or one).
        """
        plane = tuple(padded_length(n, self.step) for n in (height, width))
        groups = sorted({self.num_samples, 1}, reverse=True)
        if self.tile != "auto":
            if self.tile:
                side = round_up(self.tile, self.step) + round_up(OVERLAP, self.step)
                plane = tuple(min(side, n) for n in plane)
            return *plane, next(g for g in groups if g == 1 or self._fits(plane, g))
        for group in groups:
            if math.prod(plane) <= MAX_PIXELS and self._fits(plane, group):
                rows = self._host_rows(plane[1])
                return min(plane[0], rows), plane[1], group
        for group in groups:
            pixels = min(MAX_PIXELS, self.budget / self._bytes_per_pixel(group, plane))
            side = floor_length(math.sqrt(pixels), self.step)
            if group == 1 or side >= LARGE // 2:
                break
        side = max(side, round_up(2 * OVERLAP, self.step))
        rows = self._host_rows(width)
        return min(side, plane[0], rows), min(side, plane[1]), group

    def draw(self, lr: np.ndarray, key, top: int, left: int, group: int) -> np.ndarray:
        """Draw all samples of a window.

        Args:
          lr: float32 [h,w,3] in [0,1].
          key: the image's key, from `noise.threefry`.
          top, left: the window's place in the LR plane, multiples of `step`.
          group: number of samples drawn at once.

        Returns:
          float32 [num_samples, s*h, s*w, 3], not clipped; may hold non-finite pixels.
        """
        run = self._compiled(lr.shape[:2], group)
        parts = []
        for first in range(0, self.num_samples, group):
            samples = np.arange(first, first + group, dtype=np.int32)
            place = np.array([top // self.step, left // self.step], np.int32)
            out = run(self.params, lr[None], key, samples, place, self._temperature)
            parts.append(np.asarray(out)[:, 0])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def shrink(self) -> bool:
        """After memory ran out: make do with half; False if the tile was asked for."""
        if self.tile != "auto" or self.budget < 1 << 24:
            return False
        self.budget //= 2
        return True

    def _compiled(self, shape, group):
        leaves, tree = jax.tree.flatten(self.params)
        avals = tuple((x.shape, jnp.result_type(x)) for x in leaves)
        default = self._temperature is None
        return _compile(tree, avals, shape, group, default, self._options)

    def _fits(self, shape, group) -> bool:
        if group * math.prod(shape) <= SMALL * SMALL:
            return True
        return math.prod(shape) * self._bytes_per_pixel(group, shape) <= self.budget

    def _bytes_per_pixel(self, group, shape) -> float:
        """Memory of drawing `group` samples, per LR pixel; measured once, on `shape`."""
        if group not in self._per_pixel:
            if not SMALL * SMALL <= math.prod(shape) <= LARGE * LARGE:
                shape = (round_up(LARGE // 2, self.step),) * 2
            use = self._compiled(shape, group).memory_analysis()
            out = 12 * self.scale**2 * group
            temporary = use.temp_size_in_bytes / math.prod(shape) if use else GUESS * out
            self._per_pixel[group] = temporary + out
        return self._per_pixel[group]

    def _host_rows(self, width) -> int:
        """Rows of windows so high that a strip of them fits in the computer's memory."""
        # Float32 pixels: drawn, joined and rounded; and one sample in back-projection.
        row = 12 * (3 * self.num_samples + 8) * self.scale**2 * width
        rows = floor_length(self._strip / row, self.step)
        return max(rows, round_up(2 * OVERLAP, self.step))


def _whole(number) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)


@functools.lru_cache(maxsize=64)
def _compile(tree, avals, shape, group, default_temperature, options):
    """Compile the drawing of a window of `shape` LR pixels; all arguments are hashable."""
    params = jax.tree.unflatten(tree, [jax.ShapeDtypeStruct(*a) for a in avals])
    family, options = family_of(params), dict(options)
    step = square_side(family.multiple(params.config))
    squares = tuple(n // step for n in shape)

    def draw(params, lr, key, samples, place, temperature):
        how = {"temperature": temperature, "num_samples": group, **options}
        if family.noise_shapes is None:
            # Deterministic by the protocol; a key for those that draw from it all the same.
            for part in (samples[0], *place):
                key = jax.random.fold_in(key, part)
            return api.sample(params, lr, key, **how)
        shapes = family.noise_shapes(params.config, (1, step, step, 3), **options)
        noise = window_noise(key, samples, *place, squares, shapes)
        return api.sample(params, lr, None, noise=noise, **how)

    return (
        jax.jit(draw)
        .lower(
            params,
            jax.ShapeDtypeStruct((1, *shape, 3), jnp.float32),
            jax.eval_shape(threefry),
            jax.ShapeDtypeStruct((group,), jnp.int32),
            jax.ShapeDtypeStruct((2,), jnp.int32),
            None if default_temperature else jax.ShapeDtypeStruct((), jnp.float32),
        )
        .compile()
    )
