"""Evaluate a model, bicubic upscaling or result files on a set of images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flowsr_jax.config import ConfigError
from flowsr_jax.console import progress
from flowsr_jax.drawing import Sampler, image_key
from flowsr_jax.evaluation import pairs
from flowsr_jax.evaluation.curve import write_curve
from flowsr_jax.evaluation.draw import draw, draw_tight, likelihood, make_lr
from flowsr_jax.evaluation.measure import HISTOGRAM, lr_fidelity, means, measure
from flowsr_jax.evaluation.pairs import Case, EvaluationError
from flowsr_jax.evaluation.perceptual import load_perceptual
from flowsr_jax.evaluation.plan import (
    Job,
    Method,
    check_metrics,
    check_request,
    compare_features,
    find_scale,
    make_methods,
)
from flowsr_jax.evaluation.protocols import get_protocol, resize
from flowsr_jax.evaluation.report import LIKELIHOOD, PerImage, remarks, table, write_summary
from flowsr_jax.extras import require
from flowsr_jax.files.atomic import require_writable
from flowsr_jax.files.sheet import cut, write_sheet
from flowsr_jax.metrics import lr_psnr, to_uint8
from flowsr_jax.metrics.columns import COLUMNS
from flowsr_jax.models import Params

SHEET_ROWS, SHEET_COLUMNS, SHEET_DRAWS = 4, 4, 2
LIKE = 25.0  # dB; an HR and its LR, made by whatever downscaler, agree better than this


@dataclasses.dataclass(frozen=True)
class Result:
    """What came out: the rows of the table, and how many images were measured and failed."""

    rows: tuple[Mapping[str, Any], ...]
    measured: int
    failed: int


def evaluate_folder(
    source,
    out,
    *,
    params: Params | None = None,
    results=None,
    name: str = "",
    lr=None,
    scale: int | None = None,
    protocol: str = "default",
    temperatures: Sequence[float] = (),
    num_samples: int | None = None,
    seed: int = 0,
    lpips: Sequence[str] | None = None,
    dists: Sequence[str] | None = None,
    bits: bool = False,
    features: Sequence[str] | None = None,
    limit: int = 0,
    metrics: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
) -> Result:
    """Measure every image of a set; print, and write tables, a sheet and a curve.

    The first row of the table is bicubic upscaling.  The others are a model's samples (at
    each temperature, always from the same noise), or result files, or there are none.
    A rescaling model (one with `downscale`) is given the 8-bit LR image that it makes of
    HR, and has the columns lr_fidelity_*: this image against the protocol's LR image.
    An image that cannot be read or measured is reported, and the rest goes on.

    Args:
      source: HR images: folder, file, "embedded", or a source of flowsr_jax.data.
      out: output folder, made when missing; files of an earlier evaluation are replaced:
        per_image.csv, summary.json, summary.md, sheet.png, and with several temperatures
        curve.csv and curve.png.
      params: a model to evaluate.
      results: folder of result files to evaluate instead.
      name: what to call the model.
      lr: folder of LR images; None makes them from HR by the protocol's rule.  Not for
        rescaling models.
      scale: s; needed if neither a model nor `lr` tells it.
      protocol: a key of PROTOCOLS.
      temperatures: of the rows; none is the protocol's, or the model's own.
      num_samples: samples per image; None is the protocol's.
      seed: 0 <= seed < 2**32.
      lpips, dists: weight files; see `load_perceptual`.
      bits: also the likelihood of the HR images, for flows.
      features: two files of features or their statistics, compared by FID and KID.
      limit: the first so many images only; 0 takes all.
      metrics: columns to measure, by name (metrics.columns, `flowsr_jax.register_metric`,
        measure.HISTOGRAM); none is those of the protocol.
      options: further options of the family's `sample`, hashable.

    Returns:
      the rows and the counts of measured and failed images.

    Raises:
      EvaluationError: nothing was measured: a bad argument, no images, folders that do
        not pair, a scale that the model lacks, a folder that cannot be written to.
    """
    require("skimage")  # of SSIM
    out = Path(out)
    try:
        rules = get_protocol(protocol)
        methods = make_methods(params, results, rules, temperatures, num_samples)
        check_request(source, out, params, seed, bits, limit, lr, options)
        chosen = check_metrics(metrics)
        cases, notes = pairs.find_cases(source, lr, results, limit, out=out)
        scale = find_scale(params, scale, cases)
        compared = compare_features(features)
        require_writable(out)
    except (ConfigError, OSError) as error:
        raise EvaluationError(str(error)) from None
    perceptual = load_perceptual(lpips, dists, rules)
    job = Job(params, scale, rules, perceptual, methods, seed, bits, options, chosen)
    lines = [*job.describe(), *(f"  {note}" for note in (*perceptual.notes, *notes))]
    print(*lines, sep="\n", flush=True)
    rows, extras, failed, sheet, likeness = _run(job, cases, out)
    if not rows[0]:
        first = next(iter(failed.items()))
        raise EvaluationError(
            f"none of the {len(cases)} images could be measured; the first: {': '.join(first)}"
        )
    record = {
        "model": name or "bicubic",
        "data": str(source) if isinstance(source, (str, Path)) else type(source).__name__,
        "scale": scale,
        "seed": seed,
        "protocol": rules.name,
        "lines": lines,
        "images": len(rows[0]),
        "rows": [
            {
                **dataclasses.asdict(method),
                "draws": max(row["draws"] for row in found),
                "images": len(found),
                **means(found),
            }
            for method, found in zip(methods, rows, strict=True)
        ],
        "features": compared,
        "failed": failed,
        "warnings": _warnings(job, rows, likeness),
    }
    record |= {k: float(np.mean([e[k] for e in extras])) for k in LIKELIHOOD if extras}
    written = _write(out, record, sheet)
    print("", *table(record["rows"]), "", *remarks(record), sep="\n")
    print(f"written to {out}: {', '.join(written)}", flush=True)
    return Result(tuple(record["rows"]), len(rows[0]), len(failed))


def _run(job: Job, cases: Sequence[Case], out: Path):
    """Measure all images.

    Returns:
      (rows per method, likelihoods, {name: fault}, sheet rows, {name: PSNR between a given LR
      image and the bicubic one of HR}).
    """
    likeness: dict[str, float] = {}
    rows: list[list[dict[str, Any]]] = [[] for _ in job.methods]
    extras: list[dict[str, float]] = []
    failed: dict[str, str] = {}
    sheet: list[tuple[str, Any]] = []
    with PerImage(out / "per_image.csv", job.chosen) as file, progress(len(cases)) as shown:
        for case in cases:
            try:
                pair, images, found, extra = _measure_case(
                    job, case, lambda text, name=case.name: shown.say(f"{name}: {text}", True)
                )
            except Exception as error:  # a damaged file, out of memory: the others go on
                known = isinstance(error, ValueError)
                text = str(error) if known else f"{type(error).__name__}: {error}"
                failed[case.name] = " ".join(text.split())
                shown.finish(f"{case.name}: failed: {failed[case.name]}", problem=True)
                continue
            for kept, row in zip(rows, found, strict=True):
                kept.append(row)
            if case.lr is not None:
                likeness[case.name] = lr_psnr(pair["hr"], pair["lr"], job.scale)
            if extra:
                extras.append(extra)
            if len(sheet) < SHEET_ROWS:
                sheet.append((case.name, cut(pair, _columns(job.methods, images))))
            about = {"image": case.name, "height": len(pair["hr"]), "width": pair["hr"].shape[1]}
            lines = [
                {**about, **dataclasses.asdict(method), **row}
                for method, row in zip(job.methods, found, strict=True)
            ]
            lines[min(1, len(lines) - 1)] |= extra
            file.add(lines)
            shown.finish(f"{case.name}: {_brief(job, found)}")
    return rows, extras, failed, sheet, likeness


def _measure_case(job: Job, case: Case, say):
    """Return (pair, images per method, numbers per method, likelihoods or {})."""
    pair = pairs.load_pair(case, job.scale, job.protocol, say)
    given, fidelity = pair["lr"], {}
    if job.rescales:
        given = make_lr(job.params, pair["hr"])
        fidelity = lr_fidelity(given, pair["lr"])
        pair["own_lr"] = given
    key = image_key(job.seed, case.name)
    images, found = {}, []
    for index, method in enumerate(job.methods):
        if index == 0:
            drawn = [resize(pair["lr"], job.scale, job.protocol.resize)]
        elif job.params is None:
            drawn = pairs.load_results(case, pair, job.scale, job.protocol, say)
        else:
            drawn = _sample(job, method, given, key, say)
        row = measure(drawn, pair, job.scale, job.protocol, job.perceptual, job.chosen)
        if index:
            row |= {k: v for k, v in fidelity.items() if not job.chosen or k in job.chosen}
        if method.temperature == 0 and (not job.chosen or "diversity" in job.chosen):
            row.setdefault("diversity", 0.0)
        images[method.method] = drawn[:SHEET_DRAWS]
        found.append({**row, "draws": len(drawn)})
    extra = likelihood(job.params, pair, say) if job.bits else {}
    return pair, images, found, extra


def _sample(job: Job, method: Method, lr: np.ndarray, key, say) -> list[np.ndarray]:
    """Draw the 8-bit samples of a row."""
    how = {"num_samples": method.draws, "temperature": method.temperature}
    if job.protocol.tight:
        found = draw_tight(job.params, lr, key, options=job.options, **how)
    else:
        found = draw(Sampler(job.params, options=job.options, **how), lr, key, say)
    return list(to_uint8(found, job.protocol.quantise))


def _columns(methods: Sequence[Method], images: Mapping[str, list]) -> dict[str, list]:
    """Return what the sheet shows: bicubic, a few of the others, the first draws of each."""
    others = np.arange(1, len(methods))
    if len(others) > SHEET_COLUMNS:  # evenly, with the first and the last
        others = others[np.linspace(0, len(others) - 1, SHEET_COLUMNS).round().astype(int)]
    draws = SHEET_DRAWS if len(others) == 1 else 1
    names = [methods[i].method for i in (0, *others)]
    return {name: images[name][:draws] for name in names}


def _brief(job: Job, found: Sequence[Mapping[str, Any]]) -> str:
    names = (name for name in (*COLUMNS, *job.chosen) if name != HISTOGRAM)
    column = next((c for c in names if all(c in row for row in found)), None)
    if column is None:
        return "measured"
    cells = [f"{m.method} {row[column]:.2f}" for m, row in zip(job.methods, found, strict=True)]
    return f"{column} " + ", ".join(cells)


def _warnings(job: Job, rows, likeness: Mapping[str, float]) -> list[str]:
    """Return lines on LR images that are not like their HR, and on what was not measured."""
    lines = []
    unlike = {name: value for name, value in likeness.items() if value < LIKE}
    if unlike:
        worst = min(unlike, key=unlike.get)
        lines.append(
            f"warning: {len(unlike)} of {len(likeness)} LR files do not look like their HR (the "
            f"bicubic LR of HR has less than {LIKE:g} dB against them; the worst, {worst}, "
            f"{unlike[worst]:.1f} dB): another degradation, or pairs that are mixed up"
        )
    measured = {column for found in rows for row in found for column in row}
    missing = [column for column in job.chosen if column not in measured]
    if missing:
        lines.append(
            f"not measured: {', '.join(missing)} (another protocol, several samples, or weights "
            "are needed)"
        )
    return lines


def _write(out: Path, record: Mapping[str, Any], sheet) -> list[str]:
    write_summary(out, record)
    write_sheet(str(out / "sheet.png"), sheet)
    written = ["per_image.csv", "summary.json", "summary.md", "sheet.png"]
    if sum(row["temperature"] is not None for row in record["rows"]) > 1:
        more, note = write_curve(out, record["rows"])
        written += more
        if note:
            print(note)
    return written
