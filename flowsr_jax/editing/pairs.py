"""HR and LR files as a conditional flow takes them, of any size; masks; pixels back."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from flowsr_jax.console import UsageError
from flowsr_jax.drawing import SampleError
from flowsr_jax.files.images import read_rgb
from flowsr_jax.math.resize import imresize
from flowsr_jax.metrics import lr_psnr, psnr, to_uint8
from flowsr_jax.models import Params, family_of, scale_of

BELONG = 25.0  # dB; an HR and its LR, made by whatever downscaler, agree better than this


@dataclasses.dataclass(frozen=True)
class Pair:
    """An HR image and its LR, at sizes that the model takes.

    Attributes:
      hr: uint8 [s*h,s*w,3], or None where there is only an LR.
      lr: uint8 [h,w,3]; h and w are multiples of what the model needs, the images being
        continued by their mirror image at the bottom and right.
      size: (H, W) that results are cut to.
    """

    hr: np.ndarray | None
    lr: np.ndarray
    size: tuple[int, int]

    @property
    def picture(self) -> np.ndarray:
        """The HR image as it was in the file."""
        return self.hr[: self.size[0], : self.size[1]]


def read_pair(params: Params, hr, lr=None, *, mask=None, warn=lambda text: None) -> Pair:
    """Read an HR file and its LR file; without one, the LR is the HR's bicubic one.

    Args:
      params: parameters of a conditional flow.
      hr: file, or None where only the LR is there.
      lr: file, or None.
      mask: bool [H,W] where the HR was edited, which the LR need not agree with.
      warn: told if the two agree badly.

    Raises:
      UsageError: an HR that is not scale times the LR.
      ImageError: a file that cannot be read.
    """
    scale, multiple = scale_of(params), family_of(params).multiple(params.config)

    def grown(image, unit):
        return mirrored(image, [-(-n // unit) * unit for n in image.shape[:2]])

    small = None if lr is None else read_rgb(lr)
    if hr is None:
        size = small.shape[0] * scale, small.shape[1] * scale
        return Pair(None, grown(small, multiple), size)
    large = read_rgb(hr)
    size = large.shape[:2]
    large = grown(large, scale * multiple)
    made = imresize(large, 1 / scale)
    if small is None:
        return Pair(large, made, size)
    h, w = small.shape[:2]
    if size != (h * scale, w * scale):
        raise UsageError(
            f"{hr} is {size[1]}x{size[0]}, {lr} {w}x{h}: the HR must be {scale} times the LR, "
            f"{w * scale}x{h * scale}"
        )
    small = grown(small, multiple)
    same = np.ones(made.shape[:2], bool)
    if mask is not None:
        cells = padded_mask(mask, large.shape[:2]).reshape(len(made), scale, -1, scale)
        same = ~cells.any(axis=(1, 3))
    if same.any() and (found := psnr(made[same][None], small[same][None])) < BELONG:
        warn(f"{hr} and {lr} may not belong together: the LR-PSNR is {found:.1f} dB")
    return Pair(large, small, size)


def read_mask(path, size: tuple[int, int]) -> np.ndarray:
    """Read a mask: bool [H,W], True where a channel of the file is at least half white.

    Raises:
      UsageError: another size than (H, W), or nothing marked.
    """
    mask = read_rgb(path).max(axis=2) >= 128
    if mask.shape != tuple(size):
        raise UsageError(
            f"{path} is {mask.shape[1]}x{mask.shape[0]}: the mask must be of HR size, "
            f"{size[1]}x{size[0]}"
        )
    if not mask.any():
        raise UsageError(f"{path} marks nothing: a mask is white where to edit")
    return mask


def mirrored(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return [H,W,3] continued at the bottom and right to `size`: mirrored, edge repeated.

    An HR image and its LR, continued so, still belong together.
    """
    rows, columns = (n - m for n, m in zip(size, image.shape, strict=False))
    return np.pad(image, ((0, rows), (0, columns), (0, 0)), mode="symmetric")


def padded_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a mask [H,W] continued by False to `size`."""
    return np.pad(mask, [(0, n - m) for n, m in zip(size, mask.shape, strict=True)])


def as_image(batch: jax.Array, size: tuple[int, int]) -> np.ndarray:
    """Return decoded images [1,H',W',C], cut to (H, W), as uint8 [H,W,3]; C is 3, or 1 (grey).

    Raises:
      SampleError: values that are not finite.
    """
    image = np.asarray(batch)[0, : size[0], : size[1]]
    bad = np.count_nonzero(~np.isfinite(image).all(axis=-1))
    if bad:
        raise SampleError(f"{bad} non-finite pixels; try a lower temperature")
    return np.repeat(to_uint8(image), 3 // image.shape[-1], axis=-1)


def lr_column(params: Params, pair: Pair) -> tuple[str, np.ndarray]:
    """Return the column of the LR at HR size, each pixel a square."""
    scale, (h, w) = scale_of(params), pair.size
    return "LR", pair.lr.repeat(scale, axis=0).repeat(scale, axis=1)[:h, :w]


def consistency(params: Params, image: np.ndarray, pair: Pair) -> list[str]:
    """Return the note on how well the LR of a result is the LR that it was decoded with."""
    s = scale_of(params)
    h, w = (n // s for n in pair.size)
    if not h or not w:
        return []
    return [f"LR-PSNR {lr_psnr(image[: h * s, : w * s], pair.lr[:h, :w], s):.2f} dB"]
