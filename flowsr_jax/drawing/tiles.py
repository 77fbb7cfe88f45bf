"""Where the windows of a tiled image lie, and how their results are joined.

Lengths are LR pixels.  Images are padded at the ends (`Windows.plane`); each axis is covered by
windows of one size, aligned to the squares of the noise where the padding allows it.
Neighbours overlap by at least OVERLAP; in the middle of the overlap, RAMP pixels wide,
the picture changes from one to the other.  So nothing is used from closer than
(OVERLAP - RAMP) / 2 pixels to the border of a window, unless that is the image's own.
"""

from __future__ import annotations

import dataclasses

import numpy as np

BUCKET = 32
SQUARES = (32, 64, 128, 192, 256)
OVERLAP = 32
RAMP = 16


@dataclasses.dataclass(frozen=True)
class Span:
    """One window of an axis, and the part of the image that it contributes to.

    Attributes:
      start: first LR pixel of the window; see `spans`.
      first, last: it contributes to the LR pixels first..last-1 of the image.
    """

    start: int
    first: int
    last: int


def round_up(length: int, step: int) -> int:
    """Return the smallest multiple of `step` that is at least `length`."""
    return -(-length // step) * step


def padded_size(height: int, width: int, step: int = 1) -> tuple[int, int]:
    """Return the size that an image is padded to; there are few of them.

    Every size costs a compilation, which takes as long as drawing many small images.  So
    images of up to 256 pixels a side become squares of SQUARES; of larger ones each side is
    a `padded_length`.  A size depends on the image alone, so that a result does not depend
    on what else is drawn.
    """
    longest = max(height, width)
    if longest <= SQUARES[-1]:
        side = next(side for side in SQUARES if side >= longest)
        return round_up(side, step), round_up(side, step)
    return padded_length(height, step), padded_length(width, step)


def padded_length(length: int, step: int = 1) -> int:
    """Return the length that an axis is padded to; there are few of them.

    Multiples of BUCKET up to 256, then four per doubling: beyond 128 at most 25 % too
    long.  All are multiples of `step`.
    """
    bucket = max(BUCKET, 1 << max(0, (length - 1).bit_length() - 3))
    return round_up(round_up(length, bucket), step)


def floor_length(length: float, step: int = 1) -> int:
    """Return the largest possible `padded_length` that is at most `length`; at least `step`."""
    side = max(BUCKET, int(length))
    side -= side % max(BUCKET, 1 << max(0, side.bit_length() - 3))
    return max(step, side - side % step)


def spans(length: int, window: int, step: int, plane: int | None = None) -> list[Span]:
    """Cover an axis with windows.

    Args:
      length: the image's.
      window: of the windows, a multiple of `step`; at least OVERLAP + RAMP, or all of
        the padded axis.
      step: side of the noise squares; a multiple of it lies between window starts.
      plane: the padded axis; None is `padded_length`.  If it is no multiple of `step`,
        neither is the last window's start.

    Returns:
      the windows in order.  All lie inside the padded axis; of neighbours, the last
      RAMP pixels (fewer at the end of the image) of one are the first of the next.
    """
    plane = padded_length(length, step) if plane is None else plane
    stride = window - round_up(OVERLAP, step)
    starts = [0]
    while starts[-1] + window < plane:
        starts.append(min(starts[-1] + stride, plane - window))
    middles = [(a + b + window) // 2 for a, b in zip(starts, starts[1:], strict=False)]
    firsts = [0, *(m - RAMP // 2 for m in middles)]
    lasts = [*(min(m + RAMP // 2, length) for m in middles), length]
    found = zip(starts, firsts, lasts, strict=True)
    return [Span(*s) for s in found if s[1] < length]  # the rest would see padding only


def ramp(pixels: int, scale: int) -> np.ndarray:
    """Return the weights of the later window in the first `pixels` it shares, float32."""
    rise = (np.arange(RAMP * scale, dtype=np.float32) + 0.5) / (RAMP * scale)
    return rise[: pixels * scale]


def reflected(start: int, count: int, length: int) -> np.ndarray:
    """Return positions start..start+count-1 of an axis that is mirrored at its last pixel.

    The mirror does not repeat the edge (np.pad's "reflect"), except for a single pixel.
    """
    period = max(1, 2 * (length - 1))
    index = np.arange(start, start + count) % period
    return np.minimum(index, period - index)
