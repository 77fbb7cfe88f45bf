"""Noise schedules: betas, signal levels, derived buffers, and the grids samplers walk.

Notation: gamma_t = prod_{i<=t} (1 - beta_i), the share of signal variance; gamma_0 = 1 is
the clean image.  Everything is computed in float64 on the host.
Source: docs/papers/sr3.md section 3; Ho et al. (2020), Saharia et al. (2021).
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import Annotated, Any

import numpy as np

from flowsr_jax.config import ConfigError, NotNegative, Range, check_ranges, choice
from flowsr_jax.types import Scalar

NAMES = ("linear", "quad", "const", "warmup10", "warmup50", "cosine", "jsd", "geometric", "given")
BUFFERS = (
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
)
FAR_FROM_ZERO = 0.01  # a last gamma above it leaves a visible image in the noise
USUAL_LAST = 4.386e-5  # the last gamma of the published schedules (2000 steps, 1e-6 to 1e-2)


class ScheduleWarning(UserWarning):
    """A schedule that does not end in noise."""


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """A noise schedule.

    Attributes:
      name: "linear", "quad" (linear in the square root), "const" (`end` everywhere),
        "warmup10" and "warmup50" (linear over the first 10 % or 50 %, then `end`),
        "cosine", "jsd" (1/T ... 1; its last level is 0, so it cannot be sampled),
        "geometric" (of score networks: sigma = sqrt((1 - gamma) / gamma) grows by equal
        factors from `start` to `end`) or "given" (`betas`).
      steps: T.
      start, end: first and last beta ("geometric": sigma, for images in [-1,1]; "cosine",
        "jsd" and "given" ignore them).
      offset: s of "cosine".
      betas: the values of "given", T of them.
    """

    name: str = "linear"
    steps: Annotated[int, Range(1, 10**6)] = 2000
    start: NotNegative = 1e-6
    end: NotNegative = 1e-2
    offset: NotNegative = 8e-3
    betas: tuple[Annotated[float, Range(0, 1, open="low")], ...] | None = None

    def __post_init__(self) -> None:
        check_ranges(self)
        choice("schedule", self.name, NAMES)
        if self.name == "given" and len(self.betas or ()) != self.steps:
            raise ConfigError(
                f"schedule 'given' needs betas, one for each of steps = {self.steps}; "
                f"got {len(self.betas or ())}"
            )
        values = betas(self)
        bad = np.flatnonzero(~((values > 0) & (values <= 1)))
        if bad.size:
            where = "" if self.name == "given" else f" (start = {self.start}, end = {self.end})"
            raise ConfigError(
                f"schedule {self.name!r} is not decreasing in signal: beta of step {bad[0] + 1} is "
                f"{values[bad[0]]:.6g}, allowed is 0 < beta <= 1{where}"
            )


def betas(config: ScheduleConfig) -> np.ndarray:
    """Return the noise variances of the steps, float64 [T]."""
    t, start, end = config.steps, float(config.start), float(config.end)
    if config.name == "linear":
        return np.linspace(start, end, t)
    if config.name == "quad":
        return np.linspace(max(start, 0.0) ** 0.5, max(end, 0.0) ** 0.5, t) ** 2
    if config.name == "geometric":
        if not 0 < start <= end:
            raise ConfigError(
                f"schedule 'geometric' needs 0 < start <= end, its sigmas; got start = {start}, "
                f"end = {end}"
            )
        gamma = 1 / (1 + np.geomspace(start, end, t) ** 2)
        return 1 - gamma / np.append(1.0, gamma[:-1])
    if config.name == "jsd":
        return 1.0 / np.linspace(t, 1, t)
    if config.name == "given":
        return np.asarray(config.betas, np.float64)
    if config.name == "cosine":
        phase = (np.arange(t + 1) / t + config.offset) / (1 + config.offset) * np.pi / 2
        signal = np.cos(phase) ** 2
        return np.minimum(1 - signal[1:] / signal[:-1], 0.999)
    values = np.full(t, float(end))
    if config.name.startswith("warmup"):
        first = int(t * int(config.name.removeprefix("warmup")) / 100)
        values[:first] = np.linspace(start, end, first)
    return values


def gammas(config: ScheduleConfig) -> np.ndarray:
    """Return gamma_1..gamma_T, float64 [T], decreasing."""
    return np.cumprod(1 - betas(config))


def level_edges(config: ScheduleConfig) -> np.ndarray:
    """Return sqrt(gamma_0)..sqrt(gamma_T), float64 [T+1], the first 1."""
    return np.sqrt(np.append(1.0, gammas(config)))


def buffers(config: ScheduleConfig, dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """Return the twelve arrays [T] of the public code's checkpoints, in its order.

    Index t = 0..T-1 is the step to gamma_{t+1}.  A last gamma of 0 gives infinities.
    """
    beta, gamma = betas(config), gammas(config)
    before = np.append(1.0, gamma[:-1])
    with np.errstate(divide="ignore"):
        variance = beta * (1 - before) / (1 - gamma)
        values = (
            beta,
            gamma,
            before,
            np.sqrt(gamma),
            np.sqrt(1 - gamma),
            np.log(1 - gamma),
            np.sqrt(1 / gamma),
            np.sqrt(1 / gamma - 1),
            variance,
            np.log(np.maximum(variance, 1e-20)),
            beta * np.sqrt(before) / (1 - gamma),
            (1 - before) * np.sqrt(1 - beta) / (1 - gamma),
        )
    return {name: value.astype(dtype) for name, value in zip(BUFFERS, values, strict=True)}


def matching_end(config: ScheduleConfig, last: float = USUAL_LAST) -> float | None:
    """Return the `end` that brings the last gamma to `last`; None if no value does."""
    if config.name in ("cosine", "jsd", "given"):
        return None
    if config.name == "geometric":
        return math.sqrt(1 / last - 1)
    from scipy.optimize import brentq

    def excess(end: float) -> float:
        values = betas(dataclasses.replace(config, end=end))
        return np.sum(np.log1p(-values)) - np.log(last)

    low, high = min(config.start, 1e-12), 1 - 1e-12
    if excess(low) < 0 or excess(high) > 0:
        return None
    return float(brentq(excess, low, high, xtol=1e-12))


def warn_if_signal_remains(config: ScheduleConfig) -> None:
    """Warn, with what to set, if gamma_T is far from 0: N(0,1) is then a wrong start."""
    last = float(gammas(config)[-1])
    if last <= FAR_FROM_ZERO:
        return
    end = matching_end(config)
    advice = "use more steps" if end is None else f"set end = {end:.3g}, or use more steps"
    warnings.warn(
        f"schedule {config.name!r} with steps = {config.steps} ends at gamma = {last:.3g}, far "
        f"from 0: samples that start from noise will stay noisy; {advice}",
        ScheduleWarning,
        stacklevel=3,
    )


def trailing_timesteps(total: int, steps: int) -> np.ndarray:
    """Return `steps` of the timesteps 0..total-1, noisiest first: round(T - i T/N) - 1.

    Raises:
      ConfigError: steps < 1 or more than there are.
    """
    if not 1 <= steps <= total:
        raise ConfigError(
            f"steps = {steps} must lie between 1 and {total}, the steps of the schedule; give "
            "another schedule= for more"
        )
    return np.round(total - np.arange(steps) * total / steps).astype(int) - 1


def trailing_grid(config: ScheduleConfig, steps: int) -> np.ndarray:
    """Return gammas from noise to 1, [steps+1]: a selection of the schedule's levels."""
    return np.append(gammas(config)[trailing_timesteps(config.steps, steps)], 1.0)


def log_snr(gamma: Scalar) -> np.ndarray:
    """Return lambda = 0.5 log(gamma / (1 - gamma)); infinite at 1."""
    gamma = np.asarray(gamma, np.float64)
    with np.errstate(divide="ignore"):
        return 0.5 * (np.log(gamma) - np.log1p(-gamma))


def log_snr_grid(first: float, last: float, steps: int) -> np.ndarray:
    """Return [steps+1] gammas from `first` to `last`, uniform in lambda; 0 < gamma < 1."""
    return 1 / (1 + np.exp(-2 * np.linspace(log_snr(first), log_snr(last), steps + 1)))


def timestep_of(config: ScheduleConfig, gamma: Scalar) -> np.ndarray:
    """Return the 0-based timesteps of signal levels; between the schedule's, by lambda."""
    known = log_snr(gammas(config))[::-1]
    return np.interp(log_snr(gamma), known, np.arange(config.steps)[::-1].astype(np.float64))
