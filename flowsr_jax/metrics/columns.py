"""The columns of all tables of images: training's validation and `flowsr evaluate`.

A metric of one's own is a `Metric`, added by `register_metric` and chosen by name: in a config
as `train.metrics`, on the command line of `flowsr evaluate` as `--metrics`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from flowsr_jax.metrics.ms_ssim import ms_ssim
from flowsr_jax.registry import Registry


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of numbers.

    Attributes:
      title: its heading.
      digits: decimals shown.
      higher: larger numbers are better.
    """

    title: str
    digits: int
    higher: bool = dataclasses.field(default=True, kw_only=True)


@dataclasses.dataclass(frozen=True)
class Metric(Column):
    """A number of one image, and its column.

    Attributes:
      measure: (image, hr) -> float of uint8 [H,W,3] arrays; (image) without a reference.
      reference: `measure` takes the HR image.
    """

    measure: Callable[..., float]
    reference: bool = dataclasses.field(default=True, kw_only=True)


MS_SSIM = Metric("MS-SSIM", 4, ms_ssim)
# In the order of tables and files.
COLUMNS: Mapping[str, Column] = {
    "psnr": Column("PSNR", 2),
    "ssim": Column("SSIM", 4),
    "psnr_y": Column("PSNR-Y", 2),
    "ssim_y": Column("SSIM-Y", 4),
    "lr_psnr": Column("LR-PSNR", 2),
    "lr_psnr_worst": Column("worst LR-PSNR", 2),
    "consistency": Column("consistency", 3, higher=False),
    "lr_fidelity_psnr": Column("LR fidelity PSNR", 2),
    "lr_fidelity_ssim": Column("LR fidelity SSIM", 4),
    "lr_fidelity_psnr_y": Column("LR fidelity PSNR-Y", 2),
    "lr_fidelity_ssim_y": Column("LR fidelity SSIM-Y", 4),
    "lpips": Column("LPIPS", 4, higher=False),
    "dists": Column("DISTS", 4, higher=False),
    "diversity": Column("diversity", 3),
    "ntire_score": Column("NTIRE score", 2),
    "psnr_best": Column("PSNR of best", 2),
    "psnr_mean_image": Column("PSNR of mean", 2),
    "spread_skill": Column("spread/skill", 3),
    "ms_ssim": MS_SSIM,
    "ntire_mse_score": Column("NTIRE MSE score", 2),
    "coverage": Column("coverage", 3),
    "lpips_pairs": Column("LPIPS of pairs", 4),
}
NONFINITE = Column("non-finite pixels", 0, higher=False)  # of training's table alone
METRICS: Registry[Metric] = Registry("metric")
METRICS.register("ms_ssim", MS_SSIM)


def register_metric(name: str, metric: Metric | str) -> None:
    """Add a metric, or "module:attribute" of one, imported on first use.

    Raises:
      ValueError: the name is that of a metric or of a column.
    """
    if name in COLUMNS or name == "nonfinite":
        raise ValueError(f"{name!r} is a column of every table; take another name")
    METRICS.register(name, metric)


def column(name: str) -> Column:
    """Return the column of a name: one of COLUMNS, or a metric.

    Raises:
      ValueError: neither.
    """
    if name == "nonfinite":
        return NONFINITE
    return COLUMNS[name] if name in COLUMNS else METRICS.get(name)


def all_columns(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """Return the columns that rows {name: value} have values of: COLUMNS, then metrics."""
    kept = {name for row in rows for name, value in row.items() if value is not None}
    others = sorted(name for name in kept - set(COLUMNS) if name in METRICS)
    return [*(name for name in COLUMNS if name in kept), *others]


def cell(name: str, value: float | None) -> str:
    """Format a value of a column; "" for None."""
    return "" if value is None else f"{value:.{column(name).digits}f}"


def measure_metrics(
    names: Sequence[str], images: Sequence[np.ndarray], hr: np.ndarray | None
) -> dict[str, float | None]:
    """Measure registered metrics; numbers are means over the images.

    Args:
      names: of METRICS.
      images: uint8 [H,W,3] each.
      hr: uint8 [H,W,3]; None if there is no reference.

    Returns:
      {name: number}; None for metrics that need the reference that is not there.
    """
    found: dict[str, float | None] = {}
    for name in names:
        metric = METRICS.get(name)
        if metric.reference and hr is None:
            found[name] = None
            continue
        given = (hr,) if metric.reference else ()
        found[name] = float(np.mean([metric.measure(image, *given) for image in images]))
    return found
