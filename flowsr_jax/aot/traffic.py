"""Bytes that a compiled program reads from and writes to the HBM: a rough count.

What each operation outside of fusions reads and writes, loops by their turns; a slice of
an array counts as the slice.  Arrays that the compiler keeps on the chip count nothing.
"""

from __future__ import annotations

import re

from flowsr_jax.aot.collectives import KINDS
from flowsr_jax.aot.hlo import Array, Computation, Instruction, Module

# Operations that neither read nor write, or whose parts are counted where they run.
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional",
    "call", "after-all", "partition-id", "opt-barrier", "async-start", "async-update", "iota",
}  # fmt: skip
_SLICES = ("dynamic-slice", "slice", "gather")


def hbm_bytes(module: Module) -> float:
    """Return the bytes per chip of one execution."""
    total = 0.0
    for name, times, fused, _ in module.runs():
        if not fused:
            inside = module.computations.get(name, {})
            total += times * sum(_bytes(i, inside, module) for i in inside.values())
    return total


def _bytes(i: Instruction, inside: Computation, module: Module) -> int:
    if i.opcode in _FREE or i.opcode.endswith("-done") or i.opcode.removesuffix("-start") in KINDS:
        return 0
    if "AllocateBuffer" in i.text:
        return 0
    read = [_in_hbm(inside[n]) if n in inside else 0 for n in i.operands]
    if i.opcode.endswith("-start"):  # copy-start: (result, operand, ..), others: (operands, result)
        arrays = i.arrays[: len(i.operands) + 1] or (Array(0, 0),)
        result = arrays[0] if i.opcode == "copy-start" else arrays[-1]
        sliced = i.opcode.removesuffix("-start") in _SLICES
        return (min(sum(read), result.size) if sliced else sum(read)) + result.hbm
    written = _in_hbm(i)
    if i.opcode in _SLICES:
        return min(sum(read), i.size) + written
    if i.opcode == "dynamic-update-slice":
        update = inside[i.operands[1]].size
        return min(sum(read), update) + min(written, update)
    if i.opcode == "fusion" and i.called:
        parts = module.computations.get(i.called[0], {})
        read = [min(size, _used(parts, index)) for index, size in enumerate(read)]
        written = min(written, _written(parts, written))
    return sum(read) + written


def _in_hbm(i: Instruction) -> int:
    return sum(a.hbm for a in i.arrays)


def _used(parts: Computation, index: int) -> float:
    """Return the bytes of a fusion's parameter that are read: of slices alone, or of all."""
    own = [i for i in parts.values() if re.search(rf" parameter\({index}\)", i.text)]
    names, total = {i.name for i in own}, 0
    for i in parts.values():  # operands stand before their users
        taken = names.intersection(i.operands)
        if not taken:
            continue
        if i.opcode == "bitcast":
            names.add(i.name)
        elif i.opcode in _SLICES:
            total += i.size
        elif i.opcode == "dynamic-update-slice" and i.operands[0] in names:
            total += 0  # written over in place
        else:
            return float("inf")
    return total


def _written(parts: Computation, size: int) -> float:
    """Return the bytes that a fusion writes: the update alone if it ends in one, in place."""
    root = next((i for i in parts.values() if i.root), None)
    while root is not None and root.opcode == "bitcast":
        root = parts.get(root.operands[0])
    roots = [root] if root is None or root.opcode != "tuple" else [parts[n] for n in root.operands]
    if any(i is None or i.opcode != "dynamic-update-slice" for i in roots):
        return size
    return sum(parts[i.operands[1]].size for i in roots)
