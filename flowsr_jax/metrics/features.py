"""Features of image sets: arrays or their statistics, checked, and read from files."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from flowsr_jax.io.torch_file import read_weights

__all__ = ["FeatureStats", "feature_stats", "read_features"]


class FeatureStats(NamedTuple):
    """Mean [d] and covariance [d,d] (divisor n - 1) of features."""

    mu: np.ndarray
    sigma: np.ndarray


def feature_stats(features) -> FeatureStats:
    """Return the float64 mean and covariance of features [n,d], n >= 2."""
    features = check_features(features, "features", 2)
    return FeatureStats(features.mean(axis=0), np.atleast_2d(np.cov(features, rowvar=False)))


def read_features(path) -> np.ndarray | FeatureStats:
    """Read features or their statistics; nothing in the file is executed.

    Args:
      path: .npy with an array [n,d]; or .npz or .safetensors with mu [d] and sigma [d,d] (as
        pytorch-fid writes), or with "features", or with one array [n,d].

    Returns:
      float64 [n,d], or FeatureStats.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a damaged file, pickled objects, or none of these arrays.
    """
    path = Path(path)
    if path.suffix != ".npy":
        arrays = read_weights(path)
    elif path.is_file():
        try:
            arrays = {"features": np.load(path, mmap_mode="r", allow_pickle=False)}
        except (ValueError, EOFError, OSError) as error:
            raise ValueError(f"{path}: damaged .npy ({error})") from None
    else:
        raise FileNotFoundError(f"{path}: no such file")
    if "mu" in arrays and "sigma" in arrays:
        return FeatureStats(*check_stats(arrays["mu"], arrays["sigma"], f" of {path}"))
    if "features" not in arrays and len(arrays) != 1:
        raise ValueError(
            f"{path}: holds {', '.join(list(arrays)[:5])}; wanted are mu and sigma, or features, "
            "or a single array"
        )
    return check_features(arrays.get("features", next(iter(arrays.values()))), str(path), 1)


def check_features(x, name: str, minimum: int) -> np.ndarray:
    """Return features [n,d] as float64; ValueError for anything else, or fewer rows."""
    x = np.asarray(x)
    if x.ndim != 2 or len(x) < minimum or x.shape[1] == 0 or x.dtype.kind not in "fiu":
        raise ValueError(
            f"{name} must be numbers [n,d] with n >= {minimum}, got {x.dtype} of shape {x.shape}"
        )
    x = x.astype(np.float64)
    if not np.isfinite(x).all():
        raise ValueError(f"{name} has {np.count_nonzero(~np.isfinite(x))} values not finite")
    return x


def check_stats(mu, sigma, which: str = "") -> tuple[np.ndarray, np.ndarray]:
    """Return mu [d] and sigma [d,d] as float64; ValueError if they are no such statistics."""
    mu = np.atleast_1d(np.asarray(mu, np.float64))
    sigma = np.atleast_2d(np.asarray(sigma, np.float64))
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
        raise ValueError(f"mu{which} must be [d], sigma [d,d]; got {mu.shape} and {sigma.shape}")
    if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise ValueError(f"mu{which} or its sigma has values that are not finite")
    if not np.allclose(sigma, sigma.T, rtol=1e-5, atol=1e-8 * np.abs(sigma).max(initial=0)):
        raise ValueError(f"sigma{which} is not symmetric: no covariance")
    return mu, sigma
