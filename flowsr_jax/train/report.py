"""The validation table: log scalars, what ranks checkpoints, result.json and result.md."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from typing import Any

from flowsr_jax.files.atomic import atomic_write
from flowsr_jax.metrics.columns import cell
from flowsr_jax.metrics.columns import column as find_column

COLUMNS = ("psnr", "ssim", "lr_psnr", "diversity")
ABOUT = ("view", "images", "draws")


@dataclasses.dataclass(frozen=True)
class Report:
    """A validation table.

    Attributes:
      rows: one dict per view: view, images, draws, psnr, ssim, lr_psnr, diversity (None
        unless the view is stochastic), the config's `train.metrics`, and nonfinite, a
        count of pixels that are NaN or infinite (they enter the other columns as black).
        The first row is "bicubic" upscaling, at scale 1 the "input" or, of a model with grey
        LR images, "grey"; there is none if the model draws images from nothing, and then all
        but nonfinite and metrics without a reference are None.
      bits_per_dim: -log2 p of 8-bit images per dimension, or None.
      gaussian_bits_per_dim: the same of a Gaussian around the first view's image, with
        the best standard deviation for each image: what a likelihood has to beat; None
        where nothing but the likelihood is measured.
      own_lr: the model makes its own LR images, and lr_psnr is their PSNR against those
        of the data, all in 8 bits (else: of the downsampled result against the LR image).
    """

    rows: tuple[Mapping[str, Any], ...]
    bits_per_dim: float | None = None
    gaussian_bits_per_dim: float | None = None
    own_lr: bool = False

    def __str__(self) -> str:
        cells = [
            f"{r['view']} {r['psnr']:.2f} dB {r['ssim']:.4f}"
            for r in self.rows
            if r["psnr"] is not None
        ]
        if self.own_lr and len(self.rows) > 1:
            cells.append(f"LR {self.rows[1]['lr_psnr']:.2f} dB")
        if self.bits_per_dim is not None:
            cells.append(f"bits/dim {self.bits_per_dim:.4f}")
        return " | ".join(cells)

    def scalars(self) -> dict[str, float]:
        """Return {"valid/<view>/<column>": value}, for logs."""
        found = {
            f"valid/{row['view']}/{c}": row[c]
            for row in self.rows
            for c in row
            if c not in ABOUT and row[c] is not None
        }
        if self.bits_per_dim is not None:
            found["valid/bits_per_dim"] = self.bits_per_dim
        return found

    def score(self, best: str) -> float | None:
        """Return what ranks checkpoints, higher is better; None if there is no finite one.

        Args:
          best: a column of the first view, "bits_per_dim", or "auto" (bits_per_dim where
            there is one, else psnr).
        """
        bits = self.bits_per_dim
        if best == "bits_per_dim" or (best == "auto" and bits is not None):
            value = None if bits is None else -bits
        else:
            column = "psnr" if best == "auto" else best
            value = self.rows[1][column] if len(self.rows) > 1 else None
            if value is not None and not find_column(column).higher:
                value = -value
        return value if value is not None and math.isfinite(value) else None


def write_report(report: Report, workdir: str, about: Mapping[str, Any]) -> None:
    """Write result.json and result.md; `about` (step, name, ...) goes on top."""
    record = {**about, **dataclasses.asdict(report)}
    # JSON knows no infinity (an exact PSNR) and no NaN.
    record = json.loads(json.dumps(record), parse_constant=str)
    _replace(os.path.join(workdir, "result.json"), json.dumps(record, indent=1) + "\n")
    names = [c for c in report.rows[0] if c not in ABOUT]
    columns = [c for c in names if any(row[c] is not None for row in report.rows)]
    titles = ["view", *(find_column(c).title for c in columns)]
    lines = [", ".join(f"{k} {v}" for k, v in about.items()), ""]
    lines += [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in report.rows:
        cells = [cell(c, row[c]) for c in columns]
        lines.append(f"| {' | '.join([row['view'], *cells])} |")
    lines += [""]
    if report.bits_per_dim is not None:
        text = f"bits/dim {report.bits_per_dim:.3f}"
        if report.gaussian_bits_per_dim is not None:
            text += (
                f" (a Gaussian around the {report.rows[1]['view']} image, its deviation fitted "
                f"to each image: {report.gaussian_bits_per_dim:.3f})"
            )
        lines += [text, ""]
    images = report.rows[0]["images"]
    how = " (RGB, 8 bits, no border cut) and over draws" if "psnr" in columns else ""
    lines.append(f"Means over {images} images{how}.")
    if report.own_lr:
        lines.append(
            "The model is given the 8-bit LR images that it makes of HR; LR-PSNR is their PSNR "
            "against the LR images of the data."
        )
    _replace(os.path.join(workdir, "result.md"), "\n".join(lines) + "\n")


def _replace(path: str, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode())
