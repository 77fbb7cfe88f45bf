"""The programs that a run would execute, traced with shapes alone, on devices that need not be.

The training step is the trainer's own: the family's parameters, `train.state.create`,
`train.step.make_step` and the shardings of `train.mesh`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from flowsr_jax.config import ConfigError, nearest
from flowsr_jax.models.base import get_family
from flowsr_jax.train.config import Config, PhaseConfig
from flowsr_jax.train.mesh import abstract_state, batch_sharding, check_batch, make_mesh, replicated
from flowsr_jax.train.state import TrainState, create, trainable, trained_groups
from flowsr_jax.train.step import make_step

PROGRAMS = ("step", "sampler")


def mesh_of(config: Config, devices: list[Any]) -> Mesh:
    """Return the mesh of a run on these devices, checked against its batch.

    Raises:
      ConfigError: `train.mesh_data`, `train.mesh_fsdp` or the batch does not fit them.
    """
    mesh = make_mesh(config.train.mesh_data, config.train.mesh_fsdp, devices)
    check_batch(config.train.batch_size, config.train.accumulate, mesh)
    return mesh


def phase_of(config: Config, name: str | None = None) -> PhaseConfig:
    """Return a phase by its name; None is the last one."""
    phases = {phase.name: phase for phase in config.train.phases}
    if name is None:
        return config.train.phases[-1]
    if name not in phases:
        listed = ", ".join(phases)
        raise ConfigError(f"phase = {name!r} is not one of {listed}{nearest(name, phases)}")
    return phases[name]


def training_step(config: Config, phase: PhaseConfig, mesh: Mesh) -> jax.stages.Traced:
    """Return the traced step that trains all groups of a phase (its most expensive one)."""
    family = get_family(config.model.family)
    step = make_step(family, phase, config.train, mesh)
    return step.trace(_state(config, phase, mesh), _batch(config, mesh), _key(mesh))


def sampler(config: Config, mesh: Mesh) -> jax.stages.Traced:
    """Return the traced `sample` with its defaults: a training patch's size per example."""
    family, images = get_family(config.model.family), batch_sharding(mesh)
    params = _state(config, phase_of(config), mesh).weights
    count, options = config.train.batch_size, {}
    if family.kind(config.model) == "unconditional":
        lr, options = None, {"num_samples": count}
        if family.classes(config.model):
            options["label"] = jnp.zeros(count, jnp.int32)
    else:
        shape = (*_shape(config, config.data.scale)[:-1], family.lr_channels(config.model))
        lr = jax.ShapeDtypeStruct(shape, np.float32, sharding=images)

    def sample(params, lr, key):
        return family.sample(params, lr, key, **options)

    return jax.jit(sample, out_shardings=images).trace(params, lr, _key(mesh))


def gradient_bytes(config: Config, phase: PhaseConfig) -> int:
    """Return the bytes of the gradients of a step of the phase: float32, all its groups."""
    params = jax.eval_shape(
        lambda key: get_family(config.model.family).init(config.model, key), jax.random.key(0)
    )
    trained = {name: trainable(params[name]) for name in trained_groups(phase, params)}
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(trained))


def _state(config: Config, phase: PhaseConfig, mesh: Mesh) -> TrainState:
    family, model = get_family(config.model.family), config.model

    def begin(key):
        return create(family.init(model, key), family.init_state(model), phase, config.train)

    return abstract_state(mesh, jax.eval_shape(begin, jax.random.key(0)))


def _batch(config: Config, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    data, at = config.data, batch_sharding(mesh)
    lr_dtype = np.float32 if data.float_lr else np.uint8
    batch = {
        "hr": jax.ShapeDtypeStruct(_shape(config), np.uint8, sharding=at),
        "lr": jax.ShapeDtypeStruct(_shape(config, data.scale), lr_dtype, sharding=at),
    }
    if get_family(config.model.family).classes(config.model):
        count = (config.train.batch_size,)
        batch["label"] = jax.ShapeDtypeStruct(count, np.int32, sharding=at)
    return batch


def _shape(config: Config, scale: int = 1) -> tuple[int, ...]:
    side = config.data.patch_size // scale
    return (config.train.batch_size, side, side, config.data.channels)


def _key(mesh: Mesh) -> jax.ShapeDtypeStruct:
    key = jax.eval_shape(jax.random.key, 0)
    return jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=replicated(mesh))
