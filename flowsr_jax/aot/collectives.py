"""The messages between the chips of a compiled program, by kind, with their bytes."""

from __future__ import annotations

import dataclasses
import math
import re

from flowsr_jax.aot.hlo import Computation, Instruction, Module

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")


@dataclasses.dataclass(frozen=True)
class Collective:
    """All messages of one kind, of one execution of the program.

    Attributes:
      kind: one of KINDS.
      count: how many, those of a loop once per turn.
      bytes: of the whole arrays: what is summed (all-reduce, reduce-scatter), what each
        chip has in the end (all-gather), what each chip sends (the others).
      sent: bytes that each chip sends when the messages go round a ring.
      largest: bytes of the largest one.
      source: where the largest one comes from in the traced program.
      unknown: some stand in a loop of unknown length and are counted once.
    """

    kind: str
    count: int
    bytes: float
    sent: float
    largest: float
    source: str
    unknown: bool


def collectives(module: Module) -> tuple[Collective, ...]:
    """Return what a compiled program sends, most bytes first."""
    found: dict[str, Collective] = {}
    for name, times, _, unknown in module.runs():
        computation = module.computations.get(name, {})
        for i in computation.values():
            kind = i.opcode.removesuffix("-start")
            if kind not in KINDS or (chips := _group(i, module.devices)) == 1:
                continue
            size, sent = _bytes(kind, i, computation, chips)
            old = found.get(kind, Collective(kind, 0, 0, 0, 0, "", False))
            larger = size > old.largest
            found[kind] = Collective(
                kind,
                old.count + round(times),
                old.bytes + times * size,
                old.sent + times * sent,
                max(size, old.largest),
                _source(i) if larger else old.source,
                old.unknown or unknown,
            )
    return tuple(sorted(found.values(), key=lambda c: -c.bytes))


def _bytes(kind: str, i: Instruction, inside: Computation, chips: int) -> tuple[float, float]:
    """Return (bytes of the whole array, bytes that a chip sends) of one execution."""
    given = sum(inside[n].size for n in i.operands if n in inside)
    share = (chips - 1) / chips
    if kind == "all-gather":
        return given * chips, given * (chips - 1)
    if kind == "all-reduce":
        return given, 2 * share * given
    return given, given if kind == "collective-permute" else share * given


def _group(i: Instruction, devices: int) -> int:
    """Return how many chips take part in one message."""
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\] ?\{([^}]*)\}", i.text):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", match[1]))
        return math.prod(int(sizes[a]) for a in re.findall(r"'([^']+)'", match[2])) or devices
    if match := re.search(r"replica_groups=\[(\d+),(\d+)\]", i.text):
        return int(match[2])
    if match := re.search(r"replica_groups=\{\{([\d,]*)\}", i.text):
        return len(match[1].split(","))
    return devices  # all; a permutation names pairs


def _source(i: Instruction) -> str:
    match = re.search(r'op_name="([^"]*)"', i.text)
    return match[1] if match else ""
