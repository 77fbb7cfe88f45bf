"""What a study found: bits/dim read from the runs, the table and the plot."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp

from flowsr_jax.ablation.studies import Study
from flowsr_jax.files.atomic import atomic_write
from flowsr_jax.models.base import get_family
from flowsr_jax.train.config import Config


@dataclasses.dataclass(frozen=True)
class Result:
    """One variant.

    Attributes:
      variant: its name.
      curves: {seed: {step: bits/dim of the held-out images}}.
      parameters: values that the last phase trains.
      seconds: of that phase at the median speed of its log lines, without compilation and
        validation; the mean over seeds.
    """

    variant: str
    curves: Mapping[int, Mapping[int, float]]
    parameters: int
    seconds: float

    @property
    def finals(self) -> list[float]:
        """bits/dim at the last step, per seed."""
        return [curve[max(curve)] for curve in self.curves.values()]

    @property
    def final(self) -> float:
        """Their mean."""
        return statistics.mean(self.finals)


def read_curve(workdir: Path) -> dict[int, float]:
    """Return {step: bits/dim of the held-out images} of a run, where it is finite."""
    bits = {int(r["step"]): r.get("valid/bits_per_dim") for r in _rows(workdir)}
    return {step: float(b) for step, b in bits.items() if b and math.isfinite(float(b))}


def read_result(name: str, configs: Sequence[Config], out: Path) -> Result:
    """Return what the finished runs of a variant, one per seed, wrote into folders of `out`."""
    curves, seconds = {}, []
    for config in configs:
        curves[config.seed] = read_curve(out / config.name)
        rows = _rows(out / config.name)
        speed = statistics.median(float(r["images_per_s"]) for r in rows if r.get("images_per_s"))
        seconds.append(config.train.batch_size * config.train.phases[-1].steps / speed)
    return Result(name, curves, _parameters(configs[0]), statistics.mean(seconds))


def _rows(workdir: Path) -> list[dict[str, str]]:
    with open(workdir / "metrics.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _parameters(config: Config) -> int:
    family = get_family(config.model.family)
    shapes = jax.eval_shape(lambda key: family.init(config.model, key), jax.random.key(0))
    leaves = [x for g in config.train.phases[-1].groups for x in jax.tree.leaves(shapes[g.name])]
    return sum(math.prod(x.shape) for x in leaves if jnp.issubdtype(x.dtype, jnp.floating))


def write_report(
    study: Study, results: Sequence[Result], diverged: Sequence[str], out: Path
) -> None:
    """Write STUDY.csv and STUDY.md, and STUDY.png where matplotlib is installed."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["variant", "seed", "step", "bits_per_dim"])
    for result in results:
        for seed, curve in result.curves.items():
            writer.writerows([result.variant, seed, *point] for point in curve.items())
    _write(out / f"{study.name}.csv", text.getvalue().encode())
    _write(out / f"{study.name}.md", table(study, results, diverged).encode())
    try:
        picture = plot(results)
    except ImportError:
        return
    _write(out / f"{study.name}.png", picture)


def table(study: Study, results: Sequence[Result], diverged: Sequence[str] = ()) -> str:
    """Return the table and the ordering as found, in Markdown, best variant first."""
    steps = max(max(curve) for curve in results[0].curves.values())
    seeds = max(len(result.curves) for result in results)
    title = "bits/dim" if seeds == 1 else f"bits/dim, mean of {seeds} seeds | lowest to highest"
    lines = [f"| variant | {title} | parameters | seconds |", "|---" * (4 + (seeds > 1)) + "|"]
    ranked = sorted(results, key=lambda r: r.final)
    for r in ranked:
        spread = f" | {min(r.finals):.4f} to {max(r.finals):.4f}" if seeds > 1 else ""
        lines.append(
            f"| {r.variant} | {r.final:.4f}{spread} | {r.parameters:,} | {r.seconds:.0f} |"
        )
    lines += ["", f"Found after {steps} steps: {' < '.join(r.variant for r in ranked)}."]
    lines += [f"Paper: {study.paper}."]
    lines += [f"Diverged: {', '.join(diverged)}."] if diverged else []
    return "\n".join(lines) + "\n"


def plot(results: Sequence[Result]) -> bytes:
    """Draw bits/dim over steps, one curve per variant (the mean of its seeds); return the PNG.

    Raises:
      ImportError: matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for result, marker in zip(results, itertools.cycle("osD^vP"), strict=False):
        curves = list(result.curves.values())
        steps = sorted(set.intersection(*(set(curve) for curve in curves)))
        found = [[curve[step] for curve in curves] for step in steps]
        means = [statistics.mean(values) for values in found]
        line = axes.plot(steps, means, marker=marker, ms=4, lw=1.2, label=result.variant)[0]
        if len(curves) > 1:
            low, high = ([f(v) for v in found] for f in (min, max))
            axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.15, lw=0)
    # The first point of a curve lies far above the rest, which is what there is to see.
    points = [list(curve.values()) for result in results for curve in result.curves.values()]
    low, high = min(map(min, points)), max(bits[min(1, len(bits) - 1)] for bits in points)
    if high > low:
        axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    axes.set_xlabel("steps")
    axes.set_ylabel("bits/dim, held-out images")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    data = io.BytesIO()
    figure.savefig(data, format="png")
    return data.getvalue()


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as file:
        file.write(content)
