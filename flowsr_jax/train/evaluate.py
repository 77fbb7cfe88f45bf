"""Validation: one table row per view of the model, and the pictures behind it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from flowsr_jax.files.colour import LUMA, to_float
from flowsr_jax.math.gaussian import bits_per_dim, fitted_bits_per_dim
from flowsr_jax.math.resize import imresize
from flowsr_jax.metrics import diversity_std, lr_psnr, psnr, ssim, to_uint8
from flowsr_jax.metrics.columns import measure_metrics
from flowsr_jax.models.base import Family, Params, View
from flowsr_jax.train.report import COLUMNS, Report

Pair = Mapping[str, Any]


def evaluate(
    params: Params,
    family: Family,
    views: Sequence[View],
    pairs: Iterable[Pair],
    key: jax.Array,
    draws: int = 1,
    *,
    metrics: Sequence[str] = (),
    show: Callable[[Pair, dict[str, list[np.ndarray]]], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Report | None:
    """Measure every view on every pair; all numbers are means over images.

    Every image shape compiles once per view (call again with the same `views`: their
    functions are the keys of jax's cache).  All views draw from the same keys.

    A rescaling family (one with `downscale`) is given the 8-bit LR images that it makes of
    HR, never those of the pairs; lr_psnr is then the PSNR of these two.  Families that draw
    images from nothing are given the size alone, and have no columns but `nonfinite`.

    Args:
      params: the weights, on any mesh.
      family: its likelihood, where there is one and a view is stochastic, gives bits/dim.
      views: the model's columns.
      pairs: of flowsr_jax.data.valid_pairs.
      key: random key of the draws.
      draws: samples per image of the stochastic views; numbers are means over them.
      metrics: further columns, names of `flowsr_jax.register_metric`.
      show: called with each pair and its uint8 images {view: [draw, ...]}; the pair has
        the LR image of a rescaling family as "own_lr", and no "lr" where none is used.
      stop: polled between images; True ends the evaluation.

    Returns:
      The report, or None if stopped.
    """
    measured: dict[str, list[dict[str, Any]]] = {}
    bits: list[float] = []
    gaussian: list[float] = []
    counts = {v.name: draws if v.stochastic else 1 for v in views}
    likely = family.encode is not None and family.likelihood and any(v.stochastic for v in views)
    for index, pair in enumerate(pairs):
        if stop():
            return None
        task = _task(params, family, pair)
        image_key = jax.random.fold_in(key, index)
        images = dict(task.baseline)
        broken = dict.fromkeys([*images, *counts], 0)
        for view in views:
            sample, images[view.name] = _compiled(view.sample), []
            for draw in range(counts[view.name]):
                found = sample(params, task.given, jax.random.fold_in(image_key, draw))
                found = np.asarray(found)[0]
                finite = np.isfinite(found)
                broken[view.name] += int((~finite).sum())
                images[view.name].append(to_uint8(np.where(finite, found, 0)))
                if view is views[0]:
                    estimate = found
        for name, found in images.items():
            row = task.measure(found, name in task.baseline, metrics)
            measured.setdefault(name, []).append({**row, "nonfinite": broken[name]})
        if likely:
            bits.append(_bits(family, params, task, image_key))
            if family.kind(params.config) == "super_resolution":
                gaussian.append(fitted_bits_per_dim(255.0 * np.float64(estimate), pair["hr"]))
        if show:
            show(task.pair, images)
    rows = [_row(name, found, counts.get(name, 1)) for name, found in measured.items()]
    return Report(
        tuple(rows),
        float(np.mean(bits)) if bits else None,
        float(np.mean(gaussian)) if gaussian else None,
        own_lr=family.kind(params.config) == "rescaling",
    )


@dataclasses.dataclass(frozen=True)
class _Task:
    """What a model is given for a pair, and what its images are compared with.

    Attributes:
      pair: as `show` gets it.
      given: the LR batch, float32 [1,h,w,C] in [0,1]; of a model that draws images from
        nothing, HR, for its shape.
      baseline: the first row's name and image.
    """

    pair: Pair
    given: np.ndarray
    baseline: Mapping[str, list[np.ndarray]]

    def measure(
        self, images: list[np.ndarray], baseline: bool, metrics: Sequence[str]
    ) -> dict[str, Any]:
        """Return the columns of the 8-bit images of a row, without `nonfinite`."""
        if not self.baseline:
            return {**dict.fromkeys(COLUMNS), **measure_metrics(metrics, images, None)}

        def mean(metric: Callable[..., float], *arguments: Any) -> float:
            return float(np.mean([metric(image, *arguments) for image in images]))

        hr, lr, own = self.pair["hr"], self.pair["lr"], self.pair.get("own_lr")
        found = {"psnr": mean(psnr, hr), "ssim": mean(ssim, hr), "lr_psnr": None}
        scale = hr.shape[0] // lr.shape[0]
        if own is None and scale > 1:
            found["lr_psnr"] = mean(lr_psnr, lr, scale)
        elif own is not None and not baseline:
            found["lr_psnr"] = psnr(own, lr)
        several = len(images) > 1
        found["diversity"] = float(diversity_std(np.stack(images))) if several else None
        return found | measure_metrics(metrics, images, hr)


def _task(params: Params, family: Family, pair: Pair) -> _Task:
    hr = pair["hr"]
    if family.kind(params.config) == "unconditional":
        return _Task({k: v for k, v in pair.items() if k != "lr"}, to_float(hr)[None], {})
    lr, scale = pair["lr"], hr.shape[0] // pair["lr"].shape[0]
    baseline = {"bicubic": [imresize(lr, scale)]} if scale > 1 else {"input": [lr]}
    if family.kind(params.config) != "rescaling":
        return _Task(pair, to_float(lr)[None], baseline)
    own = np.asarray(family.downscale(params, to_float(hr)[None], quantize=True))[0]
    if own.shape[-1] == 1:
        lr = np.rint(lr @ np.array(LUMA))[..., None].astype(np.uint8)
        baseline = {"grey": [lr.repeat(3, axis=-1)]}
    return _Task({**pair, "lr": lr, "own_lr": own}, to_float(own)[None], baseline)


def _compiled(sample: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Return the function under jit, where it is not (a partial of) a jitted one.

    Views that differ in a traced argument, such as the temperature, thus share a program.
    """
    inner = sample.func if isinstance(sample, functools.partial) else sample
    return sample if hasattr(inner, "lower") else jax.jit(sample)


def _row(name: str, found: list[dict[str, Any]], draws: int) -> dict[str, Any]:
    row: dict[str, Any] = {"view": name, "images": len(found), "draws": draws}
    for column in (c for c in found[0] if c != "nonfinite"):
        values = [f[column] for f in found if f[column] is not None]
        row[column] = float(np.mean(values)) if values else None
    return {**row, "nonfinite": sum(f["nonfinite"] for f in found)}


def _bits(family: Family, params: Params, task: _Task, key: jax.Array) -> float:
    """Return bits per dimension of the 8-bit image, by the family's own way where it has one.

    Else: the density on [0,1], refined to levels, without added noise.
    """
    hr, options = to_float(task.pair["hr"])[None], {}
    if family.classes(params.config) and "label" in task.pair:
        options["label"] = np.array([task.pair["label"]], np.int32)
    if family.kind(params.config) == "super_resolution":
        options["lr"] = task.given
    if family.bits_per_dim is not None:
        return float(jax.jit(family.bits_per_dim)(params, hr, key=key, **options)[0])
    _, log_prob = jax.jit(family.encode)(params, hr, **options)
    return float(bits_per_dim(np.asarray(log_prob)[0], hr.size))
