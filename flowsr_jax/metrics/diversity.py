"""How much the samples of one LR image differ, and whether that helps."""

from __future__ import annotations

import numpy as np

from flowsr_jax.metrics.images import levels

__all__ = ["diversity_std", "ntire_diversity", "ntire_mse_diversity"]

BOX = 16


def diversity_std(samples, ddof: int = 0) -> float:
    """Return the deviation of the pixels over samples of one LR image, 0..255 scale.

    Args:
      samples: [N,H,W,C] (or a list of images); uint8 or float in [0,1].
      ddof: the divisor is N - ddof.

    Returns:
      the mean over pixels and channels of the standard deviation over N.

    Raises:
      ValueError: fewer than ddof + 1 samples, or no images.

    Source: "Diversity" of the SRFlow paper (ddof and N are not published).
    """
    samples = stack_samples(samples)
    if ddof < 0 or len(samples) <= ddof:
        raise ValueError(
            f"ddof = {ddof} must lie in 0..{len(samples) - 1} for {len(samples)} samples"
        )
    return float(np.std(samples, axis=0, ddof=ddof).mean())


def ntire_diversity(maps) -> dict:
    """Return the diversity score of the NTIRE challenges: the gain of choosing per pixel.

    score = 100 (global_best - local_best) / global_best; 0 for one sample, for equal
    samples and for a perfect one.  It may fall as samples are added.  Scores of a set are
    means over its images.

    Args:
      maps: [N,H,W] error maps of N samples against the truth: lpips(..., spatial=True).

    Returns:
      score (percent), global_best (the least mean of a map), local_best (the mean of the
      pixelwise least), lpips_mean (the mean over all maps), per_sample [N] (the means of
      the maps), score_n [N] (the score of the first 1..N samples).

    Raises:
      ValueError: not [N,H,W], empty, or values that are not finite or negative.

    Source: NTIRE 2021 and 2022 "Learning the Super-Resolution Space", measure.py and
    measure_full.py.
    """
    maps = np.asarray(maps, np.float64)
    if maps.ndim != 3 or maps.size == 0:
        raise ValueError(f"maps must be [N,H,W] error maps, got shape {maps.shape}")
    if not np.isfinite(maps).all() or maps.min() < 0:
        raise ValueError("maps must hold errors: finite and not negative")
    per_sample = maps.mean(axis=(1, 2))
    global_best = np.minimum.accumulate(per_sample)
    local_best = np.minimum.accumulate(maps).mean(axis=(1, 2))
    gain = np.zeros_like(global_best)
    np.divide(global_best - local_best, global_best, out=gain, where=global_best > 0)
    return {
        "score": float(100 * gain[-1]),
        "global_best": float(global_best[-1]),
        "local_best": float(local_best[-1]),
        "lpips_mean": float(per_sample.mean()),
        "per_sample": per_sample,
        "score_n": 100 * gain,
    }


def ntire_mse_diversity(samples, truth) -> dict:
    """Return `ntire_diversity` of local squared errors instead of LPIPS maps (NTIRE 2022).

    The maps are the squared errors, 0..255 scale, averaged over the channels and over a
    16x16 box; zeros around the image, so that a map has H+15 x W+15 values.

    Args:
      samples: [N,H,W,C] (or a list of images); uint8 or float in [0,1].
      truth: [H,W,C].

    Returns:
      As `ntire_diversity`, with mse_mean in place of lpips_mean.

    Raises:
      ValueError: shapes that do not fit, or no images.

    Source: NTIRE 2022 measure_full.py.
    """
    samples, truth = samples_and_truth(samples, truth)
    maps = np.square(samples - truth).mean(axis=-1)
    maps = np.pad(maps, ((0, 0), (BOX - 1, BOX - 1), (BOX - 1, BOX - 1)))
    for axis in (1, 2):
        windows = np.lib.stride_tricks.sliding_window_view(maps, BOX, axis)
        maps = windows.mean(axis=-1)
    found = ntire_diversity(maps)
    found["mse_mean"] = found.pop("lpips_mean")
    return found


def stack_samples(samples) -> np.ndarray:
    """Return samples [N,H,W,C] as float64 grey levels; ValueError for anything else."""
    samples = samples if hasattr(samples, "ndim") else np.stack(list(samples))
    samples = levels(samples, "samples")
    if samples.ndim < 3 or samples.size == 0:
        raise ValueError(f"samples must be [N,H,W,C], got shape {samples.shape}")
    return samples


def samples_and_truth(samples, truth) -> tuple[np.ndarray, np.ndarray]:
    """Return samples [N,H,W,C] and their truth [H,W,C] as float64 grey levels."""
    samples, truth = stack_samples(samples), levels(truth, "truth")
    if samples.ndim != 4 or samples.shape[1:] != truth.shape:
        raise ValueError(
            f"samples must be [N,H,W,C] and truth [H,W,C] of the same size, got shapes "
            f"{samples.shape} and {truth.shape}"
        )
    return samples, truth
