"""What an evaluation leaves behind: per_image.csv, summary.json, summary.md."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flowsr_jax.evaluation.measure import HISTOGRAM, SQUARES
from flowsr_jax.files.atomic import atomic_write
from flowsr_jax.metrics.columns import COLUMNS, all_columns, cell, column

LIKELIHOOD = ("bits_per_dim", "gaussian_bits_per_dim")
SHOWN = 10  # failures listed one by one
FIELDS = ("image", "height", "width", "method", "temperature", "draws")


class PerImage:
    """per_image.csv, one line per image and method, written as the run goes on."""

    def __init__(self, path: Path, chosen: Sequence[str] = ()):
        others = [name for name in chosen if name not in (*COLUMNS, HISTOGRAM)]
        self._file = open(path, "w", newline="", encoding="utf-8")  # noqa: SIM115
        self._writer = csv.DictWriter(
            self._file, [*FIELDS, *COLUMNS, *others, *SQUARES, *LIKELIHOOD], restval="",
            extrasaction="ignore", lineterminator="\n",
        )  # fmt: skip
        self._writer.writeheader()

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append the rows of an image."""
        self._writer.writerows(rows)
        self._file.flush()

    def __enter__(self) -> PerImage:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return an aligned Markdown table; columns that no row has are left out."""
    columns = all_columns(rows)
    lines = [["method", "draws", *(column(c).title for c in columns)]]
    for row in rows:
        cells = [cell(c, row.get(c)) for c in columns]
        lines.append([row["method"], str(row["draws"]), *cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    ruler = ["-" * width for width in widths]
    return [
        "| " + " | ".join(text.ljust(n) for text, n in zip(line, widths, strict=True)) + " |"
        for line in (lines[0], ruler, *lines[1:])
    ]


def remarks(record: Mapping[str, Any]) -> list[str]:
    """Return the lines below the table: likelihood, features, images that failed."""
    lines = [f"Means over {record['images']} images and their draws."]
    for row in record["rows"]:
        for name, (count, psnr) in row.get("exact", {}).items():
            images = "1 exact image is" if count == 1 else f"{count} exact images are"
            lines.append(
                f"{column(name).title} of {row['method']}: {images} left out of the mean; of the "
                f"mean squared error over all images it is {psnr:.2f} dB"
            )
    lines += record.get("warnings", [])
    if record.get("bits_per_dim") is not None:
        lines.append(
            f"bits/dim {record['bits_per_dim']:.4f} (a Gaussian around the T=0 image, its "
            f"deviation fitted to each image: {record['gaussian_bits_per_dim']:.4f})"
        )
    if record.get("features"):
        lines.append(record["features"]["text"])
    failed = [f"failed: {name}: {reason}" for name, reason in record["failed"].items()]
    if len(failed) > SHOWN:
        failed[SHOWN:] = [f"and {len(failed) - SHOWN} more failed: see summary.json"]
    return lines + failed


def write_summary(out: Path, record: Mapping[str, Any]) -> None:
    """Write summary.json (everything) and summary.md (settings, table, remarks)."""
    # JSON knows no infinity (an exact PSNR) and no NaN.
    plain = json.loads(json.dumps(record), parse_constant=str)
    head = ", ".join(f"{k} {record[k]}" for k in ("model", "data", "scale", "seed"))
    lines = [head, "", *table(record["rows"]), "", *_list(remarks(record))]
    lines += ["", "```", *record["lines"], "```"]
    for name, text in (
        ("summary.json", json.dumps(plain, indent=1)),
        ("summary.md", "\n".join(lines)),
    ):
        with atomic_write(out / name) as file:
            file.write(text.encode() + b"\n")


def _list(lines: Sequence[str]) -> list[str]:
    return [f"- {line}" for line in lines]
