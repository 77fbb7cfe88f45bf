"""The device mesh, and the one table that says how arrays lie on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from flowsr_jax.config import ConfigError

DATA_AXES = ("data", "fsdp")
# Arrays below this size are copied to every device even with fsdp: splitting a bias
# saves nothing and costs a collective.
MIN_SPLIT_SIZE = 4096


def initialize_distributed(
    coordinator: str | None = None,
    processes: int | None = None,
    index: int | None = None,
    *,
    heartbeat_s: int = 100,
) -> None:
    """Join the other processes of a multi-host run; call before any other jax call.

    Args:
      coordinator, processes, index: "host:port" of process 0, their number, and which one
        this is; without them jax itself finds the cluster (TPU pod, Slurm, ...).
      heartbeat_s: seconds of silence after which a process counts as dead.  jax then ends
        all others with a message (status 134); until then they may wait for it.

    Raises:
      ConfigError: jax finds no cluster.
    """
    try:
        jax.distributed.initialize(
            coordinator, processes, index, heartbeat_timeout_seconds=heartbeat_s
        )
    except ValueError as error:
        raise ConfigError(f"no cluster was found to join: {error}") from None


def make_mesh(data: int = -1, fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Return the mesh with axes ("data", "fsdp") and automatic sharding.

    Args:
      data: devices that split the batch only; -1 takes all that `fsdp` leaves.
      fsdp: devices that split the batch and the state too.
      devices: those to take; None takes jax's.  Devices of a topology that is not there
        will do for compiling (flowsr_jax/aot).

    Raises:
      ConfigError: the devices at hand do not make up the mesh.
    """
    # Process by process: the rows of a batch then lie as with one process, and so do the
    # random draws that belong to them.  (Some TPU slices number their chips otherwise.)
    devices = sorted(jax.devices() if devices is None else devices, key=_process_and_id)
    if data == -1:
        data = len(devices) // fsdp
    if data < 1 or fsdp < 1 or data * fsdp > len(devices):
        raise ConfigError(
            f"train.mesh_data = {data} times train.mesh_fsdp = {fsdp} devices asked, "
            f"{len(devices)} found"
        )
    if jax.process_count() > 1 and data * fsdp != len(devices):
        raise ConfigError(
            f"a multi-process run must use all {len(devices)} devices, the mesh has {data * fsdp}"
        )
    grid = np.array(devices[: data * fsdp]).reshape(data, fsdp)
    # Explicit axes (jax's default now) refuse the squeeze reshape of a split batch.
    return Mesh(grid, DATA_AXES, axis_types=(AxisType.Auto,) * 2)


def _process_and_id(device: jax.Device) -> tuple[int, int]:
    return device.process_index, device.id


def check_batch(batch_size: int, accumulate: int, mesh: Mesh) -> None:
    """Raise ConfigError if a batch does not divide over micro-batches and devices."""
    parts = accumulate * mesh.size
    if batch_size % parts:
        below, above = batch_size // parts * parts, -(-batch_size // parts) * parts
        near = " or ".join(str(b) for b in (below, above) if b)
        raise ConfigError(
            f"train.batch_size = {batch_size} does not divide over {mesh.size} devices and "
            f"train.accumulate = {accumulate}; take {near}, or fewer devices (train.mesh_data)"
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding that gives every device the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding that splits the first axis over all devices."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXES))


def state_sharding(mesh: Mesh, tree: Any) -> Any:
    """Return the sharding of each array (or ShapeDtypeStruct) of a training state.

    The rule: whole on every device, unless the mesh has fsdp > 1 and the array is
    large; then its largest axis that fsdp divides is split over "fsdp".
    """
    fsdp = mesh.shape["fsdp"]

    def rule(leaf: Any) -> NamedSharding:
        shape = np.shape(leaf)
        axes = [i for i, n in enumerate(shape) if n % fsdp == 0]
        if fsdp == 1 or not axes or np.prod(shape) < MIN_SPLIT_SIZE:
            return replicated(mesh)
        axis = max(axes, key=lambda i: shape[i])
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, "fsdp"))

    return jax.tree.map(rule, tree)


def abstract_state(mesh: Mesh, tree: Any) -> Any:
    """Return a state of arrays or shapes as shapes (ShapeDtypeStruct) laid out on the mesh."""
    return jax.tree.map(
        lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at),
        tree,
        state_sharding(mesh, tree),
    )


def global_batch(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Put this process's part of a batch on its devices as one global batch."""
    sharding = batch_sharding(mesh)
    return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}


def place(mesh: Mesh, tree: Any) -> Any:
    """Lay out a state of arrays on the mesh and NumPy arrays (equal in all processes)."""
    # jit and not device_put, which knows only the devices of its own process.
    return jax.jit(_same, out_shardings=state_sharding(mesh, tree))(tree)


def gather(mesh: Mesh, tree: Any) -> Any:
    """Return host copies of arrays on the mesh; all processes must call it."""
    return jax.device_get(jax.jit(_same, out_shardings=replicated(mesh))(tree))


def _same(tree: Any) -> Any:
    return tree
