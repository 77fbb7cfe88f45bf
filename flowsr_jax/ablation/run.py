"""Runs the variants of a study; see the package's docstring."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flowsr_jax.ablation.report import Result, read_curve, read_result, write_report
from flowsr_jax.ablation.studies import Study
from flowsr_jax.config import ConfigError, choice
from flowsr_jax.train.config import Config, resolve
from flowsr_jax.train.loop import TrainingDiverged, train_and_evaluate
from flowsr_jax.train.overrides import override, plain
from flowsr_jax.train.resume import HARMLESS, differences

SHARED = "shared"


def run_study(
    study: Study,
    values: Mapping[str, Any],
    out: str | Path,
    *,
    steps: int | None = None,
    variants: Sequence[str] = (),
    seeds: int = 1,
    overrides: Mapping[str, Any] | None = None,
    message: Callable[[str], None] = print,
) -> tuple[list[Result], list[str]]:
    """Train what is not finished in `out`, and write STUDY.csv, STUDY.md and STUDY.png.

    The files are written anew after every variant.  An interrupted run goes on where it was.

    Args:
      study: of STUDIES, or one of your own.
      values: its config, as get_config() of configs/ gives it.
      out: the folder.
      steps: of the last phase; None takes the study's.
      variants: names; none takes all.
      seeds: runs of each variant, with the seeds 0, 1, ...
      overrides: {dotted path: value} for every run.
      message: gets lines of progress.

    Returns:
      (results in the order of the study, names of the runs that diverged).

    Raises:
      ConfigError: an unknown variant, a value that cannot be used, or a run in `out` that
        was made with another configuration; before anything is trained.
    """
    out = Path(out)
    for name in variants:
        choice("variants", name, tuple(study.variants))
    if seeds < 1:
        raise ConfigError(f"seeds = {seeds} must be at least 1")
    steps = study.steps if steps is None else steps
    common = {**study.small, **(overrides or {})}
    shared = _shared_run(values, common)
    plans = {
        name: [
            _variant_run(
                values,
                {**common, **changes},
                f"{name if changes else 'base'}-{seed}",
                seed,
                steps,
                shared,
                out / SHARED,
            )
            for seed in range(seeds)
        ]
        for name, changes in study.variants.items()
        if not variants or name in variants
    }
    first = [] if shared is None else [shared]
    runs = [*first, *(config for plan in plans.values() for config in plan)]
    for config in runs:
        _check_same(out / config.name, config)

    count = iter(f"[{i}/{len(runs)}]" for i in range(1, len(runs) + 1))
    results, diverged = [], []
    for config in first:
        _run(config, out, next(count), message)
    for name, plan in plans.items():
        finished = []
        for config in plan:
            try:
                _run(config, out, next(count), message)
            except TrainingDiverged as error:
                message(f"{config.name}: {error}")
            if steps in read_curve(out / config.name):
                finished.append(config)
            else:
                diverged.append(config.name)
        if finished:
            results.append(read_result(name, finished, out))
            message(f"{name}: {results[-1].final:.4f} bits/dim")
        if results:
            write_report(study, results, diverged, out)
    return results, diverged


def _changed(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    values = plain(values)
    for path, value in overrides.items():
        override(values, path, value)
    return values


def _shared_run(values: Mapping[str, Any], common: Mapping[str, Any]) -> Config | None:
    """Return the config of the phases before the last one, as a run of their own."""
    values = _changed(values, common)
    phases = values["train"]["phases"] = values["train"]["phases"][:-1]
    return resolve({**values, "name": SHARED}) if phases else None


def _variant_run(
    values: Mapping[str, Any],
    overrides: Mapping[str, Any],
    name: str,
    seed: int,
    steps: int,
    shared: Config | None,
    folder: Path,
) -> Config:
    """Return the config of the last phase; it begins with what `shared` trained into `folder`."""
    values = _changed(values, overrides)
    phase = values["train"]["phases"][-1]
    phase["steps"] = steps
    if shared is not None:
        groups = dict.fromkeys(g.name for p in shared.train.phases for g in p.groups)
        phase.update({"init_from": str(folder), "init_groups": list(groups)})
    values["train"].update(
        phases=[phase],
        log_every=max(1, steps // 20),
        valid_every=max(1, steps // 8),
        checkpoint_every=max(1, steps // 2),
    )
    return resolve({**values, "name": name, "seed": seed})


def _check_same(workdir: Path, config: Config) -> None:
    """Raise ConfigError if the work directory holds a run with another outcome."""
    if not (workdir / "config.json").exists():
        return
    saved = json.loads((workdir / "config.json").read_text())
    with contextlib.suppress(ConfigError):
        saved = resolve(saved).to_dict()  # fields newer than the run take their defaults
    found = [d for d in differences(saved, config.to_dict()) if not HARMLESS.fullmatch(d[0])]
    if found:
        listed = "; ".join(f"{path}: {old!r} -> {new!r}" for path, old, new in found)
        raise ConfigError(f"{workdir} was made with another configuration: {listed}")


def _run(config: Config, out: Path, count: str, message: Callable[[str], None]) -> None:
    workdir, steps = out / config.name, sum(phase.steps for phase in config.train.phases)
    result = workdir / "result.json"
    if result.exists() and json.loads(result.read_text())["step"] == steps:
        message(f"{count} {config.name}: finished already")
        return
    message(f"{count} {config.name}: {steps} steps")
    train_and_evaluate(config, str(workdir))
