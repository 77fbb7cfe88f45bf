"""PyTorch's `interpolate`, which the published pipelines resize with (no antialiasing)."""

from __future__ import annotations

import functools
import math

import numpy as np

from flowsr_jax.config import choice
from flowsr_jax.math.arrays import check_images, namespace

MODES = ("area", "bilinear", "bicubic")


def torch_interpolate(
    x, size: tuple[int, int] | None = None, scale: float | None = None, mode: str = "bilinear"
):
    """Resize images as torch.nn.functional.interpolate(align_corners=False) does.

    Args:
      x: floats, [H,W,C] or [B,H,W,C].
      size: (height, width) of the result; or
      scale: factor; the result has floor(n * scale) pixels, and samples are 1/scale apart.
      mode: "area" (mean over the pixels that a bin touches), "bilinear" or "bicubic"
        (Keys, a = -0.75; may leave [0,1]).

    Returns:
      array like x.

    Raises:
      ValueError: neither or both of size and scale, a result without pixels, another
        shape, dtype or mode.

    Source: PyTorch, aten/src/ATen/native/UpSample.h and AdaptiveAveragePooling.cpp.
    """
    check_images(x)
    choice("mode", mode, MODES)
    if (size is None) == (scale is None):
        raise ValueError(f"give either size or scale, got size={size!r}, scale={scale!r}")
    sides = x.shape[-3:-1]
    if scale is not None:
        if isinstance(scale, bool) or not 0 < scale < math.inf:
            raise ValueError(f"scale must be a number above 0, got {scale!r}")
        size = tuple(math.floor(n * scale) for n in sides)
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"x of {sides[0]}x{sides[1]} pixels cannot become {size!r}")
    xp = namespace(x)
    for axis, n, m in zip((x.ndim - 3, x.ndim - 2), sides, size, strict=True):
        weights, index = _taps(n, int(m), n / m if scale is None else 1 / scale, mode)
        trailing = (-1,) + (1,) * (x.ndim - 1 - axis)
        x = sum(
            xp.take(x, index[:, k], axis=axis) * weights[:, k].astype(x.dtype).reshape(trailing)
            for k in range(weights.shape[1])
        )
    return x


@functools.lru_cache(maxsize=256)
def _taps(n: int, m: int, step: float, mode: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (weights [m,taps], positions [m,taps]) of one axis."""
    out = np.arange(m)
    if mode == "area":
        first, end = out * n // m, -(-(out + 1) * n // m)
        index = first[:, None] + np.arange((end - first).max())
        weights = (index < end[:, None]) / (end - first)[:, None]
    else:
        source = (out + 0.5) * step - 0.5
        near = np.floor(source)
        t = source - near
        if mode == "bilinear":
            weights, offsets = np.stack([1 - t, t], 1), np.arange(2)
        else:
            offsets = np.arange(-1, 3)
            weights = _keys(t[:, None] - offsets)
        index = near[:, None].astype(np.int64) + offsets
    index = index.clip(0, n - 1)
    weights.flags.writeable = index.flags.writeable = False
    return weights, index


def _keys(x: np.ndarray, a: float = -0.75) -> np.ndarray:
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
