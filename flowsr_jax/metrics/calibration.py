"""Do the samples of one LR image behave like draws from the posterior of the truth."""

from __future__ import annotations

import numpy as np

from flowsr_jax.metrics.diversity import samples_and_truth

__all__ = ["coverage", "rank_histogram", "spread_skill"]


def spread_skill(samples, truth) -> dict[str, float]:
    """Return the spread of the samples beside the error of their mean.

    If truth and samples are exchangeable draws, E (truth - mean_K)^2 is
    (1 + 1/K) E variance (divisor K - 1).  A ratio below 1 means over-confident samples.

    Args:
      samples: [K,H,W,C], K >= 2 (or a list of images); uint8 or float in [0,1].
      truth: [H,W,C].

    Returns:
      variance, (1 + 1/K) times the mean variance; mse, of the samples' mean; both in grey
      levels squared (average each over a set of images); ratio = sqrt(variance / mse).

    Raises:
      ValueError: fewer than two samples, or shapes that do not fit.

    Source: Fortin et al. 2014, "Why should ensemble spread match the RMSE of the ensemble
    mean?".
    """
    samples, truth = _enough(samples, truth)
    variance = (1 + 1 / len(samples)) * samples.var(axis=0, ddof=1).mean()
    mse = np.square(samples.mean(axis=0) - truth).mean()
    ratio = np.sqrt(variance / mse) if mse > 0 else (np.inf if variance > 0 else 1.0)
    return {"variance": float(variance), "mse": float(mse), "ratio": float(ratio)}


def rank_histogram(samples, truth, *, seed: int = 0) -> np.ndarray:
    """Count, over pixels and channels, how many samples lie below the truth.

    Flat for calibrated samples, U-shaped for over-confident ones.  Ties (common in 8 bits)
    are broken at random.

    Args:
      samples: [K,H,W,C] (or a list of images); uint8 or float in [0,1].
      truth: [H,W,C].
      seed: of the ties.

    Returns:
      int64 [K+1], summing to H*W*C; add the counts of several images.

    Raises:
      ValueError: shapes that do not fit.

    Source: Hamill 2001, "Interpretation of rank histograms".
    """
    samples, truth = samples_and_truth(samples, truth)
    below = (samples < truth).sum(axis=0)
    ties = (samples == truth).sum(axis=0)
    rank = below + np.random.default_rng(seed).integers(0, ties, endpoint=True)
    return np.bincount(rank.ravel(), minlength=len(samples) + 1)


def coverage(samples, truth, level: float = 0.9) -> float:
    """Return the share of pixels whose truth lies in the samples' central interval.

    The interval runs between the empirical quantiles (1 - level)/2 and (1 + level)/2 of
    the K samples, so it covers less than `level` when K is small: (K - 1)/(K + 1) at
    level 1.

    Args:
      samples: [K,H,W,C], K >= 2 (or a list of images); uint8 or float in [0,1].
      truth: [H,W,C].
      level: in (0, 1].

    Raises:
      ValueError: another level, fewer than two samples, or shapes that do not fit.
    """
    if not 0 < level <= 1:
        raise ValueError(f"level = {level!r} must lie in (0, 1]")
    samples, truth = _enough(samples, truth)
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return float(np.mean((low <= truth) & (truth <= high)))


def _enough(samples, truth):
    samples, truth = samples_and_truth(samples, truth)
    if len(samples) < 2:
        raise ValueError(f"at least 2 samples are needed, got {len(samples)}")
    return samples, truth
