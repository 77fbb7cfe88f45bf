"""What happens to the strips of an image on their way to a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from flowsr_jax.files.colour import LUMA as LUMA_WEIGHTS
from flowsr_jax.math.back_projection import back_project
from flowsr_jax.math.resize import axis_taps, imresize, imresize_window
from flowsr_jax.metrics import to_uint8

CONTEXT = 16  # LR rows on both sides that back-projection sees beyond those it corrects
LUMA = np.array(LUMA_WEIGHTS, np.float32)


class Window:
    """Turns strips into overlapping ones: each with some rows more on both sides.

    Args:
      total: rows of the image.
      context: rows that each piece gets beyond its own on both sides, where there are.
    """

    def __init__(self, total: int, context: int):
        self._total, self._context = total, context
        self._top = self._done = 0  # first row that is kept; first that is not handed on
        self._kept: np.ndarray | None = None

    def push(self, strip: np.ndarray) -> tuple[np.ndarray, int, slice] | None:
        """Add the next rows [n,rows,...].

        Returns:
          (rows, number of the first in the image, slice of those not yet handed on), or
          None until enough rows came.
        """
        kept = strip if self._kept is None else np.concatenate([self._kept, strip], axis=1)
        top, end = self._top, self._top + kept.shape[1]
        stop = end if end == self._total else end - self._context
        if stop <= self._done:
            self._kept = kept
            return None
        inner = slice(self._done - top, stop - top)
        self._done, self._top = stop, max(top, stop - self._context)
        self._kept = kept[:, self._top - top :].copy()
        return kept, top, inner


class LowResolutionError:
    """LR-PSNR (`flowsr_jax.metrics.lr_psnr`, 8 bits) of an image that comes in strips.

    Args:
      lr: uint8 [h,w] or [h,w,3].
      scale: the model's.
      num_samples: images per strip.
    """

    def __init__(self, lr: np.ndarray, scale: int, num_samples: int):
        self._lr, self._scale = lr, scale
        self._window = Window(scale * len(lr), 3 * scale)  # an LR row reaches 1.5 rows far
        self._squares = np.zeros(num_samples)

    def push(self, images: np.ndarray) -> None:
        """Add the next rows, uint8 [n, rows, s*w(, 3)]; rows a multiple of the scale."""
        found = self._window.push(images)
        if found is None:
            return
        rows, top, inner = found
        s = self._scale
        inside = slice(inner.start // s, inner.stop // s)
        want = self._lr[top // s :][inside].astype(np.float64)
        for i, image in enumerate(rows):
            self._squares[i] += np.square(imresize(image, 1 / s)[inside] - want).sum()

    def psnr(self) -> float:
        """Mean over the samples in dB; infinite if an LR is hit exactly."""
        with np.errstate(divide="ignore"):
            return float(np.mean(10 * np.log10(255**2 * self._lr.size / self._squares)))


class Projector:
    """Back-projection of an image that comes in strips.

    Args:
      lr: uint8 or uint16 [h,w] or [h,w,3].
      scale: the model's.
      num_samples: images per strip.

    Attributes:
      before, after: `LowResolutionError` of the image without and with it.
    """

    def __init__(self, lr: np.ndarray, scale: int, num_samples: int):
        self._lr, self._scale, self._top = lr, scale, np.iinfo(lr.dtype).max
        self._window = Window(scale * len(lr), scale * CONTEXT)
        lr8 = lr if lr.dtype == np.uint8 else np.rint(lr * (255 / self._top)).astype(np.uint8)
        self.before, self.after = (LowResolutionError(lr8, scale, num_samples) for _ in range(2))

    def run(self, strips: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Correct strips [n, rows, s*w(, 3)], finite floats; yields the same rows, float32."""
        for strip in strips:
            self.before.push(to_uint8(strip))
            found = self._window.push(strip)
            if found is not None:
                rows, top, inner = found
                s = self._scale
                lr = self._lr[top // s : top // s + rows.shape[1] // s] / self._top
                out = np.stack([back_project(x, lr, s)[inner].astype(np.float32) for x in rows])
                self.after.push(to_uint8(out))
                yield out


def grey(strips: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Luma [n,rows,w] of colour strips [n,rows,w,3]."""
    for strip in strips:
        yield strip @ LUMA


def cropped(strips: Iterable[np.ndarray], height: int, width: int) -> Iterator[np.ndarray]:
    """Cut strips [n,rows,w,...] at the bottom and right to an image of height x width."""
    top = 0
    for strip in strips:
        if top < height:
            yield strip[:, : height - top, :width]
        top += strip.shape[1]


def resized(
    strips: Iterable[np.ndarray], size: tuple[int, int], target: tuple[int, int]
) -> Iterator[np.ndarray]:
    """Resize an image that comes in strips by MATLAB's bicubic kernel (`imresize`).

    Args:
      strips: [n,rows,width,...] from top to bottom.
      size: (height, width) of the image.
      target: of the result.

    Yields:
      float32 strips of the result, of any number of rows.
    """
    rows, columns = (axis_taps(n, m) for n, m in zip(size, target, strict=True))
    last = np.maximum.accumulate(rows[1].max(axis=1))
    kept, top, done = None, 0, 0
    for strip in strips:
        kept = strip if kept is None else np.concatenate([kept, strip], axis=1)
        stop = int(np.searchsorted(last, top + kept.shape[1]))
        if stop > done:
            weights, index = (x[done:stop] for x in rows)
            yield _summed(_summed(kept, weights, index - top, 1), *columns, 2)
            done = stop
        first = int(rows[1][done:].min()) if done < target[0] else top + kept.shape[1]
        kept, top = kept[:, first - top :], first


def _summed(x: np.ndarray, weights: np.ndarray, index: np.ndarray, axis: int) -> np.ndarray:
    shape = [1] * x.ndim
    shape[axis] = -1
    out = np.float32(0)
    for k in range(weights.shape[1]):
        part = np.take(x, index[:, k], axis=axis)
        out = out + part * weights[:, k].astype(np.float32).reshape(shape)
    return out


class AlphaRows:
    """The alpha channel of a result: the input's, resized by MATLAB's bicubic kernel.

    Args:
      alpha: uint8 or uint16 [h,w].
      scale: of the result.
      target: (height, width) that the scaled channel is resized to, or None.
    """

    def __init__(self, alpha: np.ndarray, scale: float, target: tuple[int, int] | None = None):
        self._deep = alpha.dtype == np.uint16
        alpha = alpha.astype(np.float32) / 65535 if self._deep else alpha
        self._whole = target is not None
        self._alpha, self._scale = imresize(alpha, output_shape=target) if target else alpha, scale

    def rows(self, width: int, *, top: int, rows: int) -> np.ndarray:
        """Return rows top..top+rows-1, `width` columns, float32 in [0,1]."""
        if self._whole:
            found = self._alpha[top : top + rows, :width]
        else:
            found = imresize_window(self._alpha, self._scale, top, 0, rows, width)
        found = found.astype(np.float32) if self._deep else found / np.float32(255)
        return np.clip(found, 0, 1)
