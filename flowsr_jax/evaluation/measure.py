"""One image, all its samples -> the numbers of one table row."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from flowsr_jax.evaluation.perceptual import Perceptual
from flowsr_jax.evaluation.protocols import Protocol
from flowsr_jax.metrics import (
    consistency_mse,
    coverage,
    diversity_std,
    lr_psnr,
    ntire_diversity,
    ntire_mse_diversity,
    psnr,
    rank_histogram,
    spread_skill,
    ssim,
)
from flowsr_jax.metrics.columns import METRICS, all_columns, measure_metrics

# Columns that are measured when they are asked for by name, as is HISTOGRAM.
BY_NAME = ("ms_ssim", "ntire_mse_score", "coverage", "lpips_pairs")
HISTOGRAM = "rank_histogram"  # of the file summary.json, not of tables
# Columns in dB: infinite where an image is hit exactly.
DECIBELS = (
    "psnr", "psnr_y", "lr_psnr", "lr_psnr_worst", "lr_fidelity_psnr", "lr_fidelity_psnr_y",
    "psnr_best", "psnr_mean_image",
)  # fmt: skip
# Squared grey levels from which spread_skill is made: columns of the CSV, not of the table.
SQUARES = ("spread_square", "skill_square")


def measure(
    images: Sequence[np.ndarray],
    pair: Mapping[str, Any],
    scale: int,
    protocol: Protocol,
    perceptual: Perceptual,
    chosen: Collection[str] = (),
) -> dict[str, Any]:
    """Measure the samples of one image; plain columns are means over the samples.

    With several samples also their diversity, the best PSNR, the PSNR of their mean image
    (the posterior mean, as the number of samples grows), and spread against skill.

    Args:
      images: uint8 [s*h,s*w,3] each (at least HR cut by the protocol).
      pair: {"hr": uint8 [s*h,s*w,3], "lr": uint8 [h,w,3]}.
      scale: s.
      protocol: what to measure.
      perceptual: LPIPS and DISTS, where there are weights.
      chosen: columns to measure (COLUMNS, METRICS, HISTOGRAM); empty is the COLUMNS that are
        not in BY_NAME.

    Returns:
      {column, or one of SQUARES: number}, and perhaps {HISTOGRAM: counts}; columns that
      do not apply are absent.

    Raises:
      ValueError: an image too small for a metric.
    """
    height, width = (n // protocol.hr_multiple * protocol.hr_multiple for n in pair["hr"].shape[:2])
    hr = pair["hr"][:height, :width]
    cut = [image[:height, :width] for image in images]
    several = len(images) > 1
    found: dict[str, Any] = {}

    def wanted(*columns: str) -> bool:
        return any(c in chosen if chosen else c not in (*BY_NAME, HISTOGRAM) for c in columns)

    first = protocol.scores[0]
    for score in protocol.scores:
        of_samples = several and score is first and wanted("psnr_best", "psnr_mean_image")
        if not (wanted(score.column) or of_samples):
            continue
        values = [score(image, hr, scale) for image in cut]
        found[score.column] = float(np.mean(values))
        if of_samples:
            found["psnr_best"] = max(values)
            mean = np.mean(cut, axis=0) / 255
            found["psnr_mean_image"] = score(mean, hr, scale)
    if protocol.lr_psnr and wanted("lr_psnr", "lr_psnr_worst"):
        reference = pair["lr" if protocol.lr_psnr == "given" else "hr"]
        values = [lr_psnr(image, reference, scale) for image in images]
        found["lr_psnr"] = float(np.mean(values))
        if several:
            found["lr_psnr_worst"] = min(values)
    if protocol.consistency and wanted("consistency"):
        values = [consistency_mse(image, pair["lr"], scale) for image in images]
        found["consistency"] = float(np.mean(values))
    found |= measure_metrics([name for name in chosen if name in METRICS], cut, hr)
    if several:
        found |= _of_several(cut, hr, wanted)
    if several and perceptual.lpips_pairs and wanted("lpips_pairs"):
        found["lpips_pairs"] = perceptual.lpips_pairs(np.stack(cut))
    scored = (several or protocol.lpips_spatial) and wanted("ntire_score")
    if perceptual.lpips_map and (scored or protocol.lpips_spatial and wanted("lpips")):
        maps = np.stack([perceptual.lpips_map(image, hr) for image in cut])
        found["ntire_score"] = float(ntire_diversity(maps)["score"])
        if protocol.lpips_spatial:
            found["lpips"] = float(maps.mean(dtype=np.float64))
    for name in ("lpips", "dists"):
        distance = getattr(perceptual, name)
        if distance and name not in found and wanted(name):
            found[name] = float(np.mean([distance(image, hr) for image in cut]))
    kept = (*chosen, *(SQUARES if "spread_skill" in chosen else ()))
    return {name: value for name, value in found.items() if not chosen or name in kept}


def _of_several(samples: Sequence[np.ndarray], hr: np.ndarray, wanted) -> dict[str, Any]:
    """Measure what only several samples have."""
    found: dict[str, Any] = {}
    if wanted("diversity"):
        found["diversity"] = diversity_std(samples)
    if wanted("spread_skill"):
        known = spread_skill(samples, hr)
        found |= {"spread_skill": known["ratio"]}
        found |= dict(zip(SQUARES, (known["variance"], known["mse"]), strict=True))
    if wanted("ntire_mse_score"):
        found["ntire_mse_score"] = ntire_mse_diversity(samples, hr)["score"]
    if wanted("coverage"):
        found["coverage"] = coverage(samples, hr)
    if wanted(HISTOGRAM):
        found[HISTOGRAM] = rank_histogram(samples, hr)
    return found


def lr_fidelity(own: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Measure the LR image that a rescaling model made, as IRN's test.py does.

    Args:
      own: uint8 [h,w,3], the model's.
      reference: uint8 [h,w,3], the bicubic one.

    Returns:
      the four columns lr_fidelity_*: RGB and luma (not rounded), no border cut.

    Raises:
      ValueError: images smaller than SSIM's window.
    """
    return {
        f"lr_fidelity_{name}{suffix}": metric(own, reference, y=y)
        for suffix, y in (("", False), ("_y", True))
        for name, metric in (("psnr", psnr), ("ssim", ssim))
    }


def means(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the means over images of all columns that the rows have.

    spread_skill is the square root of the ratio of the mean squares.  Images that are hit
    exactly have infinite PSNRs: they are left out of the means of DECIBELS, unless all are.

    Returns:
      {column: mean}; with exact images also "exact": {column: (how many, the PSNR of the
      mean squared error over all images)}; with counts also HISTOGRAM, the shares of ranks.
    """
    found: dict[str, Any] = {}
    exact = {}
    for column in (*all_columns(rows), *SQUARES):
        values = np.array([row[column] for row in rows if row.get(column) is not None], float)
        hits = np.isposinf(values)
        if column in DECIBELS and hits.any() and not hits.all():
            error = np.mean(np.power(10.0, -values / 10))
            exact[column] = int(hits.sum()), float(-10 * np.log10(error))
            values = values[~hits]
        if len(values):
            found[column] = float(np.mean(values))
    spread, skill = (found.pop(column, 0.0) for column in SQUARES)
    if "spread_skill" in found:
        found["spread_skill"] = _ratio(spread, skill)
    if exact:
        found["exact"] = exact
    counts = [row[HISTOGRAM] for row in rows if row.get(HISTOGRAM) is not None]
    if counts:
        total = np.sum(counts, axis=0)
        found[HISTOGRAM] = (total / total.sum()).tolist()
    return found


def _ratio(spread: float, skill: float) -> float:
    return math.sqrt(spread / skill) if skill > 0 else math.inf
