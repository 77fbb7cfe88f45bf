"""The TPUs that programs can be compiled for, and their topologies by name."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import re
from typing import Any

from flowsr_jax.config import ConfigError, nearest

GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One kind of TPU; the numbers are of one chip.

    Attributes:
      name: as in a topology's name.
      flops: peak of bfloat16 products, FLOP/s (data sheet).
      bandwidth: of the HBM, bytes/s (data sheet).
      memory: bytes of HBM that the compiler gives to a program: a little less than the
        data sheet's, the rest is the runtime's.
      link: bytes/s that a chip can send over all its links to other chips (Google's pages of
        v5e, v5p and v6e; v4: six links of 50 GB/s).
      axes: dimensions of the grid of chips.
      options: keyword arguments of `get_topology_desc`.
    """

    name: str
    flops: float
    bandwidth: float
    memory: int
    link: float
    axes: int
    options: tuple[tuple[str, str], ...] = ()


CHIPS = {
    chip.name: chip
    for chip in (
        # "megacore" makes the two cores of a v4 chip one device, as jax does on a real one.
        Chip("v4", 275e12, 1228e9, int(30.75 * GIB), 300e9, 3, (("chip_config_name", "megacore"),)),
        Chip("v5e", 197e12, 819e9, int(15.75 * GIB), 200e9, 2),
        Chip("v5p", 459e12, 2765e9, int(95.73 * GIB), 600e9, 3),
        Chip("v6e", 918e12, 1640e9, int(31.24 * GIB), 400e9, 2),
    )
}
ALLOWED = "v4:AxBxC, v5e:AxB, v5p:AxBxC or v6e:AxB with the grid of chips, such as v5e:4x4"


def parse_topology(name: str) -> tuple[Chip, tuple[int, ...]]:
    """Return the chip and the grid of a name such as "v5e:4x4" (16 chips).

    Raises:
      ConfigError: no such name; says what is allowed.
    """
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", name)
    chip = CHIPS.get(match[1]) if match else None
    grid = tuple(map(int, match[2].split("x"))) if match else ()
    if chip is None or len(grid) != chip.axes or 0 in grid:
        kind = re.split(r"[:\-]", name)[0]
        hint = "" if kind in CHIPS else nearest(kind, CHIPS)
        raise ConfigError(f"topology = {name!r} is not {ALLOWED}{hint}")
    return chip, grid


def devices_of(name: str) -> list[Any]:
    """Return the devices of a topology, one per chip; nothing can run on them.

    Raises:
      ConfigError: a name that is not allowed, or no libtpu.
    """
    chip, grid = parse_topology(name)
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError(
            "compiling for a TPU needs its compiler: pip install libtpu (0.6 GB; no TPU needed)"
        )
    from jax.experimental import topologies

    try:
        found = topologies.get_topology_desc(name, platform="tpu", **dict(chip.options))
    except Exception as error:  # of libtpu: a grid that cannot be built
        reason = str(error).splitlines()[0]
        raise ConfigError(f"topology = {name!r} is none that libtpu knows: {reason}") from None
    devices = list(found.devices)
    if len(devices) != math.prod(grid):
        raise RuntimeError(f"{name} has {len(devices)} devices, expected {math.prod(grid)}")
    return devices
