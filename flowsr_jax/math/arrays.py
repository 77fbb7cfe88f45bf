"""One code for NumPy on the host and JAX in programs."""

from __future__ import annotations

from typing import Any

import numpy as np

from flowsr_jax.types import AnyArray, Scalar, Shape

HOST = (np.ndarray, np.generic, bool, int, float, tuple, list, type(None))


def namespace(*arrays: Any) -> Any:
    """Return numpy if all arguments are NumPy arrays or plain numbers, else jax.numpy."""
    if all(isinstance(a, HOST) for a in arrays):
        return np
    import jax.numpy as jnp

    return jnp


def is_traced(value: Any) -> bool:
    """Return whether the values of an array are unknown yet (inside jit, grad or vmap)."""
    if isinstance(value, HOST):
        return False
    import jax

    return isinstance(value, jax.core.Tracer)


def shown(value: Any) -> str:
    """Return a value as one short line for a message; of arrays the shape and dtype."""
    if np.ndim(value) and hasattr(value, "dtype"):
        return f"an array {tuple(value.shape)} of {value.dtype}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:77] + "..."


def is_known(shape: Shape) -> bool:
    """Say whether all sizes of a shape are numbers (they are symbols in an open export)."""
    return all(isinstance(n, (int, np.integer)) for n in shape)


def check_images(x: AnyArray, channels: int | None = None) -> None:
    """Raise ValueError unless x is a float array [H,W,C] or [B,H,W,C] and not empty."""
    shape, dtype = np.shape(x), getattr(x, "dtype", None)
    if dtype not in (np.float32, np.float64):  # fewer bits do not hold 8-bit levels
        raise ValueError(
            f"x must be float32 or float64, in [0,1], got {dtype or type(x).__name__}; divide "
            "uint8 by 255"
        )
    wanted = "C" if channels is None else channels
    if len(shape) not in (3, 4) or 0 in shape or channels not in (None, shape[-1]):
        raise ValueError(f"x must be [H,W,{wanted}] or [B,H,W,{wanted}], got shape {shape}")


def check_values(
    name: str, value: Scalar, low: float, high: float, *, whole: bool = False, ends: bool = True
) -> None:
    """Raise ValueError unless known values lie in low..high (`ends`: ends included)."""
    if is_traced(value):
        return
    v = np.asarray(value)
    fine = v.dtype.kind in ("iu" if whole else "iuf")
    if fine:
        fine = ((low <= v) & (v <= high) if ends else (low < v) & (v < high)).all()
    if not fine:
        kind = "a whole number" if whole else "a number"
        bounds = f"in {low:g}..{high:g}" if ends else f"above {low:g} and below {high:g}"
        raise ValueError(f"{name} = {value!r} must be {kind} {bounds}")


def check_per_image(name: str, value: Scalar, x: AnyArray) -> None:
    """Raise ValueError unless `value` is one number or one per image [B] of x [B,...]."""
    shape = np.shape(value)
    if shape != () and (x.ndim != 4 or shape != x.shape[:1]):
        raise ValueError(
            f"{name} must be one number or one per image [B], got shape {shape} for x of "
            f"shape {x.shape}"
        )


def per_image(name: str, value: Scalar, x: AnyArray) -> AnyArray:
    """Return one number, or one per image, as an array that broadcasts against images x."""
    check_per_image(name, value, x)
    value = namespace(value, x).asarray(value, x.dtype)
    return value[:, None, None, None] if value.ndim else value


def straight_through(value: AnyArray, x: AnyArray) -> AnyArray:
    """Return exactly `value`, with the gradient of x."""
    if namespace(value, x) is np:
        return value
    from jax.lax import stop_gradient

    return stop_gradient(value) + (x - stop_gradient(x))
