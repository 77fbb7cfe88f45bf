"""How an image is cut into windows: by the memory that a model's program says it needs."""

from __future__ import annotations

import abc
import math

import jax
import jax.numpy as jnp

from flowsr_jax import memory
from flowsr_jax.drawing.noise import square_side
from flowsr_jax.drawing.tiles import OVERLAP, floor_length, padded_size, round_up
from flowsr_jax.models import Params, family_of

MAX_PIXELS = 1_500_000  # LR pixels in one piece, however large the memory
LARGE = 512  # larger images are not measured as a whole, but by a window of half the side
SMALL = 128  # windows up to this side are drawn without a look at the memory
MIN_TILE = 32
SHARE = 0.5  # of the free memory
GUESS = 200  # times the output, where a backend does not tell its use


class Windows(abc.ABC):
    """What `image_strips` draws with; subclasses say what is drawn.

    Subclasses have `draw` and `compiled`.  All sizes are counted in LR pixels.

    Args:
      params: model parameters.
      num_samples: images per input.
      tile: as `Sampler`.

    Attributes:
      reads, gives: pixels per LR pixel and axis that a window reads and gives.
      channels_in: channels that a window reads.
      redraws: how often a window with non-finite pixels is drawn again.
      rescales: the model makes its own LR images.
      channels: of its LR images.

    Raises:
      ValueError: an argument out of its range, or a family that does not enlarge images.
    """

    reads: int
    gives: int
    channels_in: int
    redraws = 0

    def __init__(self, params: Params, num_samples: int, tile: int | str):
        family, config = family_of(params), params.config
        if family.kind(config) == "unconditional":
            raise ValueError(
                f"this {family.name} does not enlarge images: it draws them from nothing"
            )
        if not _whole(num_samples) or num_samples < 1:
            raise ValueError(f"num_samples = {num_samples!r} must be a whole number, at least 1")
        if tile != "auto" and (not _whole(tile) or 0 != tile < MIN_TILE):
            raise ValueError(
                f"tile = {tile!r} must be 'auto', 0 (one piece), or at least {MIN_TILE} LR pixels"
            )
        if num_samples > 1 and not family.stochastic:
            raise ValueError(f"family {family.name!r} draws one image; num_samples must be 1")
        self.params = params
        self.scale = family.scale(config)
        self.num_samples = num_samples
        self.tile = tile
        self.multiple = family.multiple(config)
        self.step = square_side(self.multiple)
        self.rescales = family.kind(config) == "rescaling"
        self.channels = family.lr_channels(config)
        if num_samples > 1:  # a strip holds all samples of one row of windows (`_host_rows`)
            least = 36 * (self.scale * self.step) ** 2 * num_samples
            memory.require("num_samples", num_samples, least, count=num_samples, host=True)
        self._per_pixel: dict[int, float] = {}
        self.budget = int(SHARE * memory.device_memory())
        self._strip = SHARE / 2 * memory.host_memory()

    def plane(self, height: int, width: int) -> tuple[int, int]:
        """Return the size that an image is padded to.

        There are few of them, so that few sizes compile.  The images of a rescaling model
        are padded only to what it needs: its inverse has to see the border that its
        forward pass saw.
        """
        if self.rescales:
            return round_up(height, self.multiple), round_up(width, self.multiple)
        return padded_size(height, width, self.step)

    def window(self, height: int, width: int) -> tuple[int, int, int]:
        """Choose how an image of height x width LR pixels is drawn.

        Returns:
          (height, width) of the windows, which is the padded image if it is drawn in
          one piece; and how many samples are drawn at once (all, or one).
        """
        plane = self.plane(height, width)
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

    def shrink(self) -> bool:
        """After memory ran out: make do with half; False if the tile was asked for."""
        if self.tile != "auto" or self.budget < 1 << 24:
            return False
        self.budget //= 2
        return True

    @abc.abstractmethod
    def draw(self, image, key, top: int, left: int, group: int):
        """Draw all samples of a window; see `Sampler.draw`."""

    @abc.abstractmethod
    def compiled(self, shape: tuple[int, int], group: int):
        """Return the compiled program that draws `group` samples of a window."""

    def avals(self):
        """Return (tree, ((shape, dtype), ...)) of the parameters, hashable."""
        leaves, tree = jax.tree.flatten(self.params)
        return tree, tuple((x.shape, jnp.result_type(x)) for x in leaves)

    def _fits(self, shape, group) -> bool:
        if group * math.prod(shape) <= SMALL * SMALL:
            return True
        return math.prod(shape) * self._bytes_per_pixel(group, shape) <= self.budget

    def _bytes_per_pixel(self, group, shape) -> float:
        """Memory of drawing `group` samples, per LR pixel; measured once, on `shape`."""
        if group not in self._per_pixel:
            if not SMALL * SMALL <= math.prod(shape) <= LARGE * LARGE:
                shape = (round_up(LARGE // 2, self.step),) * 2
            use = self.compiled(shape, group).memory_analysis()
            out = 12 * self.scale**2 * group
            temporary = use.temp_size_in_bytes / math.prod(shape) if use else GUESS * out
            self._per_pixel[group] = temporary + out
        return self._per_pixel[group]

    def _host_rows(self, width) -> int:
        """Rows of windows so high that a strip of them fits in the computer's memory."""
        # Bytes of float32 pixels: three copies per sample (drawn, joined, rounded), and what
        # the back-projection of one sample needs.
        row = 12 * (3 * self.num_samples + 8) * self.scale**2 * width
        rows = floor_length(self._strip / row, self.step)
        return max(rows, round_up(2 * OVERLAP, self.step))


def _whole(number) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)
