"""Checks of arrays that users hand in: one clear error before any compilation."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from flowsr_jax.config import nearest
from flowsr_jax.math.arrays import is_traced, shown
from flowsr_jax.types import Array


def _is_concrete(x: Any) -> bool:
    """Return whether the values can be looked at here and now."""
    return not is_traced(x) and getattr(x, "is_fully_addressable", True)


def check_image(name: str, x: Any, channels: int = 3, margin: float = 0.25) -> None:
    """Check an image batch: rank 4, channel count, float dtype, finite, about [0,1].

    Values are looked at only when they are there (not while tracing).  `margin` outside
    [0,1] is allowed, for bicubic overshoot.

    Raises:
      TypeError: not an array, or not of a floating dtype.
      ValueError: wrong rank, channel count, size or range; names what is allowed.
    """
    if not hasattr(x, "shape") or not hasattr(x, "dtype"):
        raise TypeError(f"{name} must be an array, got {type(x).__name__}")
    shape = tuple(x.shape)
    if len(shape) != 4:
        hint = "; add a batch axis: x[None]" if len(shape) == 3 else ""
        raise ValueError(f"{name} must be [B, H, W, {channels}], got shape {shape}{hint}")
    if shape[-1] != channels:
        hint = " (channels come last)" if shape[1] == channels else ""
        raise ValueError(
            f"{name} must have {channels} channels in its last axis, got shape {shape}{hint}"
        )
    if 0 in shape:
        raise ValueError(f"{name} is empty: shape {shape}")
    if not jax.numpy.issubdtype(x.dtype, jax.numpy.floating):
        hint = "; divide by 255" if x.dtype == np.uint8 else ""
        raise TypeError(f"{name} must be float in [0, 1], got dtype {x.dtype}{hint}")
    if _is_concrete(x):
        with jax.ensure_compile_time_eval():  # a constant inside somebody's jit is concrete too
            low, high = float(x.min()), float(x.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ValueError(f"{name} holds non-finite values")
        if low < -margin or high > 1.0 + margin:
            hint = "; it looks like 0..255: divide by 255" if high > 2 else ""
            if low >= -1.01 and high <= 1.01:
                hint = "; it looks like [-1, 1]: use (x + 1) / 2"
            raise ValueError(
                f"{name} must lie in [0, 1], got values from {low:.4g} to {high:.4g}{hint}"
            )


def check_lr(lr: Any, channels: int = 3, multiple: int = 1) -> None:
    """Check an LR batch by `check_image`, and that its sides are multiples of `multiple`."""
    check_image("lr", lr, channels)
    h, w = lr.shape[1:3]
    if h % multiple or w % multiple:
        raise ValueError(
            f"lr height and width must be multiples of {multiple}, got {h}x{w}; reflect-pad at the "
            f"bottom and right to {-(-h // multiple) * multiple}x{-(-w // multiple) * multiple} "
            "and crop the result"
        )


def check_pair(hr: Any, lr: Any, scale: int, channels: int = 3) -> None:
    """Check an HR batch against its LR batch: same count, exactly `scale` times the size."""
    # What a flow decodes need not lie in [0,1] and must encode again, so hr gets a wide margin.
    check_image("hr", hr, channels, margin=64.0)
    want = (lr.shape[0], scale * lr.shape[1], scale * lr.shape[2], channels)
    if tuple(hr.shape) != want:
        raise ValueError(
            f"hr must be {scale} times lr: expected shape {want} for lr {tuple(lr.shape)}, "
            f"got {tuple(hr.shape)}"
        )


def check_temperature(temperature: Any) -> None:
    """Check a temperature: a scalar >= 0 (or a tracer)."""
    if temperature is None or not _is_concrete(temperature):
        return
    value = np.asarray(temperature)
    kinds = (jax.numpy.integer, jax.numpy.floating)
    if value.ndim or not any(jax.numpy.issubdtype(value.dtype, kind) for kind in kinds):
        raise ValueError(f"temperature must be one number, got {shown(temperature)}")
    if not np.isfinite(value) or value < 0:
        raise ValueError(f"temperature must be finite and >= 0, got {shown(temperature)}")


def check_num_samples(number: Any) -> None:
    """Check a number of samples: None, or a whole number of at least 1."""
    if number is None:
        return
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ValueError(f"num_samples must be None or an integer >= 1, got {shown(number)}")


def named(path: Any) -> Any:
    """Return a path; ValueError for an empty one, which would be the current folder."""
    if not os.fspath(path):
        raise ValueError("the path is empty")
    return path


def check_options(family: Any, options: Iterable[str]) -> None:
    """Raise TypeError for an option that the family's `sample` does not take."""
    known = inspect.signature(family.sample).parameters
    if any(p.kind is p.VAR_KEYWORD for p in known.values()):
        return  # the family says itself which there are
    own = [name for name, p in known.items() if p.kind is p.KEYWORD_ONLY]
    for name in options:
        if name not in (*own, "noise"):  # `check_noise` says who takes that
            raise TypeError(
                f"{name!r} is no option of {family.name}'s sample{nearest(name, own)} "
                f"(options: {', '.join(own)})"
            )


def check_limit(limit: Any) -> None:
    """Check a bound: one number above 0."""
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not limit > 0:
        raise ValueError(f"limit must be one number above 0, got {shown(limit)}")


def check_noise(
    family: Any, config: Any, lr: Any, num_samples: int | None, *, noise: Any, **options: Any
) -> list[Array]:
    """Return `noise` as float32; ValueError unless the family draws it in these shapes."""
    if family.noise_shapes is None:
        raise ValueError(f"family {family.name!r} draws no noise; leave noise= out")
    lead = () if num_samples is None else (num_samples,)
    shapes = [(*lead, *s) for s in family.noise_shapes(config, lr.shape, **options)]
    got = [tuple(getattr(z, "shape", ())) for z in noise]
    if got != shapes:
        raise ValueError(
            f"noise must have the shapes {shapes} for lr {tuple(lr.shape)} and num_samples = "
            f"{num_samples}, got {got}"
        )
    return [jax.numpy.asarray(z, jax.numpy.float32) for z in noise]


def check_key(key: Any) -> None:
    """Check a single JAX PRNG key, typed or raw uint32[2]."""
    dtype = getattr(key, "dtype", None)
    typed = dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)
    raw = dtype is not None and dtype == np.uint32 and tuple(key.shape) == (2,)
    if not (raw or (typed and key.shape == ())):
        raise TypeError(f"key must be one PRNG key, as jax.random.key(0) gives, got {shown(key)}")


def check_label(config: Any, label: Any, batch: int) -> Array | None:
    """Return int32 labels [batch], or None for a model without classes.

    Args:
      config: with `classes`, 0 for a model without.
      label: an integer, or integers [batch].

    Raises:
      TypeError, ValueError: a label that is missing, out of range, or of another shape.
    """
    if not config.classes:
        if label is not None:
            raise ValueError(f"this {config.family} has no classes; leave label out")
        return None
    allowed = f"0 to {config.classes - 1}"
    if label is None:
        raise ValueError(f"this {config.family} is class-conditional: give label, {allowed}")
    label = label if hasattr(label, "dtype") else np.asarray(label)
    if not jax.numpy.issubdtype(label.dtype, jax.numpy.integer):
        raise TypeError(f"label must be an integer or integers, {allowed}, got {shown(label)}")
    if np.shape(label) not in ((), (batch,)):
        raise ValueError(
            f"label must be one integer or one per image, [{batch}], got shape {np.shape(label)}"
        )
    if not is_traced(label):
        bad = np.extract((np.asarray(label) < 0) | (np.asarray(label) >= config.classes), label)
        if bad.size:
            raise ValueError(f"label = {bad[0]} is out of range: {allowed}")
    return jax.numpy.broadcast_to(jax.numpy.asarray(label, jax.numpy.int32), (batch,))
