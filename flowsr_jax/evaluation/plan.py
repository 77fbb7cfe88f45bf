"""What an evaluation is asked to do, checked before anything runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flowsr_jax.console import check_seed
from flowsr_jax.drawing import Sampler
from flowsr_jax.evaluation.measure import HISTOGRAM
from flowsr_jax.evaluation.pairs import Case, EvaluationError
from flowsr_jax.evaluation.perceptual import Perceptual
from flowsr_jax.evaluation.protocols import Protocol
from flowsr_jax.files.images import read_rgb
from flowsr_jax.metrics.columns import COLUMNS, METRICS
from flowsr_jax.models import Params, family_of, kind_of, scale_of
from flowsr_jax.models.inputs import check_temperature

SUBSET = 1000  # rows of features, of KID as it is usually reported


@dataclasses.dataclass(frozen=True)
class Method:
    """A row of the table: its name, and how many samples of which temperature."""

    method: str
    temperature: float | None = None
    draws: int = 1


@dataclasses.dataclass(frozen=True)
class Job:
    """What measuring an image depends on, but for the image."""

    params: Params | None
    scale: int
    protocol: Protocol
    perceptual: Perceptual
    methods: tuple[Method, ...]
    seed: int
    bits: bool
    options: Mapping[str, Any] | None = None
    chosen: tuple[str, ...] = ()

    @property
    def rescales(self) -> bool:
        """The model makes its own LR images."""
        return self.params is not None and kind_of(self.params) == "rescaling"

    def describe(self) -> list[str]:
        """Return the lines that are printed above the numbers."""
        lines = self.protocol.describe(self.scale)
        if self.options:
            lines.append("  " + ", ".join(f"{k} = {v}" for k, v in self.options.items()))
        if self.rescales:
            lines += [
                "  the model is given the 8-bit LR image that it makes of HR; bicubic LR is a "
                "reference only",
                "  lr_fidelity_*: the model's LR image against bicubic LR, both 8 bits, border 0",
            ]
        return lines


def make_methods(params, results, protocol, temperatures, num_samples) -> tuple[Method, ...]:
    """Return the rows of the table, bicubic first; check what they are made of."""
    if num_samples is not None and (not isinstance(num_samples, int) or num_samples < 1):
        raise EvaluationError(f"num_samples = {num_samples!r} must be a whole number, at least 1")
    if params is not None and results is not None:
        raise EvaluationError("give either a model or a folder of results, not both")
    if params is None:
        if temperatures or num_samples:
            raise EvaluationError("temperatures and num_samples need a model that draws")
        return (Method("bicubic"), *([Method("results")] if results is not None else []))
    family = family_of(params)
    if kind_of(params) == "unconditional" or scale_of(params) == 1:
        raise EvaluationError(f"family {family.name!r} does not enlarge images")
    if not family.stochastic:
        if temperatures or (num_samples or 1) > 1:
            raise EvaluationError(
                f"family {family.name!r} draws one image; it has no temperatures and no samples"
            )
        return (Method("bicubic"), Method(family.name))
    own = family.default_temperature(params.config)
    chosen = tuple(temperatures) or (own if protocol.temperature is None else protocol.temperature,)
    for temperature in chosen:
        try:
            check_temperature(temperature)
        except ValueError as error:
            raise EvaluationError(str(error)) from None
    if len(set(chosen)) < len(chosen):
        raise EvaluationError(f"temperatures = {chosen} names one twice")
    draws = num_samples or protocol.draws
    methods = [
        Method(
            family.name if temperature is None else f"T={temperature:g}",
            temperature,
            1 if temperature == 0 else draws,
        )
        for temperature in chosen
    ]
    return (Method("bicubic"), *methods)


def check_metrics(metrics: Sequence[str]) -> tuple[str, ...]:
    """Return the names; raise EvaluationError for one that is no column."""
    for name in metrics:
        if name not in (*COLUMNS, HISTOGRAM) and name not in METRICS:
            known = dict.fromkeys((*COLUMNS, HISTOGRAM, *METRICS.names()))
            raise EvaluationError(f"metrics: {name!r} is not one of {', '.join(known)}")
    return tuple(dict.fromkeys(metrics))


def check_request(source, out: Path, params, seed, bits, limit, lr, options) -> None:
    if isinstance(source, (str, Path)) and out.resolve() == Path(source).resolve():
        raise EvaluationError(f"{out}: the output folder must not be the input")
    check_seed(seed, EvaluationError)
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
        raise EvaluationError(f"limit = {limit!r} must be a whole number, at least 0")
    if options and params is None:
        raise EvaluationError(f"{', '.join(options)}: options of a model, and there is none")
    if options:
        try:
            Sampler(params, options=options)
        except ValueError as error:
            raise EvaluationError(str(error)) from None
    family = None if params is None else family_of(params)
    if bits and (family is None or family.encode is None or not family.likelihood):
        has_not = f"; family {family.name!r} has none" if family else ""
        raise EvaluationError(f"bits/dim needs a flow: a model with a likelihood{has_not}")
    if lr is not None and family and kind_of(params) == "rescaling":
        raise EvaluationError(
            f"lr = {str(lr)!r}: family {family.name!r} makes its own LR images of HR and restores "
            "no others; leave lr out"
        )


def find_scale(params, scale, cases: Sequence[Case]) -> int:
    """Return the scale that the model, the caller and the first LR image agree on."""
    own = None if params is None else scale_of(params)
    if scale is not None and (isinstance(scale, bool) or scale != int(scale) or scale < 2):
        raise EvaluationError(f"scale = {scale!r} must be a whole number, at least 2")
    if own is not None and scale not in (None, own):
        raise EvaluationError(f"scale = {scale}: this model has scale {own} only")
    if own or scale:
        return int(own or scale)
    for case in cases:
        if case.lr is not None and not case.fault:
            try:
                sides = case.read_hr().shape[0], read_rgb(case.lr).shape[0]
            except ValueError:
                continue
            if sides[0] >= 2 * sides[1]:
                return sides[0] // sides[1]
            raise EvaluationError(
                f"{case.name}: HR has {sides[0]} rows and LR {sides[1]}: no scale of 2 or more"
            )
    raise EvaluationError("a scale is needed: without a model, nothing tells it")


def compare_features(features: Sequence[str] | None) -> dict[str, Any] | None:
    if not features:
        return None
    from flowsr_jax import metrics

    if len(features) != 2:
        raise EvaluationError(f"features are two files, got {len(features)}")
    sets = []
    for path in features:
        try:
            sets.append(metrics.read_features(path))
        except (ValueError, OSError) as error:
            raise EvaluationError(f"features: {error}") from None
    plain = not any(isinstance(s, metrics.FeatureStats) for s in sets)
    try:
        found: dict[str, Any] = {
            "files": list(map(str, features)),
            "fid": metrics.fid(*sets),
            "kid": None,
        }
        if plain:
            size = min(SUBSET, *map(len, sets))
            found["kid"] = metrics.kid(*sets)
            found["kid_subsets"] = metrics.kid_subsets(*sets, size=size)
            found["cmmd"] = metrics.cmmd(*sets)
    except ValueError as error:
        raise EvaluationError(f"features: {error}") from None
    sizes = " and ".join(f"{len(s)} features" for s in sets) if plain else "given statistics"
    width = sets[0].shape[1] if plain else len(sets[0].mu)
    found["text"] = f"FID {found['fid']:.4f}"
    if plain:
        mean, deviation = found["kid_subsets"]
        found["text"] += (
            f", KID {found['kid']:.6f} (unbiased, all pairs; 100 subsets of {size}: {mean:.6f} "
            f"+- {deviation:.6f}), CMMD {found['cmmd']:.4f} (of CLIP features)"
        )
    found["text"] += f": {sizes} of {width} dimensions"
    return found
