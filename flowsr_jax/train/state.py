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
      model_state: the family's arrays beside the weights.  Its entry "statistics" is the
        current value of the parameter group of that name, which a loss moves and no
        optimiser.
      opt_state: {group: optax state} of the groups that the phase trains.
      ema: averaged weights, or None when averaging is off.
      step: int32, steps made in the phase (skipped ones count).
      skipped, skipped_total: int32, steps not applied because a loss, gradient or weight was
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
        """The weights to validate and to export: averaged where they are, statistics moved."""
        weights = self.params if self.ema is None else self.ema
        moving = _moving(self.params, self.model_state)
        return weights.replace(**moving) if moving else weights


def create(params: Params, model_state: Any, phase: PhaseConfig, train: TrainConfig) -> TrainState:
    """Return the state at the beginning of a phase; pure, may be traced.

    Raises:
      ConfigError: the phase names a group that the parameters lack.
    """
    groups = trained_groups(phase, params)
    # One array per counter, and copies: donated buffers must not be shared.
    counters = {k: jnp.zeros([], jnp.int32) for k in COUNTERS}
    moving = {k: jax.tree.map(jnp.copy, params[k]) for k in _moving(params, model_state)}
    return TrainState(
        params=params,
        model_state={**model_state, **moving} if moving else model_state,
        opt_state={
            name: make_optimizer(group).init(trainable(params[name]))
            for name, group in groups.items()
        },
        ema=jax.tree.map(jnp.copy, params) if train.ema_decay else None,
        **counters,
    )


def _moving(params: Params, model_state: Any) -> dict[str, Any]:
    """Return {group: its current value} of the groups that the model state holds."""
    found = ("statistics" in tree for tree in (params, model_state))
    return {"statistics": model_state["statistics"]} if all(found) else {}


COUNTERS = ("step", "skipped", "skipped_total", "last_bad_step")


def trainable(tree: Any) -> Any:
    """Return a tree of arrays with None for those that are no floats: they are constants."""
    return jax.tree.map(lambda x: x if jnp.issubdtype(x.dtype, jnp.floating) else None, tree)


def with_constants(trained: Any, tree: Any) -> Any:
    """Undo `trainable`: `trained` with the constants of `tree`."""
    return jax.tree.map(lambda x, t: x if t is None else t, tree, trained)


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
