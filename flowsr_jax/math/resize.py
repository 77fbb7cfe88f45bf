"""MATLAB-compatible bicubic resizing, for NumPy arrays and inside JAX programs.

Super-resolution papers make their LR images with MATLAB's `imresize` or with Python
copies of it; other libraries differ from it at borders and in rounding.  NumPy arrays
are resized in float64 with a fixed order of summation, so that a window of an image
gets the very bytes that the whole image gets.  JAX arrays and tracers are resized in
float32 by two products with constant matrices.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flowsr_jax import memory
from flowsr_jax.config import choice
from flowsr_jax.math.arrays import is_known
from flowsr_jax.types import AnyArray, PyTree

# How half-way values round, by border rule: tools differ in both at once (see `imresize`).
TIES = {"symmetric": "even", "replicate": "up"}
# Elements of the largest constant matrix put into a JAX program; beyond it, gathers.
MAX_MATRIX = 1 << 24
# Output bytes worked on at a time; keeps the sums in the CPU's cache.
BLOCK_BYTES = 1 << 19


def imresize(
    image: AnyArray,
    scale: float | None = None,
    output_shape: tuple[int, int] | None = None,
    *,
    border: str = "symmetric",
    uint8_stages: bool = True,
) -> AnyArray:
    """Resize images with MATLAB's bicubic kernel (antialiased when shrinking).

    Args:
      image: [H,W], [H,W,C] (three axes are always one image) or [B,H,W,C]; uint8 or
        floating.  NumPy or JAX, tracers included (differentiable, works under vmap).
      scale: output size is ceil(scale * size) per axis.
      output_shape: (height, width) instead of `scale`; each axis has its own ratio.
      border: "symmetric" mirrors the image with its edge repeated and rounds half-way
        uint8 values to even: the Python code of SRFlow, IRN and BasicSR.  "replicate"
        clamps to the edge and rounds half-way values up: older MATLAB.
      uint8_stages: round uint8 images to uint8 after each of the two passes, as the
        released code and older MATLAB do; False rounds only at the end, as newer
        MATLAB does.  Floating images are never rounded or clipped.

    Returns:
      the resized image, of the kind (NumPy or JAX), rank and dtype of `image`.  NumPy
      arrays are computed in float64 and equal the released code exactly; JAX arrays in
      float32 (float64 stays so), where a uint8 value may differ by 1 if it lies within
      float32 precision of half-way.  `border="replicate", uint8_stages=True` gives the
      LR files of Set5, Set14, BSD100 and Urban100 byte for byte.

    Raises:
      ValueError: neither or both of scale and output_shape, sizes that are not
        positive, another rank, dtype or border.

    Source: MATLAB's imresize as in SRFlow's code/imresize.py; Keys 1981, a = -0.5.
    """
    x, ranked = _as_batch(image)
    if not is_known(x.shape[1:3]):
        return ranked(_enlarge_any(x, scale, choice("border", border, TIES)))
    axes = _axes(x.shape[1:3], scale, output_shape, choice("border", border, TIES))
    rows = sum(16 * m * (math.ceil(4 / min(ratio, 1.0)) + 2) for _, (_, m, ratio) in axes)
    result = math.prod(m for _, (_, m, _) in axes) * x.shape[0] * x.shape[3]
    what = ("scale", scale) if output_shape is None else ("output_shape", output_shape)
    memory.require(*what, rows + result * x.dtype.itemsize, host=True)
    taps = {axis: _taps(*key, border) for axis, key in axes}
    if isinstance(x, jax.Array):
        out = _resize_jax(x, taps, border, uint8_stages)
    else:
        out = _resize_numpy(x, taps, border, uint8_stages)
    return ranked(out)


def imresize_window(
    image: np.ndarray,
    scale: float,
    top: int,
    left: int,
    height: int,
    width: int,
    *,
    border: str = "symmetric",
    uint8_stages: bool = True,
) -> np.ndarray:
    """Compute a window of `imresize(image, scale)` from the pixels it depends on.

    Args:
      image: the whole image, as in `imresize`; NumPy only.
      scale: as in `imresize`.
      top, left, height, width: the window, in pixels of the result.
      border, uint8_stages: as in `imresize`.

    Returns:
      exactly `imresize(image, scale)[top:top+height, left:left+width]` (for [H,W,C]).

    Raises:
      ValueError: a window that does not lie inside the result, or as `imresize`.
    """
    x, ranked = _as_batch(np.asarray(image))
    axes = _axes(x.shape[1:3], scale, None, choice("border", border, TIES))
    taps, cut = {}, {}
    for axis, (n, m, ratio) in axes:
        start, length = ((top, height), (left, width))[axis - 1]
        if start < 0 or length < 1 or start + length > m:
            name = ("rows", "columns")[axis - 1]
            raise ValueError(
                f"the window's {name} {start}..{start + length} must lie inside 0..{m}, "
                f"the result of scale {scale} on an image of shape {np.shape(image)}"
            )
        weights, index = (t[start : start + length] for t in _taps(n, m, ratio, border))
        first = index.min()
        cut[axis] = slice(first, index.max() + 1)
        taps[axis] = (weights, index - first)
    return ranked(_resize_numpy(x[:, cut[1], cut[2]], taps, border, uint8_stages))  # ty: ignore[invalid-explicit-return]


def downscale_taps(n: int, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """Return one axis of `imresize(image, 1 / scale)` as a linear map.

    Args:
      n: size of the result; the image has n * scale pixels.
      scale: whole number, at least 2.

    Returns:
      (weights float64 [n,P], positions int [n,P]): result i is the sum of the image's
      pixels at positions[i] times weights[i].  Mirrored positions occur twice.
    """
    return _taps(n * scale, n, 1 / scale, "symmetric")


def axis_taps(n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Return one axis of `imresize(image, output_shape=...)`, from n to m pixels, as a linear map.

    Returns:
      (weights float64 [m,P], positions int [m,P]): result i is the sum of the image's
      pixels at positions[i] times weights[i].
    """
    return _taps(n, m, m / n, "symmetric")


def _as_batch(image: AnyArray) -> tuple[AnyArray, Callable[[AnyArray], AnyArray]]:
    """Return the image as [B,H,W,C] and the function that restores its rank."""
    x = image if isinstance(image, jax.Array) else np.asarray(image)
    if x.ndim not in (2, 3, 4):
        raise ValueError(f"image must be [H,W], [H,W,C] or [B,H,W,C], got shape {x.shape}")
    if x.dtype != np.uint8 and not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"image must be uint8 or floating, got {x.dtype}")
    if 0 in (x.shape[1:3] if x.ndim == 4 else x.shape[:2]):
        raise ValueError(f"image has no pixels, its shape is {x.shape}")
    if x.ndim == 2:
        return x[None, :, :, None], lambda y: y[0, :, :, 0]
    if x.ndim == 3:
        return x[None], lambda y: y[0]
    return x, lambda y: y


def _axes(
    size: tuple[int, ...], scale: Any, output_shape: tuple[int, ...] | None, border: str
) -> list[tuple[int, tuple[int, int, float]]]:
    """Return [(axis, (n, m, ratio))] of [B,H,W,C] in the order of the two passes."""
    if (scale is None) == (output_shape is None):
        raise ValueError(
            f"give either scale or output_shape, got scale={scale!r}, output_shape={output_shape!r}"
        )
    if output_shape is None:
        try:
            ratio = float(scale)
        except (TypeError, ValueError):
            raise ValueError(f"scale must be one static number, got {scale!r}") from None
        if isinstance(scale, bool | str) or not 0 < ratio < math.inf:
            raise ValueError(f"scale must be a number above 0, got {scale!r}")
        plan = [(n, math.ceil(ratio * n), ratio) for n in size]
    else:
        try:
            shape = tuple(operator.index(m) for m in output_shape)
        except TypeError:
            shape = ()
        if len(shape) != 2 or min(shape) < 1:
            raise ValueError(
                f"output_shape must be (height, width), whole numbers above 0, got {output_shape!r}"
            )
        plan = [(n, m, m / n) for n, m in zip(size, shape, strict=True)]
    # The axis that shrinks most comes first; on a tie, the rows.
    return sorted(((1, plan[0]), (2, plan[1])), key=lambda a: a[1][2])


@functools.lru_cache(maxsize=128)
def _taps(n: int, m: int, ratio: float, border: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (weights float64 [m,P], 0-based input positions int [m,P]) of one axis."""
    shrink = min(ratio, 1.0)
    width = 4 / shrink
    center = np.arange(1, m + 1) / ratio + 0.5 * (1 - 1 / ratio)  # positions count from 1
    index = np.floor(center - width / 2)[:, None] + np.arange(math.ceil(width) + 2)
    weights = shrink * _cubic(shrink * (center[:, None] - index))
    weights /= weights.sum(axis=1, keepdims=True)
    index = index.astype(np.int64) - 1
    if border == "symmetric":
        index %= 2 * n
        index = np.where(index < n, index, 2 * n - 1 - index)
    else:
        index = index.clip(0, n - 1)
    used = weights.any(axis=0)
    weights, index = weights[:, used], index[:, used]
    weights.flags.writeable = index.flags.writeable = False
    return weights, index


def _cubic(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def _resize_numpy(x: Any, taps: PyTree, border: str, uint8_stages: bool) -> np.ndarray:
    dtype = x.dtype
    for number, (axis, (weights, index)) in enumerate(taps.items()):
        x = (_sum_rows if axis == 1 else _sum_columns)(x, weights, index)
        if dtype == np.uint8 and (uint8_stages or number == 1):
            x = np.rint(x) if TIES[border] == "even" else np.floor(x + 0.5)
            x = x.clip(0, 255).astype(np.uint8)
    return x.astype(dtype, copy=False)


# Both sums add tap after tap, elementwise: their result does not depend on the block or
# on the window, which a matrix product would not promise.


def _sum_rows(x: np.ndarray, weights: np.ndarray, index: np.ndarray) -> np.ndarray:
    b, _, w, c = x.shape
    out = np.zeros((b, len(index), w, c))
    block = max(1, BLOCK_BYTES // max(1, 8 * b * w * c))
    for start in range(0, len(index), block):
        rows = slice(start, start + block)
        for k in range(weights.shape[1]):
            out[:, rows] += x[:, index[rows, k]] * weights[rows, k, None, None]
    return out


def _sum_columns(x: np.ndarray, weights: np.ndarray, index: np.ndarray) -> np.ndarray:
    b, h, _, c = x.shape
    out = np.zeros((b, h, len(index), c))
    wide = np.repeat(weights[:, :, None], c, axis=2)  # spares a slow broadcast over channels
    block = max(1, BLOCK_BYTES // max(1, 8 * b * len(index) * c))
    for start in range(0, h, block):
        rows = slice(start, start + block)
        part = x[:, rows].astype(np.float64)
        for k in range(weights.shape[1]):
            out[:, rows] += part[:, :, index[:, k]] * wide[:, k]
    return out


def _resize_jax(x: AnyArray, taps: PyTree, border: str, uint8_stages: bool) -> AnyArray:
    dtype = x.dtype
    x = x.astype(dtype if dtype == jnp.float64 else jnp.float32)
    for number, (axis, (weights, index)) in enumerate(taps.items()):
        x = _apply_jax(x, axis, weights, index)
        if dtype == jnp.uint8 and (uint8_stages or number == 1):
            x = jnp.round(x) if TIES[border] == "even" else jnp.floor(x + 0.5)
            x = x.clip(0, 255)
    return x.astype(dtype)


def _enlarge_any(x: AnyArray, scale: float | None, border: str) -> AnyArray:
    """Return [B,H,W,C] of open (symbolic) sizes enlarged, as jax.export traces them.

    At a whole scale s the weights repeat every s results, so no table of all positions
    is needed.

    Raises:
      ValueError: another scale, or an image that is not floating.
    """
    if not isinstance(scale, int) or scale < 1 or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"an image of open size can be enlarged by a whole number, and must be floating; got "
            f"scale = {scale!r}, {x.dtype}"
        )
    middle = 8  # far from the border of an image of 16
    weights, index = _taps(2 * middle, 2 * middle * scale, float(scale), border)
    rows = slice(middle * scale, (middle + 1) * scale)
    weights, offset = weights[rows].astype(x.dtype), index[rows] - middle
    for axis in (1, 2):
        n = x.shape[axis]
        shape = [-1 if a == axis else 1 for a in range(4)]
        total = 0.0
        for k in range(weights.shape[1]):
            at = (jnp.arange(n)[:, None] + offset[:, k]).reshape(-1)
            if border == "symmetric":
                at = at % (2 * n)
                at = jnp.where(at < n, at, 2 * n - 1 - at)
            else:
                at = at.clip(0, n - 1)
            total += jnp.take(x, at, axis=axis) * jnp.tile(weights[:, k], n).reshape(shape)
        x = total  # ty: ignore[invalid-assignment]
    return x


def _apply_jax(x: AnyArray, axis: int, weights: AnyArray, index: AnyArray) -> AnyArray:
    n, m = x.shape[axis], len(index)
    if n * m <= MAX_MATRIX:
        matrix = np.zeros((m, n))
        np.add.at(matrix, (np.arange(m)[:, None], index), weights)
        equation = "mh,bhwc->bmwc" if axis == 1 else "mw,bhwc->bhmc"
        return jnp.einsum(equation, matrix.astype(x.dtype), x, precision=jax.lax.Precision.HIGHEST)
    shape = (m, 1, 1) if axis == 1 else (m, 1)
    weights = weights.astype(x.dtype)
    return sum(
        jnp.take(x, index[:, k], axis=axis) * weights[:, k].reshape(shape)
        for k in range(weights.shape[1])
    )  # ty: ignore[invalid-explicit-return]
