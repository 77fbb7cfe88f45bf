"""One image array: its windows drawn, joined and handed on in strips of full width."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator

import jax
import numpy as np

from flowsr_jax.drawing.noise import threefry
from flowsr_jax.drawing.tiles import Span, ramp, reflected, spans
from flowsr_jax.drawing.windows import Windows
from flowsr_jax.files.colour import LUMA

FRESH = 1 << 30  # key offset of redraws, beyond any sample's number


class SampleError(ValueError):
    """An image that could not be drawn; one line."""


def image_key(seed: int, name: str) -> jax.Array:
    """Return the key of an image: a function of the seed and of its name in its folder."""
    digest = hashlib.sha256(os.fsencode(name)).digest()
    return jax.random.fold_in(jax.random.key(seed), int.from_bytes(digest[:4], "little"))


def silent(text: str) -> None:
    del text


def image_strips(
    sampler: Windows,
    pixels: np.ndarray,
    key: jax.Array | None,
    *,
    say: Callable[[str], None] = silent,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[np.ndarray]:
    """Draw an image from top to bottom: its samples, or its LR image.

    Memory: the strip at hand, O(samples x width x height of a window), whatever the
    height of the image.

    Args:
      sampler: what draws, a `Sampler` or a `Downscaler`.
      pixels: uint8 or uint16, [h,w,3] in colour or [h,w] in grey.  Mirrored at the bottom
        and right to the sides that the sampler needs (np.pad's "reflect").
      key: PRNG key; None for a `Downscaler`.
      say: as `upscale_image`.
      tick: receives (windows drawn, of how many) after each.

    Yields:
      float32 [num_samples, rows, s*w, 3], not clipped, finite; rows are multiples of the
      scale s and add up to s*h.  Of a `Downscaler` [1, rows, ceil(w/s), channels], rows
      add up to ceil(h/s).

    Raises:
      SampleError: pixels that stay non-finite.
    """
    key = threefry(key)
    size = [-(-n // sampler.reads) for n in pixels.shape[:2]]
    *window, group = sampler.window(*size)
    rows, columns = (
        spans(n, side, sampler.step, plane)
        for n, side, plane in zip(size, window, sampler.plane(*size), strict=True)
    )
    total = len(rows) * len(columns)
    done = 0
    carry = None  # of the strip above, weighted: the rows that it shares with the next
    for row, below in zip(rows, [*rows[1:], None], strict=True):
        strip = None
        for column in columns:
            part = _finite(sampler, pixels, key, row, column, window, group, say)
            strip = _joined(strip, part, column, size[1] * sampler.gives, sampler.gives)
            done += 1
            tick(done, total)
        if carry is not None:
            rise = ramp(row.last - row.first, sampler.gives)[:, None, None]
            strip[:, : len(rise)] *= rise
            strip[:, : len(rise)] += carry
        if below is None:
            yield strip
        else:
            shared = (row.last - below.first) * sampler.gives
            fall = 1 - ramp(below.last - below.first, sampler.gives)[:, None, None]
            carry = strip[:, -shared:] * fall
            yield strip[:, :-shared]


def _joined(strip, part, column: Span, width, scale):
    """Put a window's part into the strip; ramps over what it shares with the one before."""
    if part.shape[2] == width:
        return part
    if strip is None:
        strip = np.zeros((*part.shape[:2], width, part.shape[3]), np.float32)
    first, last = column.first * scale, column.last * scale
    if first:
        rise = ramp(column.last - column.first, scale)[:, None]
        shared = strip[:, :, first : first + len(rise)]
        shared *= 1 - rise
        part[:, :, : len(rise)] *= rise
        part[:, :, : len(rise)] += shared
    strip[:, :, first:last] = part
    return strip


def _finite(sampler, pixels, key, row: Span, column: Span, window, group, say) -> np.ndarray:
    """Draw a window and cut out what it contributes; samples that fail are drawn again."""
    k, s = sampler.reads, sampler.gives
    where = (
        reflected(span.start * k, side * k, n)
        for span, side, n in zip((row, column), window, pixels.shape, strict=False)
    )
    image = pixels[np.ix_(*where)].astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)
    if image.ndim == 3 and sampler.channels_in == 1:
        image = image @ np.array(LUMA, np.float32)
    if image.ndim == 2:
        image = np.repeat(image[..., None], sampler.channels_in, axis=2)
    cut = tuple(slice((x.first - x.start) * s, (x.last - x.start) * s) for x in (row, column))

    def draw(key):
        return sampler.draw(image, key, row.start, column.start, group)[:, *cut]

    out = np.array(draw(key))  # a copy: what comes from the device is read-only
    for attempt in range(sampler.redraws + 1):
        wrong = ~np.isfinite(out).all(axis=-1)
        bad = wrong.any(axis=(1, 2))
        if not bad.any():
            return out
        count = f"{wrong.sum()} non-finite pixels in {bad.sum()} of {len(bad)} samples"
        if attempt < sampler.redraws:
            say(f"{count}; drawing again ({attempt + 1} of {sampler.redraws})")
            out[bad] = draw(jax.random.fold_in(key, FRESH + attempt))[bad]
    if sampler.redraws:
        count += f" after {sampler.redraws} further draws; try a lower temperature"
    raise SampleError(count)
