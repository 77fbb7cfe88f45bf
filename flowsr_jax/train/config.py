"""The configuration of a training run: frozen records and their checks.

A run is a list of phases.  A phase names one loss of the family, its options and
the parameter groups that train; a group carries its own optimiser, schedule and
first step.  Nothing here knows a family by name: model hyper-parameters are the
record of whatever family the registry returns for `model.family`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

from flowsr_jax.config import (
    ConfigError,
    Count,
    Decay,
    Frozen,
    Natural,
    NotNegative,
    Positive,
    Range,
    check_ranges,
    choice,
    from_dict,
    to_dict,
)
from flowsr_jax.data.config import DataConfig
from flowsr_jax.metrics.columns import METRICS
from flowsr_jax.models.base import get_family
from flowsr_jax.models.importer import file_groups
from flowsr_jax.train.overrides import override, plain

OPTIMIZERS = ("adam", "adamw", "adamax", "adamax_glow", "sgd")
SCHEDULES = ("constant", "halve_at", "cosine", "cosine_restart")
BEST = ("auto", "psnr", "ssim", "lr_psnr", "bits_per_dim")


def steps_of(value: int | float, steps: int) -> int:
    """Return a step count: an int as it is, a float as a fraction of `steps`."""
    return round(value * steps) if isinstance(value, float) else value


@dataclasses.dataclass(frozen=True)
class GroupConfig:
    """How one parameter group trains in one phase.

    Attributes:
      name: a top-level key of the parameters, or "*" for all groups that the phase
        does not list by name.  Groups that no entry covers are frozen.
      lr: learning rate (the schedule's peak).
      loss: the loss that trains this group; None is the phase's.  Groups with
        opposed losses (a discriminator) are two entries of one step.
      loss_options: keyword arguments of that loss, where it is not the phase's.
      from_step: first step (an int from 0, or a float fraction of the phase) that
        trains the group; before it the group costs no gradient work.
      optimizer: "adam" and "sgd" add `weight_decay` * w to the gradient (after
        clipping), "adamw" to the update; "adamax_glow" is the form of the released
        Glow code (see optimizer.py).  "sgd" uses betas[0] as momentum.
      betas, eps: constants of the optimiser.
      clip_norm: bound of this group's own gradient norm; 0 turns clipping off for
        it; None leaves it in the joint norm of train.clip_norm.
      schedule: "constant"; "halve_at": times `factor` at each milestone; "cosine":
        to `final_lr` over `period`; "cosine_restart": the same, begun again at each
        milestone (see schedules.py).
      milestones, period: ints (steps) or floats (fractions of the phase).
      warmup_steps: linear warm-up from 0 over so many steps.
    """

    name: str
    lr: NotNegative
    loss: str | None = None
    loss_options: Frozen = Frozen()
    from_step: int | float = 0
    optimizer: str = "adam"
    betas: tuple[Decay, ...] = (0.9, 0.999)
    eps: Positive = 1e-8
    weight_decay: NotNegative = 0.0
    clip_norm: NotNegative | None = None
    schedule: str = "constant"
    milestones: tuple[int | float, ...] = ()
    factor: Positive = 0.5
    period: int | float = 1.0
    final_lr: NotNegative = 0.0
    warmup_steps: Natural = 0

    def __post_init__(self):
        check_ranges(self)
        choice("optimizer", self.optimizer, OPTIMIZERS)
        choice("schedule", self.schedule, SCHEDULES)
        _require(len(self.betas) == 2, "betas", self.betas, "two numbers")
        for field in ("from_step", "period"):
            _check_position(field, getattr(self, field))
        for milestone in self.milestones:
            _check_position("milestones", milestone)
        _require(self.period > 0, "period", self.period, "above 0")


@dataclasses.dataclass(frozen=True)
class PhaseConfig:
    """One phase: a loss, its options, the groups that train, how it begins.

    A phase begins with what the phase before delivered (its averaged weights), fresh
    optimisers and its steps counted from 0.

    Attributes:
      name: for logs.
      loss: key of the family's `losses`.
      steps: number of optimiser steps.
      groups: the groups that train.
      loss_options: keyword arguments of the loss (and of init_from_data).
      init_from: a model folder (flowsr_jax.io.weights), a run's work directory, or an
        official weight file (.pth, .npz, .safetensors), whose groups replace ours.
      init_groups: the groups taken from it; empty takes all that both have.
      init_files: {group: official weight file of that group alone} (IRN+: the VGG19 of
        "features").
      init_from_data: run the family's data-dependent initialisation on the first
        batch of the phase, which then is also the batch of its first step.
    """

    name: str
    loss: str
    steps: Count
    groups: tuple[GroupConfig, ...]
    loss_options: Frozen = Frozen()
    init_from: str | None = None
    init_groups: tuple[str, ...] = ()
    init_files: Frozen = Frozen()
    init_from_data: bool = False

    def __post_init__(self):
        check_ranges(self)
        _require(len(self.groups) > 0, "groups", self.groups, "at least one group")
        names = [g.name for g in self.groups]
        _require(len(set(names)) == len(names), "groups", names, "different names")
        begin = [steps_of(g.from_step, self.steps) for g in self.groups]
        _require(min(begin) == 0, "groups", names, "such that one trains from step 0")
        for group, first in zip(self.groups, begin, strict=True):
            at = [steps_of(m, self.steps) for m in group.milestones]
            where = f"group {group.name!r}: "
            _require(at == sorted(at), where + "milestones", group.milestones, "increasing")
            what = f"before the end of the phase, {self.steps} steps"
            _require(first < self.steps, where + "from_step", group.from_step, what)
        for group in self.groups:
            if group.loss_options not in (Frozen(), self.losses()[self.loss_of(group)]):
                raise ConfigError(
                    f"group {group.name!r}: loss_options differ from those of the phase or of "
                    f"another group for the loss {self.loss_of(group)!r}"
                )

    def loss_of(self, group: GroupConfig) -> str:
        """Return the name of the loss that trains `group`."""
        return group.loss or self.loss

    def losses(self) -> dict[str, Frozen]:
        """Return {loss: its options} in the order of a step: the phase's own first."""
        found = {self.loss: self.loss_options}
        for group in self.groups:
            found.setdefault(self.loss_of(group), group.loss_options)
        return found


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Everything about training but the model and the data.

    Attributes:
      batch_size: examples of one optimiser step, over all devices and processes.
      phases: the phases in order.
      ema_decay: decay of the averaged weights; 0 turns them off.
      clip_norm: bound of the joint gradient norm of the groups that share a loss.
      accumulate: micro-batches that one step is computed in (saves memory).
      log_every, valid_every, checkpoint_every: in steps; valid_every 0 validates only
        at the end of each phase.
      keep: newest checkpoints kept; the best one of the newest validated phase is kept
        besides.  best: what ranks them: a column of the first view, or bits_per_dim;
        "auto" takes bits_per_dim where the model has it, else psnr.
      max_skipped, max_skipped_total: consecutive and total steps with a non-finite
        loss, gradient or weight (skipped) after which the run stops.
      mesh_data, mesh_fsdp: device mesh; -1 takes all devices.
      valid_images: images per validation (0: all); valid_crop: centre crop of so many
        HR pixels (0: whole); valid_draws: samples per stochastic view;
        sheet_images: rows of the picture sheet; metrics: further columns of the validation
        table, names of `flowsr_jax.register_metric` or "ms_ssim".
      compilation_cache: folder of compiled programs; "auto" puts it beside the
        workdir; None leaves jax's setting.
      tensorboard: write event files too, where tensorboardX is installed.
    """

    batch_size: Count
    phases: tuple[PhaseConfig, ...]
    ema_decay: Decay = 0.0
    clip_norm: NotNegative | None = None
    accumulate: Count = 1
    log_every: Count = 100
    valid_every: Natural = 0
    checkpoint_every: Count = 1000
    keep: Count = 2
    best: str = "auto"
    max_skipped: Count = 20
    max_skipped_total: Count = 1000
    mesh_data: int = -1
    mesh_fsdp: Count = 1
    valid_images: Natural = 8
    valid_crop: Natural = 0
    valid_draws: Count = 3
    sheet_images: Natural = 4
    metrics: tuple[str, ...] = ()
    compilation_cache: str | None = "auto"
    tensorboard: bool = True

    def __post_init__(self):
        check_ranges(self)
        alone = self.mesh_data == -1 or self.mesh_data >= 1
        _require(alone, "mesh_data", self.mesh_data, "at least 1, or -1 for all devices")
        _require(len(self.phases) > 0, "phases", self.phases, "at least one phase")
        _require(
            self.batch_size % self.accumulate == 0,
            "accumulate",
            self.accumulate,
            f"a divisor of batch_size = {self.batch_size}",
        )
        for name in self.metrics:
            if name not in METRICS:
                choice("metrics", name, METRICS.names())
        choice("best", self.best, (*BEST, *self.metrics))


@dataclasses.dataclass(frozen=True)
class Config:
    """One run: `model` is the family's own config record, chosen by `model.family`."""

    model: Any
    data: DataConfig
    train: TrainConfig
    # jax.random.key would silently keep the low 32 bits of a larger seed.
    seed: Annotated[int, Range(0, 2**32 - 1)] = 0
    name: str = "run"

    def __post_init__(self):
        check_ranges(self)
        family = get_family(self.model.family)
        for i, phase in enumerate(self.train.phases):
            path = f"train.phases[{i}]"
            for loss in phase.losses():
                choice(f"{path}: loss", loss, tuple(family.losses))
            for group in phase.init_files:
                choice(f"{path}.init_files: group", group, file_groups(family))
            if phase.init_from_data and family.init_from_data is None:
                raise ConfigError(f"{path}.init_from_data: family {family.name!r} has none")

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, lists and scalars; `resolve` of it gives an equal record."""
        return {**to_dict(self), "model": {"family": self.model.family, **to_dict(self.model)}}


def resolve(values: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> Config:
    """Check a configuration and return its frozen record.

    Args:
      values: nested mappings (an ml_collections ConfigDict, a parsed config.json);
        `model` must hold `family` beside that family's hyper-parameters.
      overrides: {dotted path: value}, e.g. {"train.batch_size": 4,
        "train.phases[0].steps": 10}; an entry of a list can also be named by its
        `name` ("train.phases.flow.steps").

    Raises:
      ConfigError: an unknown or missing field, or a value that cannot be used; the
        message names the field and the nearest right one.
    """
    values = plain(values)
    for path, value in (overrides or {}).items():
        override(values, path, value)
    model = values.get("model")
    if not isinstance(model, Mapping) or "family" not in model:
        raise ConfigError("config.model must be a mapping with the field 'family'")
    try:
        family = get_family(model["family"])
    except ValueError as error:
        raise ConfigError(f"config.model.family: {error}") from None
    fields = {k: v for k, v in model.items() if k != "family"}
    record = from_dict(family.config_class, fields, "config.model")
    return from_dict(Config, {**values, "model": record})


def _require(condition: bool, field: str, value: Any, what: str) -> None:
    if not condition:
        raise ConfigError(f"{field} = {value!r} must be {what}")


def _check_position(field: str, value: int | float) -> None:
    allowed = 0 <= value <= 1 if isinstance(value, float) else value >= 0
    _require(allowed, field, value, "steps (an int) or a fraction of the phase (0.0 to 1.0)")
