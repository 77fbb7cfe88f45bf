"""One optimiser step: pure, jitted, donated, sharded.

The step knows losses by name and parameter groups by key, nothing of a family.  All
losses of a step (one, or several opposed ones) are taken at the same weights and with
the same random key, and every group is moved by its own loss only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from flowsr_jax.models.base import Family, Params
from flowsr_jax.train.config import GroupConfig, PhaseConfig, TrainConfig, steps_of
from flowsr_jax.train.mesh import DATA_AXES, replicated, state_sharding
from flowsr_jax.train.optimizer import make_optimizer
from flowsr_jax.train.schedules import learning_rate
from flowsr_jax.train.state import TrainState, trainable, trained_groups, with_constants

Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]
Step = Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Metrics]]


def to_float(batch: Batch) -> dict[str, jax.Array]:
    """Return the batch with uint8 images as float32 in [0,1]; other arrays stay."""
    return {k: v.astype(jnp.float32) / 255 if v.dtype == jnp.uint8 else v for k, v in batch.items()}


def active_groups(phase: PhaseConfig, params: Params, step: int) -> tuple[str, ...]:
    """Return the names of the groups that the step after `step` steps trains."""
    groups = trained_groups(phase, params)
    return tuple(k for k, g in groups.items() if step >= steps_of(g.from_step, phase.steps))


def make_step(
    family: Family,
    phase: PhaseConfig,
    config: TrainConfig,
    mesh: Mesh,
    active: tuple[str, ...] | None = None,
) -> Step:
    """Return the compiled step of a phase.

    Args:
      family: whose losses are called as (params, model_state, batch, key, **options).
      phase, config: what trains and how.
      mesh: devices of the state and the batch (see mesh.py).
      active: the groups that train now (`active_groups`); None is all of the phase.
        The others cost no gradient work.

    Returns:
      (state, batch, key) -> (state, metrics).  The state is donated.  `batch` holds
      uint8 images [B,H,W,3]; `key` is the phase's key, the step folds its number in.
      Metrics are float32 scalars over the global batch: loss, grad_norm, lr/<group>,
      skipped, skipped_total and the family's own; those of a loss other than the
      phase's are named <loss>/....
    """

    def step(state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, Metrics]:
        groups = trained_groups(phase, state.params)
        names = tuple(groups) if active is None else active
        micro = _split(to_float(batch), config.accumulate, mesh)
        key = jax.random.fold_in(key, state.step)

        grads: dict[str, Any] = {}
        metrics: Metrics = {}
        model_state, finite = state.model_state, jnp.bool_(True)
        for loss_name, options in phase.losses().items():
            members = tuple(k for k in names if phase.loss_of(groups[k]) == loss_name)
            if not members:
                continue
            loss = functools.partial(family.losses[loss_name], **options)
            own, model_state, scalars = _gradients(
                loss, state.params, members, model_state, micro, key
            )
            scalars["grad_norm"] = optax.tree.norm(own)
            finite &= jnp.isfinite(scalars["loss"]) & jnp.isfinite(scalars["grad_norm"])
            prefix = "" if loss_name == phase.loss else f"{loss_name}/"
            metrics.update({prefix + k: v for k, v in scalars.items()})
            grads.update(_clip(own, groups, config.clip_norm))

        params, opt_state = dict(state.params.tree), dict(state.opt_state)
        for name in groups:
            rate = learning_rate(groups[name], phase.steps)(state.step + 1)
            metrics[f"lr/{name}"] = rate if name in names else jnp.float32(0)
            if name in names:
                params[name], opt_state[name] = _update(
                    groups[name], rate, grads[name], opt_state[name], params[name]
                )
        params = Params(params, state.params.config)
        # A finite loss can still give weights beyond float32: lr = 1e38.
        moved = ({k: params[k] for k in names}, model_state)
        finite &= _all_finite(moved, split=mesh.shape["fsdp"] > 1)
        ema = _average(state, params, groups, config.ema_decay)
        changed = (params, model_state, opt_state, ema)
        kept = (state.params, state.model_state, state.opt_state, state.ema)
        # A bad step leaves everything but the counters as it was.
        params, model_state, opt_state, ema = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old), changed, kept
        )
        number, bad = state.step + 1, (~finite).astype(jnp.int32)
        new = TrainState(
            params=params,
            model_state=model_state,
            opt_state=opt_state,
            ema=ema,
            step=number,
            skipped=(state.skipped + 1) * bad,
            skipped_total=state.skipped_total + bad,
            last_bad_step=jnp.where(finite, state.last_bad_step, number),
        )
        metrics |= {"skipped": new.skipped, "skipped_total": new.skipped_total}
        metrics = {k: jnp.asarray(v, jnp.float32) for k, v in metrics.items()}
        new = jax.lax.with_sharding_constraint(new, state_sharding(mesh, new))
        return new, jax.lax.with_sharding_constraint(metrics, replicated(mesh))

    return jax.jit(step, donate_argnums=0)


def _gradients(loss, params, members, model_state, micro, key):
    """Return (gradients of `members`, model state, mean metrics) over micro-batches.

    `micro` has arrays [accumulate, B/accumulate, ...].
    """

    def one(model_state, batch, key):
        def scalar(trained):
            # Only the trained groups are differentiated; the rest are constants.
            groups = {k: with_constants(v, params[k]) for k, v in trained.items()}
            return loss(params.replace(**groups), model_state, batch, key)

        trained = {k: trainable(params[k]) for k in members}
        (value, (model_state, metrics)), grads = jax.value_and_grad(scalar, has_aux=True)(trained)
        return grads, model_state, {**metrics, "loss": value}

    count = jax.tree.leaves(micro)[0].shape[0]
    if count == 1:
        return one(model_state, jax.tree.map(lambda x: x[0], micro), key)

    def body(carry, inputs):
        model_state, total = carry
        index, batch = inputs
        grads, model_state, metrics = one(model_state, batch, jax.random.fold_in(key, index))
        total = jax.tree.map(lambda t, x: t + x / count, total, (grads, metrics))
        return (model_state, total), None

    first = jax.tree.map(lambda x: x[0], micro)
    shapes = jax.eval_shape(one, model_state, first, key)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), (shapes[0], shapes[2]))
    (model_state, (grads, metrics)), _ = jax.lax.scan(
        body, (model_state, zeros), (jnp.arange(count), micro)
    )
    return grads, model_state, metrics


def _split(batch: Batch, count: int, mesh: Mesh) -> dict[str, jax.Array]:
    """Reshape [B, ...] to [count, B/count, ...], every part spread over all devices."""
    if count == 1:
        return {k: v[None] for k, v in batch.items()}
    sharding = NamedSharding(mesh, PartitionSpec(None, DATA_AXES))

    def split(x: jax.Array) -> jax.Array:
        # Part i takes examples i, i+count, ...: no example changes its device.
        x = x.reshape(x.shape[0] // count, count, *x.shape[1:]).swapaxes(0, 1)
        return jax.lax.with_sharding_constraint(x, sharding)

    return {k: split(v) for k, v in batch.items()}


def _clip(
    grads: dict[str, Any], groups: dict[str, GroupConfig], joint: float | None
) -> dict[str, Any]:
    """Bound the joint norm of the groups without a bound of their own, and the others'."""
    own = {k: groups[k].clip_norm for k in grads}
    shared = {k: g for k, g in grads.items() if own[k] is None}
    shared = _bound(shared, joint)
    return {k: shared[k] if own[k] is None else _bound(g, own[k]) for k, g in grads.items()}


def _bound(grads: Any, limit: float | None) -> Any:
    if not limit or not grads:
        return grads
    # max before the division: a zero gradient must not give 0/0.
    scale = limit / jnp.maximum(optax.tree.norm(grads), limit)
    return jax.tree.map(lambda g: g * scale, grads)


def _update(group: GroupConfig, rate: jax.Array, grads: Any, opt_state: Any, params: Any):
    weights = trainable(params)
    direction, opt_state = make_optimizer(group).update(grads, opt_state, weights)
    moved = jax.tree.map(lambda w, u: w - rate * u, weights, direction)
    return with_constants(moved, params), opt_state


def _all_finite(tree: Any, split: bool) -> jax.Array:
    """Return whether all values are finite.

    Args:
      tree: arrays.
      split: the arrays may be split over devices; then each is reduced where it lies.
        Otherwise they are laid side by side, behind a barrier: a reduction for each array,
        fused with the update that makes it, doubles the time that a step compiles.
    """
    leaves = jax.tree.leaves(tree)
    if split:
        return jnp.all(jnp.array([jnp.isfinite(x).all() for x in leaves]))
    floats = [x.ravel() for x in leaves if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.isfinite(jnp.concatenate(jax.lax.optimization_barrier(floats))).all()


def _average(
    state: TrainState, params: Params, groups: Iterable[str], decay: float
) -> Params | None:
    """Return the new averages of `groups`; the early decay is at most (1+t)/(10+t)."""
    if state.ema is None:
        return None
    t = state.step.astype(jnp.float32)
    share = 1 - jnp.minimum(decay, (1 + t) / (10 + t))
    ema = {}
    for k in groups:
        old, new = trainable(state.ema[k]), trainable(params[k])
        # Written as a move towards the weights, so that equal ones stay bit for bit.
        moved = jax.tree.map(lambda e, w: e + share * (w - e), old, new)
        ema[k] = with_constants(moved, params[k])
    return state.ema.replace(**ema)
