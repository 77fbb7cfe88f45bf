"""Distances between sets of images, on features of any network: FID, KID, CMMD.

All in float64 on the host.  The number depends on the network, its preprocessing and the
count of images: say all three beside it (FID of Inception features, 50000 images).
"""

from __future__ import annotations

import os

import numpy as np

from flowsr_jax.metrics.features import (
    FeatureStats,
    check_features,
    check_stats,
    feature_stats,
    read_features,
)

__all__ = ["cmmd", "fid", "fid_from_features", "fid_from_stats", "kid", "kid_subsets"]

BLOCK = 1024  # rows of a kernel matrix held at a time


def fid_from_features(features1, features2) -> float:
    """Return the Frechet distance of Gaussians fitted to two sets of features (FID).

    The square root of the covariances' product is taken from singular values of the
    centred features, which loses no digits when there are fewer images than features.

    Args:
      features1, features2: [n1,d], [n2,d], finite; at least two rows each.

    Returns:
      |mu1 - mu2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2); may be as low as -1e-13.

    Raises:
      ValueError: shapes that do not fit, too few rows, values that are not finite.

    Source: Heusel et al. 2017, eq. 6; equal to BasicSR, TTUR, torch-fidelity, torchmetrics.
    """
    x, y = _two_sets(features1, features2, 2)
    first, second = _factor(x), _factor(y)
    # tr (A'A B'B)^(1/2) is the sum of the singular values of A B'.
    cross = np.linalg.svd(first @ second.T, compute_uv=False).sum()
    traces = np.square(first).sum() + np.square(second).sum()
    return float(np.square(x.mean(axis=0) - y.mean(axis=0)).sum() + traces - 2 * cross)


def fid_from_stats(mu1, sigma1, mu2, sigma2) -> float:
    """Return the Frechet distance of two Gaussians (FID), by symmetric eigenvalue problems.

    With R the symmetric square root of sigma1, the trace of (sigma1 sigma2)^(1/2) is the
    sum of the roots of the eigenvalues of R sigma2 R; negative ones, which are rounding,
    count as 0.

    Args:
      mu1, mu2: means [d].
      sigma1, sigma2: covariances [d,d], symmetric.

    Returns:
      The distance; may be slightly negative for equal Gaussians.

    Raises:
      ValueError: shapes that do not fit, no symmetry, values that are not finite.

    Source: Heusel et al. 2017, eq. 6.
    """
    mu1, sigma1 = check_stats(mu1, sigma1, "1")
    mu2, sigma2 = check_stats(mu2, sigma2, "2")
    if mu1.shape != mu2.shape:
        raise ValueError(f"mu1 and mu2 must have one length, got {len(mu1)} and {len(mu2)}")
    values, vectors = np.linalg.eigh(sigma1)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ sigma2 @ root), 0)).sum()
    distance = np.square(mu1 - mu2).sum()
    return float(distance + np.trace(sigma1) + np.trace(sigma2) - 2 * cross)


def fid(a, b) -> float:
    """Return the FID of two sets, each a feature array [n,d], a FeatureStats or a file of either.

    Raises:
      FileNotFoundError, ValueError: as `read_features`, `fid_from_features` and
        `fid_from_stats`.
    """
    a, b = (read_features(x) if isinstance(x, (str, os.PathLike)) else x for x in (a, b))
    if not isinstance(a, FeatureStats) and not isinstance(b, FeatureStats):
        return fid_from_features(a, b)
    a, b = (x if isinstance(x, FeatureStats) else feature_stats(x) for x in (a, b))
    return fid_from_stats(*a, *b)


def kid(features1, features2, *, biased: bool = False) -> float:
    """Return the squared MMD with the kernel (x.y/d + 1)^3 (KID), over all pairs of features.

    Args:
      features1, features2: [n1,d], [n2,d], finite; at least two rows each.
      biased: average over all pairs within a set, also of a row with itself.

    Returns:
      The distance (not times 1000); the unbiased one may be negative.

    Raises:
      ValueError: shapes that do not fit, too few rows, values that are not finite.

    Source: Binkowski et al. 2018, "Demystifying MMD GANs"; torch-fidelity.
    """
    x, y = _two_sets(features1, features2, 2)
    return _mmd(x, y, _cubic, biased)


def kid_subsets(
    features1, features2, *, subsets: int = 100, size: int = 1000, seed: int = 0, indices=None
) -> tuple[float, float]:
    """Return the unbiased KID over random subsets without replacement, as usually reported.

    Args:
      features1, features2: [n1,d], [n2,d], finite.
      subsets: how many.
      size: rows of each subset.
      seed: of the draws.
      indices: int [subsets,2,size], the rows of both sets; instead of drawing them.

    Returns:
      (mean, standard deviation with divisor `subsets`).

    Raises:
      ValueError: fewer rows than `size`, or as `kid`.

    Source: torch-fidelity (100 subsets of 1000).
    """
    x, y = _two_sets(features1, features2, 2)
    if indices is None:
        if subsets < 1 or not 2 <= size <= min(len(x), len(y)):
            raise ValueError(
                f"subsets = {subsets} of size = {size}: subsets must be at least 1 and size in "
                f"2..{min(len(x), len(y))}, the rows of the smaller set"
            )
        rng = np.random.default_rng(seed)
        indices = [
            [rng.choice(len(rows), size, replace=False) for rows in (x, y)] for _ in range(subsets)
        ]
    values = [_mmd(x[i], y[j], _cubic, biased=False) for i, j in indices]
    return float(np.mean(values)), float(np.std(values))


def cmmd(features1, features2, *, sigma: float = 10.0, normalize: bool = True) -> float:
    """Return 1000 times the biased squared MMD with exp(-|x-y|^2 / (2 sigma^2)) (CMMD).

    Args:
      features1, features2: [n1,d], [n2,d] (CMMD: CLIP image embeddings), finite.
      sigma: width of the kernel.
      normalize: scale each row to unit length first.

    Returns:
      The distance, at least 0 up to rounding.

    Raises:
      ValueError: shapes that do not fit, values that are not finite, sigma not positive.

    Source: Jayasumana et al. 2024, "Rethinking FID".
    """
    if not sigma > 0:
        raise ValueError(f"sigma = {sigma!r} must be positive")
    x, y = _two_sets(features1, features2, 1)
    if normalize:
        norms = [np.linalg.norm(rows, axis=1, keepdims=True) for rows in (x, y)]
        if min(norm.min() for norm in norms) == 0:
            raise ValueError("a feature row is all zero and cannot be scaled to unit length")
        x, y = x / norms[0], y / norms[1]

    def gaussian(p, q):
        square = np.square(p).sum(1)[:, None] + np.square(q).sum(1) - 2 * p @ q.T
        return np.exp(-np.maximum(square, 0) / (2 * sigma**2))

    return 1000 * _mmd(x, y, gaussian, biased=True)


def _two_sets(x, y, minimum):
    x, y = check_features(x, "features1", minimum), check_features(y, "features2", minimum)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"the sets have {x.shape[1]} and {y.shape[1]} features per image")
    return x, y


def _factor(x):
    """Return F with F'F the covariance of x, with at most d rows."""
    centred = (x - x.mean(axis=0)) / np.sqrt(len(x) - 1)
    return centred if len(x) <= x.shape[1] else np.linalg.qr(centred, mode="r")


def _cubic(x, y):
    return (x @ y.T / x.shape[1] + 1) ** 3


def _mmd(x, y, kernel, biased):
    def total(p, q, diagonal=True):
        value = 0.0
        for i in range(0, len(p), BLOCK):
            block = kernel(p[i : i + BLOCK], q)
            value += block.sum() - (0 if diagonal else np.trace(block, offset=i))
        return value

    def within(p):
        return total(p, p, biased) / (len(p) * (len(p) if biased else len(p) - 1))

    return float(within(x) + within(y) - 2 * total(x, y) / (len(x) * len(y)))
