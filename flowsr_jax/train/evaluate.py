"""Validation: one table row per view of the model, and the pictures behind it."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from flowsr_jax.io.atomic import atomic_write
from flowsr_jax.math.gaussian import bits_per_dim, fitted_bits_per_dim
from flowsr_jax.math.resize import imresize
from flowsr_jax.metrics import diversity_std, lr_psnr, psnr, ssim, to_uint8
from flowsr_jax.models.base import Family, Params, View

COLUMNS = ("psnr", "ssim", "lr_psnr", "diversity")
Pair = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Report:
    """A validation table.

    Attributes:
      rows: one dict per view, "bicubic" first: view, images, draws, psnr, ssim, lr_psnr,
        diversity (None unless the view is stochastic) and nonfinite, a count of pixels
        that are NaN or infinite (they enter the other columns as black).
      bits_per_dim: -log2 p of 8-bit images per dimension, or None.
      gaussian_bits_per_dim: the same of a Gaussian around the first view's image, with
        the best standard deviation for each image: what a likelihood has to beat.
    """

    rows: tuple[Mapping[str, Any], ...]
    bits_per_dim: float | None = None
    gaussian_bits_per_dim: float | None = None

    def __str__(self) -> str:
        cells = [f"{r['view']} {r['psnr']:.2f} dB {r['ssim']:.4f}" for r in self.rows]
        if self.bits_per_dim is not None:
            cells.append(f"bits/dim {self.bits_per_dim:.4f}")
        return " | ".join(cells)

    def scalars(self) -> dict[str, float]:
        """Return {"valid/<view>/<column>": value}, for logs."""
        found = {
            f"valid/{row['view']}/{c}": row[c]
            for row in self.rows
            for c in (*COLUMNS, "nonfinite")
            if row[c] is not None
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
        return value if value is not None and math.isfinite(value) else None


def evaluate(
    params: Params,
    family: Family,
    views: Sequence[View],
    pairs: Iterable[Pair],
    key: jax.Array,
    draws: int = 1,
    *,
    show: Callable[[Pair, dict[str, list[np.ndarray]]], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Report | None:
    """Measure every view on every pair; all numbers are means over images.

    Every image shape compiles once per view (call again with the same `views`: their
    functions are the keys of jax's cache).  All views draw from the same keys.

    Args:
      params: the weights, on any mesh.
      family: its `encode`, where there is one and a view is stochastic, gives bits/dim.
      views: the model's columns.
      pairs: of flowsr_jax.data.valid_pairs.
      key: random key of the draws.
      draws: samples per image of the stochastic views; numbers are means over them.
      show: called with each pair and its uint8 images {view: [draw, ...]}.
      stop: polled between images; True ends the evaluation.

    Returns:
      The report, or None if stopped.
    """
    measured: dict[str, list[dict[str, Any]]] = {"bicubic": []}
    bits: list[float] = []
    gaussian: list[float] = []
    counts = {v.name: draws if v.stochastic else 1 for v in views}
    for index, pair in enumerate(pairs):
        if stop():
            return None
        scale = pair["hr"].shape[0] // pair["lr"].shape[0]
        lr = np.asarray(pair["lr"], np.float32)[None] / 255
        image_key = jax.random.fold_in(key, index)
        images = {"bicubic": [imresize(pair["lr"], scale)]}
        broken = dict.fromkeys(["bicubic", *counts], 0)
        for view in views:
            sample, images[view.name] = _compiled(view.sample), []
            for draw in range(counts[view.name]):
                found = np.asarray(sample(params, lr, jax.random.fold_in(image_key, draw)))[0]
                finite = np.isfinite(found)
                broken[view.name] += int((~finite).sum())
                images[view.name].append(to_uint8(np.where(finite, found, 0)))
                if view is views[0]:
                    estimate = found
        for name, found in images.items():
            row = _measure(found, pair, scale, name in counts and counts[name] > 1)
            measured.setdefault(name, []).append({**row, "nonfinite": broken[name]})
        if family.encode is not None and any(v.stochastic for v in views):
            bits.append(_bits(family, params, pair, lr))
            gaussian.append(fitted_bits_per_dim(255.0 * np.float64(estimate), pair["hr"]))
        if show:
            show(pair, images)
    rows = [_row(name, found, counts.get(name, 1)) for name, found in measured.items()]
    if not bits:
        return Report(tuple(rows))
    return Report(tuple(rows), float(np.mean(bits)), float(np.mean(gaussian)))


def write_report(report: Report, workdir: str, about: Mapping[str, Any]) -> None:
    """Write result.json and result.md; `about` (step, name, ...) goes on top."""
    record = {**about, **dataclasses.asdict(report)}
    # JSON knows no infinity (an exact PSNR) and no NaN.
    record = json.loads(json.dumps(record), parse_constant=str)
    _replace(os.path.join(workdir, "result.json"), json.dumps(record, indent=1) + "\n")
    head = ", ".join(f"{k} {v}" for k, v in about.items())
    titles = "| view | PSNR | SSIM | LR-PSNR | diversity | non-finite pixels |"
    lines = [head, "", titles, "|---" * 6 + "|"]
    for row in report.rows:
        values = [("" if row[c] is None else f"{row[c]:.4g}") for c in ("lr_psnr", "diversity")]
        lines.append(
            f"| {row['view']} | {row['psnr']:.2f} | {row['ssim']:.4f} | {values[0]} "
            f"| {values[1]} | {row['nonfinite']} |"
        )
    if report.bits_per_dim is not None:
        lines += [
            "",
            f"bits/dim {report.bits_per_dim:.3f} (a Gaussian around the {report.rows[1]['view']} "
            f"image, its deviation fitted to each image: {report.gaussian_bits_per_dim:.3f})",
        ]
    images = report.rows[0]["images"]
    lines += ["", f"Means over {images} images (RGB, 8 bits, no border cut) and over draws."]
    _replace(os.path.join(workdir, "result.md"), "\n".join(lines) + "\n")


def _compiled(sample: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Return the function under jit, where it is not (a partial of) a jitted one.

    Views that differ in a traced argument, such as the temperature, thus share a program.
    """
    inner = sample.func if isinstance(sample, functools.partial) else sample
    return sample if hasattr(inner, "lower") else jax.jit(sample)


def _measure(images: list[np.ndarray], pair: Pair, scale: int, several: bool) -> dict[str, Any]:
    def mean(metric: Callable[..., float], *arguments: Any) -> float:
        return float(np.mean([metric(image, *arguments) for image in images]))

    return {
        "psnr": mean(psnr, pair["hr"]),
        "ssim": mean(ssim, pair["hr"]),
        "lr_psnr": mean(lr_psnr, pair["lr"], scale),
        "diversity": float(diversity_std(np.stack(images))) if several else None,
    }


def _row(name: str, found: list[dict[str, Any]], draws: int) -> dict[str, Any]:
    row: dict[str, Any] = {"view": name, "images": len(found), "draws": draws}
    for column in COLUMNS:
        values = [f[column] for f in found if f[column] is not None]
        row[column] = float(np.mean(values)) if values else None
    return {**row, "nonfinite": sum(f["nonfinite"] for f in found)}


def _bits(family: Family, params: Params, pair: Pair, lr: np.ndarray) -> float:
    """Bits per dimension of the 8-bit image: the density on [0,1], refined to levels."""
    hr = np.asarray(pair["hr"], np.float32)[None] / 255
    _, log_prob = jax.jit(family.encode)(params, hr, lr)
    return float(bits_per_dim(np.asarray(log_prob)[0], hr.size))


def _replace(path: str, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode())
