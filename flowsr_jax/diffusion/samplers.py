"""Samplers as tables of coefficients, which the loop of `chain.refine` walks.

Every sampler here is linear in the state, the predicted clean image, the predicted noise,
the last step's clean image and fresh noise; it is a table of their factors, computed in
float64.  One compiled loop thus serves all samplers, schedules and numbers of steps.
Source: docs/papers/sr3.md section 5; Ho et al. (2020), Song et al. (2021,
DDIM; 2021, score SDE), Lu et al. (2022, DPM-Solver++ and its SDE form), Song & Ermon (2019,
Algorithm 1).
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, NamedTuple

import numpy as np

from flowsr_jax.config import (
    ConfigError,
    Count,
    Natural,
    NotNegative,
    Positive,
    Probability,
    Range,
    check_ranges,
    choice,
)
from flowsr_jax.diffusion import process
from flowsr_jax.diffusion.schedules import (
    ScheduleConfig,
    gammas,
    log_snr,
    log_snr_grid,
    trailing_grid,
)
from flowsr_jax.types import AnyArray

NAMES = ("ancestral", "ddim", "dpmpp2m", "pc", "langevin")
CLIPS = ("static", "dynamic", "none")


@dataclasses.dataclass(frozen=True)
class SamplerConfig:
    """How a chain is run.

    Attributes:
      name: "ancestral", "ddim", "dpmpp2m" (DPM-Solver++(2M)), "pc" (reverse-diffusion
        predictor with Langevin corrector steps) or "langevin" (annealed Langevin dynamics).
      steps: N; None is every step of the schedule.
      schedule: of inference, if not the training schedule.
      spacing: "trailing" selects N of the schedule's levels; "log_snr" spaces N - 1 steps
        uniformly in log SNR between the schedule's ends, then steps to 1.
      variance: of "ancestral": "tilde" (public code) or "beta" (paper).
      eta: noise of "ddim" (1 is "ancestral" with "tilde") and of "dpmpp2m" (1 is
        SDE-DPM-Solver++(2M)); 0 is deterministic.
      clip: of the predicted clean image: "static" to [-1,1], "dynamic" (by percentile) or
        "none".
      percentile: of "dynamic".
      keep_eps: with clipping, go on with the network's own eps (as diffusers does) instead
        of the steadier eps that belongs to the clipped image.
      form: of "pc": "vp", or "ve", whose steps are those of x / sqrt(gamma) with
        sigma^2 = (1 - gamma) / gamma.
      corrector_steps: Langevin steps per level of "pc" and "langevin".
      snr: r of the step size of "pc".
      step_size: Langevin step size of "langevin" at the smallest noise level (images in
        [-1,1]); at noise level sigma it is multiplied by (sigma / sigma_min)^2.
    """

    name: str = "ancestral"
    steps: Count | None = None
    schedule: ScheduleConfig | None = None
    spacing: str = "trailing"
    variance: str = "tilde"
    eta: Probability = 0.0
    clip: str = "static"
    percentile: Annotated[float, Range(0, 1, open="low")] = 0.995
    keep_eps: bool = False
    form: str = "vp"
    corrector_steps: Natural = 1
    snr: NotNegative = 0.16
    step_size: Positive = 2e-5

    def __post_init__(self) -> None:
        check_ranges(self)
        choice("sampler", self.name, NAMES)
        choice("spacing", self.spacing, ("trailing", "log_snr"))
        choice("variance", self.variance, process.VARIANCES)
        choice("clip", self.clip, CLIPS)
        choice("form", self.form, ("vp", "ve"))

    @property
    def corrections(self) -> int:
        """Langevin steps per level."""
        return self.corrector_steps if self.name in ("pc", "langevin") else 0


def grid(config: SamplerConfig, training: ScheduleConfig) -> np.ndarray:
    """Return the gammas of the chain, from noise to 1, float64 [N+1].

    Raises:
      ConfigError: more steps than the schedule has.
    """
    schedule = config.schedule or training
    steps = config.steps or schedule.steps
    if config.spacing == "trailing" or steps == 1:
        return trailing_grid(schedule, steps)
    known = gammas(schedule)
    return np.append(log_snr_grid(known[-1], known[0], steps - 1), 1.0)


class Coefficients(NamedTuple):
    """A sampler's table, arrays [N]; row i leads from gammas[i] to gammas[i+1].

    Each field is the factor of one array.  From the state, the network's output, the last
    row's clean image and fresh noise z, a row computes

      clean image     = x0_x * state + x0_out * output (then clipped)
      predicted noise = eps_x * state + eps_out * output
      next state      = x * state + x0 * (clean image) + eps * (predicted noise)
                        + previous * (last clean image) + noise * z

    Attributes:
      level: what the network is told.
      score: factor of the predicted noise that gives the score, for the Langevin steps at
        gammas[i].
      alpha: their step size, or its factor (`chain.refine`); 0 makes no such steps.
    """

    level: AnyArray
    x0_x: AnyArray
    x0_out: AnyArray
    eps_x: AnyArray
    eps_out: AnyArray
    x: AnyArray
    x0: AnyArray
    eps: AnyArray
    previous: AnyArray
    noise: AnyArray
    score: AnyArray
    alpha: AnyArray


def coefficients(
    config: SamplerConfig,
    gammas: AnyArray,
    levels: np.ndarray | None = None,
    prediction: str = "eps",
) -> Coefficients:
    """Return the table of a sampler on a grid.

    Args:
      config: the sampler (its steps, schedule and spacing are in `gammas` already).
      gammas: [N+1] signal levels, increasing, the last at most 1.
      levels: [N] what the network is told at gammas[:-1]; None is sqrt(gamma).
      prediction: "eps", "x0" or "v".

    Raises:
      ConfigError: a grid that does not increase, or starts at 0.
    """
    gammas = np.asarray(gammas, np.float64)
    if gammas.ndim != 1 or len(gammas) < 2 or not np.all(np.diff(gammas) > 0) or gammas[-1] > 1:
        raise ConfigError(
            f"the signal levels of a chain must increase to at most 1, got gammas = {gammas}"
        )
    if gammas[0] <= 0:
        raise ConfigError(
            "the chain starts at gamma = 0, where eps says nothing about the image; use a schedule "
            "whose last gamma is above 0 (not 'jsd')"
        )
    g, s = gammas[:-1], gammas[1:]
    signal, sigma = np.sqrt(g), np.sqrt(1 - g)
    zero = np.zeros_like(g)
    x, x0, eps, previous, noise, alpha = (zero.copy() for _ in range(6))
    if config.name == "ancestral":
        x0, x, spread = process.ancestral_coefficients(g, s, config.variance)
        noise = np.sqrt(spread)
    elif config.name == "ddim":
        noise = config.eta * np.sqrt((1 - s) / (1 - g) * (1 - g / s))
        x0, eps = np.sqrt(s), np.sqrt(np.maximum(1 - s - noise**2, 0))
    elif config.name == "dpmpp2m":
        x, x0, previous, noise = _dpmpp2m(g, s, config.eta)
    elif config.name == "pc":
        x, eps, noise = _reverse_diffusion(g, s, config.form)
        alpha = g / s if config.form == "vp" else zero + 1
        alpha[0] = 0.0
    else:  # x / sqrt(gamma) stays; the Langevin steps move it
        x = np.sqrt(s / g)
        alpha = 0.5 * config.step_size * (1 - g) * g[-1] / (1 - g[-1])
    noise[-1] = 0.0
    if config.clip != "none" and not config.keep_eps:
        x, x0, eps = x + eps / sigma, x0 - eps * signal / sigma, zero
    table = Coefficients(
        signal if levels is None else np.asarray(levels, np.float64),
        *process.conversion(prediction, g),
        *(x, x0, eps, previous, noise),
        score=-1 / sigma,
        alpha=alpha,
    )
    return Coefficients(*(np.broadcast_to(column, g.shape) for column in table))


def _reverse_diffusion(g: np.ndarray, s: np.ndarray, form: str) -> tuple[np.ndarray, ...]:
    """Return the factors of x, eps and noise of the score SDE's predictor.

    The variance-exploding step is x + (sigma_g^2 - sigma_s^2) score + noise on x / sqrt(g),
    whose score is -eps / sigma_g; here it is written for x itself.
    """
    if form == "vp":
        beta = 1 - g / s
        return 2 - np.sqrt(1 - beta), -beta / np.sqrt(1 - g), np.sqrt(beta)
    spread = (1 - g) / g - (1 - s) / s
    sigma = np.sqrt((1 - g) / g)
    return np.sqrt(s / g), -np.sqrt(s) * spread / sigma, np.sqrt(s * spread)


def _dpmpp2m(g: np.ndarray, s: np.ndarray, eta: float) -> tuple[np.ndarray, ...]:
    """Return the factors of x, of this and of the last data prediction, and of noise.

    Second order, multistep.  With eta it solves, exactly but for the data prediction, the
    equation whose noise is eta times that of the time-reversed diffusion (in the square).
    """
    h = log_snr(s) - log_snr(g)
    k = np.zeros_like(g)
    if len(g) > 1:
        k[1:] = np.where(s < 1, h / 2, 0)[1:] / h[:-1]
    c = -np.sqrt(s) * np.expm1(-(1 + eta) * h)
    forgotten = -np.expm1(-2 * eta * h) if eta else np.zeros_like(h)
    x = np.sqrt((1 - s) / (1 - g) * (1 - forgotten))
    return x, c * (1 + k), -c * k, np.sqrt((1 - s) * forgotten)
