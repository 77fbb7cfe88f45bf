"""One image, all its samples -> the numbers of one table row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flowsr_jax.evaluation.perceptual import Perceptual
from flowsr_jax.evaluation.protocols import Protocol
from flowsr_jax.metrics import (
    consistency_mse,
    diversity_std,
    lr_psnr,
    ntire_diversity,
    psnr,
    spread_skill,
    ssim,
)

# Column: (title, digits).  The order of tables and files.
COLUMNS = {
    "psnr": ("PSNR", 2),
    "ssim": ("SSIM", 4),
    "psnr_y": ("PSNR-Y", 2),
    "ssim_y": ("SSIM-Y", 4),
    "lr_psnr": ("LR-PSNR", 2),
    "lr_psnr_worst": ("worst LR-PSNR", 2),
    "consistency": ("consistency", 3),
    "lr_fidelity_psnr": ("LR fidelity PSNR", 2),
    "lr_fidelity_ssim": ("LR fidelity SSIM", 4),
    "lr_fidelity_psnr_y": ("LR fidelity PSNR-Y", 2),
    "lr_fidelity_ssim_y": ("LR fidelity SSIM-Y", 4),
    "lpips": ("LPIPS", 4),
    "dists": ("DISTS", 4),
    "diversity": ("diversity", 3),
    "ntire_score": ("NTIRE score", 2),
    "psnr_best": ("PSNR of best", 2),
    "psnr_mean_image": ("PSNR of mean", 2),
    "spread_skill": ("spread/skill", 3),
}
# Squared grey levels from which spread_skill is made: columns of the CSV, not of the table.
SQUARES = ("spread_square", "skill_square")


def measure(
    images: Sequence[np.ndarray],
    pair: Mapping[str, Any],
    scale: int,
    protocol: Protocol,
    perceptual: Perceptual,
) -> dict[str, float]:
    """Measure the samples of one image; plain columns are means over the samples.

    With several samples also their diversity, the best PSNR, the PSNR of their mean image
    (the posterior mean, as the number of samples grows), and spread against skill.

    Args:
      images: uint8 [s*h,s*w,3] each (at least HR cut by the protocol).
      pair: {"hr": uint8 [s*h,s*w,3], "lr": uint8 [h,w,3]}.
      scale: s.
      protocol: what to measure.
      perceptual: LPIPS and DISTS, where there are weights.

    Returns:
      {column of COLUMNS or SQUARES: number}; columns that do not apply are absent.

    Raises:
      ValueError: an image too small for a metric.
    """
    height, width = (n // protocol.hr_multiple * protocol.hr_multiple for n in pair["hr"].shape[:2])
    hr = pair["hr"][:height, :width]
    cut = [image[:height, :width] for image in images]
    several = len(images) > 1
    found: dict[str, float] = {}
    first = protocol.scores[0]
    for score in protocol.scores:
        values = [score(image, hr, scale) for image in cut]
        found[score.column] = float(np.mean(values))
        if several and score is first:
            found["psnr_best"] = max(values)
            mean = np.mean(cut, axis=0) / 255
            found["psnr_mean_image"] = score(mean, hr, scale)
    if protocol.lr_psnr:
        reference = pair["lr" if protocol.lr_psnr == "given" else "hr"]
        values = [lr_psnr(image, reference, scale) for image in images]
        found["lr_psnr"] = float(np.mean(values))
        if several:
            found["lr_psnr_worst"] = min(values)
    if protocol.consistency:
        values = [consistency_mse(image, pair["lr"], scale) for image in images]
        found["consistency"] = float(np.mean(values))
    if several:
        found["diversity"] = diversity_std(cut)
        known = spread_skill(cut, hr)
        found |= {"spread_skill": known["ratio"]}
        found |= dict(zip(SQUARES, (known["variance"], known["mse"]), strict=True))
    if perceptual.lpips_map and (several or protocol.lpips_spatial):
        maps = np.stack([perceptual.lpips_map(image, hr) for image in cut])
        found["ntire_score"] = float(ntire_diversity(maps)["score"])
        if protocol.lpips_spatial:
            found["lpips"] = float(maps.mean(dtype=np.float64))
    for name in ("lpips", "dists"):
        distance = getattr(perceptual, name)
        if distance and name not in found:
            found[name] = float(np.mean([distance(image, hr) for image in cut]))
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


def means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the means over images of all columns that the rows have.

    spread_skill is the square root of the ratio of the mean squares.
    """
    found = {}
    for column in (*COLUMNS, *SQUARES):
        values = [row[column] for row in rows if row.get(column) is not None]
        if values:
            found[column] = float(np.mean(values))
    spread, skill = (found.pop(column, 0.0) for column in SQUARES)
    if "spread_skill" in found:
        found["spread_skill"] = _ratio(spread, skill)
    return found


def _ratio(spread: float, skill: float) -> float:
    return math.sqrt(spread / skill) if skill > 0 else math.inf
