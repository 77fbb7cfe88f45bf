"""The search for an inference schedule of few steps, after training.

The SR3 paper searches its 100-step schedules by FID on held-out images (PSNR did not follow
quality), over the schedule's numbers as WaveGrad does; the values found are not printed.
Source: docs/papers/sr3.md section 3.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flowsr_jax import api
from flowsr_jax.config import ConfigError, choice
from flowsr_jax.diffusion.schedules import FAR_FROM_ZERO, ScheduleConfig, gammas, matching_end
from flowsr_jax.math.resize import imresize
from flowsr_jax.metrics import feature_stats, fid, psnr, to_uint8
from flowsr_jax.models import Params

SCORES = ("patch_fid", "psnr")
PATCH = 4
STARTS = (1e-6, 1e-5, 1e-4, 1e-3)
END_FACTORS = (0.5, 0.7, 1.0, 1.5)


def candidates(
    steps: int, starts: Sequence[float] = STARTS, ends: Sequence[float] = ()
) -> list[ScheduleConfig]:
    """Return linear schedules of `steps` steps whose last signal level is near 0.

    Args:
      starts: first betas.
      ends: last betas; none takes those around the value that ends at the published gamma.

    Raises:
      ConfigError: no schedule is left; the message says which `ends` would do.
    """
    if not all(value >= 0 for value in (*starts, *ends)):
        raise ConfigError(
            f"starts = {tuple(starts)} and ends = {tuple(ends)} must be numbers of at least 0"
        )
    usual = matching_end(ScheduleConfig("linear", steps, 1e-6, 0.5))
    if not ends:
        ends = sorted({min(f * (usual or 0.999), 0.999) for f in END_FACTORS})
    found = [ScheduleConfig("linear", steps, a, b) for a in starts for b in ends if a < b]
    found = [s for s in found if gammas(s)[-1] <= FAR_FROM_ZERO]
    if not found:
        raise ConfigError(
            f"with steps = {steps} no schedule of ends = {tuple(ends)} reaches gamma = "
            f"{FAR_FROM_ZERO}; take ends around {usual or 1:.3g}, or more steps"
        )
    return found


def patch_fid(images: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> float:
    """Return the Frechet distance of the pixels of small patches, at full and at half size.

    Needs no network: it compares sharpness, noise, and the colours of neighbouring pixels,
    and says nothing of content.  Not comparable with FID of Inception features.

    Args:
      images, truth: uint8 [H,W,3] each, at least 8x8.
    """
    total = 0.0
    for scale in (1, 0.5):
        sets = ([imresize(x, scale) if scale < 1 else x for x in s] for s in (images, truth))
        total += fid(*(feature_stats(np.concatenate([_patches(x) for x in s])) for s in sets))
    return total


def _patches(image: np.ndarray) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(image, (PATCH, PATCH), axis=(0, 1))
    return windows[::2, ::2].reshape(-1, 3 * PATCH * PATCH).astype(np.float64) / 255


@dataclasses.dataclass(frozen=True)
class Result:
    """A schedule and what it gave: {"patch_fid": lower is better, "psnr": dB}."""

    schedule: ScheduleConfig
    scores: Mapping[str, float]


def search_schedule(
    params: Params,
    pairs: Sequence[Mapping[str, Any]],
    schedules: Sequence[ScheduleConfig],
    key,
    *,
    score: str = "patch_fid",
    batch: int = 4,
    show: Callable[[int, Result], None] = lambda number, result: None,
    **options,
) -> list[Result]:
    """Return the schedules tried on held-out images; the best comes first.

    Every schedule draws from the same noise.  One program serves all of them.

    Args:
      params: of a diffusion model.
      pairs: of flowsr_jax.data.valid_pairs; images of one size.
      schedules: to be tried, as of `candidates`.
      key: PRNG key.
      score: what ranks: "patch_fid" or "psnr" (the paper warns of it).
      batch: images drawn at a time.
      show: called with the number, from 0, and the result of each schedule.
      **options: of flowsr_jax.sample, as sampler="ddim".

    Raises:
      ValueError: images of several sizes, none at all, or an unknown score.
    """
    choice("score", score, SCORES)
    shapes = {pair["lr"].shape for pair in pairs}
    if len(shapes) != 1:
        raise ValueError(f"the images must have one size, got LR sizes {sorted(shapes)}")
    truth = [pair["hr"] for pair in pairs]
    found = []
    for number, schedule in enumerate(schedules):
        images: list[np.ndarray] = []
        for first in range(0, len(pairs), batch):
            lr = np.stack([pair["lr"] for pair in pairs[first : first + batch]])
            lr = jnp.asarray(lr, jnp.float32) / 255
            part = jax.random.fold_in(key, first)
            out = api.sample(params, lr, part, **_whole(schedule), **options)
            images += [to_uint8(image) for image in np.asarray(out)]
        scores = {
            "patch_fid": patch_fid(images, truth),
            "psnr": float(np.mean([psnr(a, b) for a, b in zip(images, truth, strict=True)])),
        }
        found.append(Result(schedule, scores))
        show(number, found[-1])
    return sorted(found, key=lambda r: r.scores[score] * (-1 if score == "psnr" else 1))


def with_schedule(params: Params, schedule: ScheduleConfig) -> Params:
    """Return the model with `schedule`, all of its steps, as the default of its sampler."""
    config = params.config
    sampler = dataclasses.replace(config.sampler, **_whole(schedule))
    return Params(params.tree, dataclasses.replace(config, sampler=sampler))


def _whole(schedule: ScheduleConfig) -> dict[str, Any]:
    """Return options of a chain that walks every level of a schedule."""
    return {"schedule": schedule, "steps": None, "spacing": "trailing"}
