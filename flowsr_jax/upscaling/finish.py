"""What happens to the strips of an image on their way to a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from flowsr_jax.math.back_projection import back_project
from flowsr_jax.math.resize import imresize, imresize_window
from flowsr_jax.metrics import to_uint8

CONTEXT = 16  # LR rows on both sides that back-projection sees beyond those it corrects
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # BT.601


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


def alpha_rows(alpha: np.ndarray, scale: float, width: int, *, top: int, rows: int) -> np.ndarray:
    """Rows top..top+rows-1, `width` columns, of uint8 [h,w] resized with MATLAB's bicubic."""
    return imresize_window(alpha, scale, top, 0, rows, width)
