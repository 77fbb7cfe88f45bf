"""How a run or a phase begins: fresh weights, those of another model, or a checkpoint."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from flowsr_jax.config import ConfigError, nearest
from flowsr_jax.io import weights
from flowsr_jax.io.torch_file import read_weights
from flowsr_jax.models.base import Params, family_of
from flowsr_jax.models.importer import file_groups, import_weights
from flowsr_jax.train.config import PhaseConfig
from flowsr_jax.train.mesh import abstract_state, place, replicated, state_sharding
from flowsr_jax.train.resume import check_resumable
from flowsr_jax.train.state import TrainState, create
from flowsr_jax.train.step import to_float

if TYPE_CHECKING:
    from flowsr_jax.train.loop import Run

Batch = dict[str, jax.Array]


def begin_phase(run: Run, index: int, state: TrainState | None) -> tuple[TrainState, Batch | None]:
    """Return the state at the first step of a phase, and the first batch if it was used.

    Args:
      run: the run; `index`: of the phase.
      state: the end of the phase before, None for the first; its averaged weights go on.
    """
    train, phase = run.config.train, run.config.train.phases[index]
    if state is None:
        # Not one jitted program: initial values are hundreds of small draws, which would
        # take longer to compile than to make.
        params, model_state = place(run.mesh, jax.device_get(_initial(run, run.key(0))))
    else:
        params, model_state = state.weights, state.model_state
    if phase.init_from or phase.init_files:
        params = place(run.mesh, take_over(params, phase))
    _check_filled(params)
    batch = None
    if phase.init_from_data:
        batch = run.next_batch()
        params = jax.jit(
            lambda p, b, k: run.family.init_from_data(p, to_float(b), k, **phase.loss_options)
        )(params, batch, run.key(1, index))
    _check_finite(run, phase, params)
    make = functools.partial(create, phase=phase, train=train)
    shardings = state_sharding(run.mesh, jax.eval_shape(make, params, model_state))
    return jax.jit(make, out_shardings=shardings)(params, model_state), batch


def restore(run: Run) -> tuple[TrainState | None, int]:
    """Return (state, index of its phase) of the newest checkpoint; (None, 0) without one.

    The loader is set to the batch that follows.

    Raises:
      ConfigError: the checkpoint belongs to another configuration.
    """

    def target(meta: Mapping[str, Any]) -> TrainState:
        notes = check_resumable(meta["config"], run.config, meta["phase"], meta["step"])
        for note in notes:
            run.progress.message(f"changed since the checkpoint: {note}")
        phase = run.config.train.phases[meta["phase"]]
        make = functools.partial(create, phase=phase, train=run.config.train)
        shapes = jax.eval_shape(lambda key: make(*_initial(run, key)), run.key(0))
        return abstract_state(run.mesh, shapes)

    found = run.store.restore(target)
    if found is None:
        return None, 0
    state, meta = found
    try:
        run.loader.set_state(meta["data"])
    except ValueError as error:
        raise ConfigError(f"the data of the checkpoint differ: {error}") from None
    before, now = meta["data"]["images"], run.loader.get_state()["images"]
    if before != now:
        run.progress.message(
            f"changed since the checkpoint: {before} -> {now} training images, from here on in a "
            "new order"
        )
    return state, meta["phase"]


def take_over(params: Params, phase: PhaseConfig) -> Params:
    """Return `params` with groups (as NumPy arrays) of `phase.init_from` and `init_files`.

    Raises:
      ConfigError: no such folder or file, no such group, or arrays of other shapes.
    """
    found = {}
    if phase.init_from:
        where = f"phase {phase.name!r}: init_from = {phase.init_from!r}"
        source = _read(where, phase.init_from, _read_model)
        names = phase.init_groups or tuple(k for k in params if k in source)
        if not names:
            raise ConfigError(f"{where} has groups {sorted(source)}, the model {sorted(params)}")
        for name in names:
            for side, groups in (("it", source), ("the model", params)):
                if name not in groups:
                    hint = nearest(name, groups)
                    raise ConfigError(f"{where}: {side} has no group {name!r}{hint}")
            found[name] = (where, source[name])
    for name, path in phase.init_files.items():
        where = f"phase {phase.name!r}: init_files.{name} = {path!r}"
        if name not in params:
            raise ConfigError(f"{where}: the model has no group {name!r}")
        read = file_groups(family_of(params))[name]
        found[name] = (where, _read(where, path, lambda p, read=read: read(read_weights(p))))
    for name, (where, tree) in found.items():
        _check_same_shapes(f"{where}, group {name!r}", tree, params[name])
    return params.replace(**{name: jax.device_get(tree) for name, (_, tree) in found.items()})


def _read_model(path: str) -> Params:
    if os.path.isfile(path):
        return import_weights(read_weights(path)).params
    return weights.load(path)


def _read(where: str, path: str, read: Callable[[str], Any]) -> Any:
    try:
        return read(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{where} cannot be read: {error}") from None


def _check_filled(params: Params) -> None:
    """Raise ConfigError for groups without weights of their own, which begin as NaN."""
    for name in file_groups(family_of(params)):
        if name in params and any(bool(jnp.isnan(x).any()) for x in jax.tree.leaves(params[name])):
            raise ConfigError(
                f"the group {name!r} has no weights: give a file of them as "
                f"--config.train.phases.NAME.init_files.{name}=PATH"
            )


def _check_finite(run: Run, phase: PhaseConfig, params: Params) -> None:
    """Raise ConfigError for weights that no training can mend."""

    def finite(params: Params) -> dict[str, jax.Array]:
        return {k: jnp.all(jnp.array([jnp.isfinite(x).all() for x in jax.tree.leaves(params[k])]))
                for k in params}  # fmt: skip

    for name, fine in jax.jit(finite, out_shardings=replicated(run.mesh))(params).items():
        if not fine:
            source = f" (from {phase.init_from!r})" if phase.init_from else ""
            raise ConfigError(
                f"phase {phase.name!r} begins with weights of the group {name!r} that are not "
                f"finite{source}"
            )


def _check_same_shapes(where: str, found: Any, wanted: Any) -> None:
    found, wanted = (
        {jax.tree_util.keystr(p): np.shape(x) for p, x in jax.tree.leaves_with_path(tree)}
        for tree in (found, wanted)
    )
    for path in sorted({*found, *wanted}):
        if found.get(path) != wanted.get(path):
            raise ConfigError(
                f"{where}: {path} is {found.get(path, 'absent')} there "
                f"and {wanted.get(path, 'absent')} in the model"
            )


def _initial(run: Run, key: jax.Array) -> tuple[Params, Any]:
    model = run.config.model
    return run.family.init(model, key), run.family.init_state(model)
