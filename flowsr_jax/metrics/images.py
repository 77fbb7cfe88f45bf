"""What counts as an image here: checked once, turned into float64 grey levels."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

# A float32 copy of u/255 is off by at most 1.6e-5 grey levels; real float images
# are never this close to whole grey levels at every pixel.
SNAP = 5e-5


def to_uint8(x, mode: str = "round") -> np.ndarray:
    """Turn a float image into the 8-bit image that would be written to a file.

    Clips to [0,1] and multiplies by 255 (in float32 for float32 and narrower input,
    as the published code does).

    Args:
      x: floats of any shape, nominal range [0,1]; uint8 is returned unchanged.
      mode: "round" (half to even; the default everywhere) or "truncate" (SRFlow's
        published evaluation; half a grey level darker on average).

    Returns:
      uint8 array of the same shape.

    Raises:
      ValueError: another mode, another dtype, or values that are not finite.

    Source: SRFlow test.py (truncate); BasicSR tensor2img (round).
    """
    if mode not in ("round", "truncate"):
        raise ValueError(f"mode = {mode!r} is not one of 'round', 'truncate'")
    x = np.asarray(x)
    if x.dtype == np.uint8:
        return x
    _require_float(x, "x")
    if x.dtype != np.float64:
        x = x.astype(np.float32)
    if not np.isfinite(x).all():
        raise ValueError(f"x has {np.count_nonzero(~np.isfinite(x))} pixels that are not finite")
    levels = np.clip(x, 0, 1) * x.dtype.type(255)
    return (np.rint(levels) if mode == "round" else levels).astype(np.uint8)


def levels(x, name: str = "image") -> np.ndarray:
    """Return grey levels in 0..255 as float64, for uint8 or float [0,1] input.

    A float image that is uint8/255 up to rounding gives exactly the uint8 values,
    so that both forms of one image give the same number in every metric.

    Raises:
      ValueError: another dtype, not finite, or floats that are clearly not in [0,1].
    """
    x = np.asarray(x)
    if x.dtype == np.uint8:
        return x.astype(np.float64)
    _require_float(x, name)
    out = x.astype(np.float64)
    if not np.isfinite(out).all():
        raise ValueError(f"{name} has {np.count_nonzero(~np.isfinite(out))} values not finite")
    if out.size and (out.min() < -1 or out.max() > 2):
        raise ValueError(
            f"{name} must be uint8 or float in [0,1]; its floats span "
            f"{out.min():.4g}..{out.max():.4g}"
        )
    out *= 255
    whole = np.rint(out)
    return whole if np.abs(out - whole).max(initial=0) < SNAP else out


def pair(a, b, crop: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return two equally sized images as [H,W,C] grey levels, borders cropped.

    Args:
      a, b: [H,W], [H,W,1] or [H,W,3]; uint8 or float [0,1].
      crop: pixels to remove from each of the four sides.

    Raises:
      ValueError: shapes that differ or are not one image; a crop that leaves nothing.
    """
    out = []
    for name, x in (("a", a), ("b", b)):
        x = levels(x, name)
        x = x[..., None] if x.ndim == 2 else x
        if x.ndim != 3 or x.shape[2] not in (1, 3) or 0 in x.shape:
            raise ValueError(
                f"{name} must be one image [H,W], [H,W,1] or [H,W,3], got shape {x.shape}"
                " (for a batch, average over its images)"
            )
        out.append(x)
    if out[0].shape != out[1].shape:
        raise ValueError(f"a and b must have one shape, got {out[0].shape} and {out[1].shape}")
    height, width, _ = out[0].shape
    if isinstance(crop, bool) or crop != int(crop) or not 0 <= crop < min(height, width) / 2:
        raise ValueError(
            f"crop = {crop!r} must be a whole number that leaves a part of {height}x{width} pixels"
        )
    crop = int(crop)
    return tuple(x[crop : height - crop, crop : width - crop] for x in out)


def rgb_pair(a, b, minimum: int, what: str):
    """Return RGB images as two float32 batches in [0,1], for metrics computed in JAX.

    Args:
      a, b: [H,W,3] or [B,H,W,3]; uint8, or float in [0,1] (traced arrays: float, and their
        values are not looked at).  One of them may be a single image against a batch.
      minimum: pixels that each side must have.
      what: the metric's name in messages.

    Returns:
      a [B,H,W,3], b [B,H,W,3] (B may be 1 in one of them), and whether both were single.

    Raises:
      ValueError: shapes that differ or are too small, no RGB, another dtype or range.
    """
    shapes, out = [], []
    for name, x in (("a", a), ("b", b)):
        if not isinstance(x, jax.core.Tracer):
            x = levels(x, name) / 255
            if x.size and x.min() < -0.25:
                raise ValueError(
                    f"{name} must be uint8 or float in [0,1], its smallest value is "
                    f"{x.min():.4g} (for images in [-1,1]: (x + 1) / 2)"
                )
        elif not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f"{name} must be float in [0,1] while traced, got dtype {x.dtype}")
        if x.ndim not in (3, 4) or x.shape[-1] != 3 or 0 in x.shape:
            raise ValueError(f"{name} must be RGB, [H,W,3] or [B,H,W,3], got shape {x.shape}")
        shapes.append(x.shape)
        out.append(jnp.asarray(x if x.ndim == 4 else x[None], jnp.float32))
    (first, second), single = shapes, len(shapes[0]) == len(shapes[1]) == 3
    if first[-3:] != second[-3:] or (len(first) == len(second) and first != second):
        raise ValueError(f"a and b must have one shape, got {first} and {second}")
    if min(first[-3:-1]) < minimum:
        raise ValueError(
            f"images of {first[-3]}x{first[-2]} pixels are too small: {what} needs at least "
            f"{minimum} pixels a side"
        )
    return *out, single


def _require_float(x: np.ndarray, name: str) -> None:
    # bfloat16 is an extension type: its kind is not "f".
    if x.dtype.kind != "f" and x.dtype.name != "bfloat16":
        raise ValueError(f"{name} must be uint8 (0..255) or float ([0,1]), got dtype {x.dtype}")
