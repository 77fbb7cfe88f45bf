"""Temperature curves: the table as a file, and a plot of it."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flowsr_jax.files.atomic import atomic_write
from flowsr_jax.metrics.columns import COLUMNS

TEMPERATURES = tuple(i / 10 for i in range(11))


def write_curve(out: Path, rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], str]:
    """Write curve.csv, and curve.png where matplotlib is installed.

    Args:
      out: the folder.
      rows: the rows of the summary: "bicubic" (a dashed line) and one per temperature.

    Returns:
      (names of the files written, a line to print or "").
    """
    points = sorted(
        (row for row in rows if row.get("temperature") is not None), key=lambda r: r["temperature"]
    )
    columns = [c for c in COLUMNS if any(row.get(c) is not None for row in points)]
    text = io.StringIO()
    writer = csv.DictWriter(
        text, ["temperature", "draws", *columns], extrasaction="ignore", lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(points)
    with atomic_write(out / "curve.csv") as file:
        file.write(text.getvalue().encode())
    try:
        picture = plot(points, next((r for r in rows if r["method"] == "bicubic"), {}))
    except ImportError:
        return ["curve.csv"], "no curve.png: matplotlib is not installed (pip install matplotlib)"
    with atomic_write(out / "curve.png") as file:
        file.write(picture)
    return ["curve.csv", "curve.png"], ""


def plot(points: Sequence[Mapping[str, Any]], bicubic: Mapping[str, Any]) -> bytes:
    """Draw one panel per quantity over the temperature; return the PNG.

    Quantities: PSNR, LPIPS (SSIM without its weights), LR-PSNR, diversity.

    Raises:
      ImportError: matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    def first(*names):
        return next((n for n in names if points[0].get(n) is not None), None)

    shown = [first("psnr", "psnr_y"), first("lpips", "ssim", "ssim_y"), first("lr_psnr")]
    # A temperature of 0 may be a single draw, which has no diversity.
    shown.append("diversity" if any(p.get("diversity") is not None for p in points) else None)
    shown = [column for column in shown if column]
    figure = Figure(figsize=(3.1 * len(shown), 2.9), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    for axes, column in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        known = [p for p in points if p.get(column) is not None]
        axes.plot([p["temperature"] for p in known], [p[column] for p in known], "o-", ms=4)
        if bicubic.get(column) is not None:
            axes.axhline(bicubic[column], color="0.5", ls="--", lw=1, label="bicubic")
            axes.legend(frameon=False, fontsize=8)
        unit = {"psnr": " [dB]", "lr_psnr": " [dB]", "diversity": " [grey levels]"}
        axes.set_title(COLUMNS[column].title + unit.get(column.removesuffix("_y"), ""), fontsize=10)
        axes.set_xlabel("temperature")
        axes.grid(alpha=0.3)
    data = io.BytesIO()
    figure.savefig(data, format="png")
    return data.getvalue()
