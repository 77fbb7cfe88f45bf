"""The training state: one pytree that a step maps to the next."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from flowsr_jax.config import ConfigError, nearest
from flowsr_jax.models.base import Params
from flowsr_jax.train.config import GroupConfig, PhaseConfig, TrainConfig
from flowsr_jax.train.optimizer import make_optimizer


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that a step changes.

    Attributes:
      params: the weights under training.
      model_state: the family's arrays beside the weights.
      opt_state: {group: optax state} of the groups that the phase trains.
      ema: averaged weights, or None when averaging is off.
      step: int32, steps made in the phase (skipped ones count).
      skipped, skipped_total: int32, steps not applied because a loss or gradient was
        not finite: in a row up to now, and in the phase.
      last_bad_step: int32, the last of them (from 1), 0 if there was none.
    """

    params: Params
    model_state: Any
    opt_state: dict[str, Any]
    ema: Params | None
    step: jax.Array
    skipped: jax.Array
    skipped_total: jax.Array
    last_bad_step: jax.Array

    @property
    def weights(self) -> Params:
        """The weights to validate and to export: the averaged ones where they exist."""
        return self.params if self.ema is None else self.ema


def create(params: Params, model_state: Any, phase: PhaseConfig, train: TrainConfig) -> TrainState:
    """Return the state at the beginning of a phase; pure, may be traced.

    Raises:
      ConfigError: the phase names a group that the parameters lack.
    """
    groups = trained_groups(phase, params)
    # One array per counter: donated buffers must not be shared.
    counters = {k: jnp.zeros([], jnp.int32) for k in COUNTERS}
    return TrainState(
        params=params,
        model_state=model_state,
        opt_state={name: make_optimizer(g).init(params[name]) for name, g in groups.items()},
        ema=jax.tree.map(jnp.copy, params) if train.ema_decay else None,
        **counters,
    )


COUNTERS = ("step", "skipped", "skipped_total", "last_bad_step")


def trained_groups(phase: PhaseConfig, params: Params) -> dict[str, GroupConfig]:
    """Return {parameter group: its settings} of a phase, with "*" spelled out.

    Raises:
      ConfigError: a name that is no group of the parameters.
    """
    listed = {g.name: g for g in phase.groups}
    for name in listed:
        if name != "*" and name not in params:
            raise ConfigError(
                f"phase {phase.name!r} trains the group {name!r}, which the model lacks"
                f"{nearest(name, params)} (groups: {', '.join(params)})"
            )
    found = {name: listed.get(name, listed.get("*")) for name in sorted(params)}
    groups = {name: group for name, group in found.items() if group is not None}
    if not groups:
        raise ConfigError(f"phase {phase.name!r} trains no group")
    return groups
