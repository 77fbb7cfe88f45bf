"""What a compiled program does, read from its text: loops, collectives, memory traffic."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator

_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_ARRAY = re.compile(r"\b(pred|bf16|token|[suf]\d+\w*|c\d+)\[([\d,]*)\](?:\{([^}]*)\})?")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(
    r"\b(?:calls|body|true_computation|false_computation|to_apply|"
    r"branch_computations|called_computations)=(\{[^}]*\}|%[\w.\-]+)"
)


@dataclasses.dataclass(frozen=True)
class Array:
    """One array of an instruction's result.

    Attributes:
      size: its bytes.
      hbm: bytes that it takes in the HBM, padded to whole tiles; 0 in a memory of the chip.
    """

    size: int
    hbm: int


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line: name, opcode, arrays of the result, names of operands, the rest as text."""

    name: str
    opcode: str
    arrays: tuple[Array, ...]
    operands: tuple[str, ...]
    text: str
    root: bool

    @property
    def size(self) -> int:
        """Bytes of the result."""
        return sum(a.size for a in self.arrays)

    @property
    def called(self) -> list[str]:
        """Names of the computations that it runs."""
        return [n for group in _CALLED.findall(self.text) for n in _NAME.findall(group)]


Computation = dict[str, Instruction]


@dataclasses.dataclass(frozen=True)
class Module:
    """A compiled program.

    Attributes:
      computations: {name: {name: instruction}}.
      entry: name of the one that runs.
      devices: how many run it together.
    """

    computations: dict[str, Computation]
    entry: str
    devices: int

    def runs(self) -> Iterator[tuple[str, float, bool, bool]]:
        """Yield (computation, times it runs, inside a fusion, inside a loop of unknown length).

        All branches of a conditional are taken as run.
        """
        yield from self._runs(self.entry, 1.0, False, False)

    def _runs(self, name, times, fused, unknown):
        yield name, times, fused, unknown
        for i in self.computations.get(name, {}).values():
            if i.opcode in ("reduce", "all-reduce", "all-reduce-start", "reduce-scatter", "sort"):
                continue  # their computation is one operation
            turns = self.trip_count(i) if i.opcode == "while" else 1
            for called in i.called:
                yield from self._runs(
                    called,
                    times * (1 if turns is None else turns),
                    fused or i.opcode == "fusion",
                    unknown or turns is None,
                )

    def trip_count(self, loop: Instruction) -> int | None:
        """Return the turns of a while loop, None if the program does not tell."""
        if match := re.search(r'known_trip_count"?:\{"n":"(\d+)"', loop.text):
            return int(match[1])
        # The TPU compiler keeps the loops of jax, which count from 0: i < constant.
        condition = self.computations[re.search(r"condition=%?([\w.\-]+)", loop.text)[1]]
        lines = list(condition.values())
        for i in condition.values():
            lines += [j for name in i.called for j in self.computations[name].values()]
        compared = [i for i in lines if i.opcode == "compare"]
        bounds = [
            m for i in lines if (m := re.search(r"\b[su]32\[\]\S* constant\((\d+)\)", i.text))
        ]
        if len(compared) == len(bounds) == 1 and "direction=LT" in compared[0].text:
            return int(bounds[0][1])
        return None


def parse(text: str) -> Module:
    """Read `compiled.as_text()`."""
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in text.splitlines():
        if match := _HEAD.match(line):
            current = computations.setdefault(match[2], {})
            entry = match[2] if match[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (match := _LINE.match(line)):
            current[match[2]] = _instruction(match[2], match[3], bool(match[1]))
    devices = re.search(r"num_partitions=(\d+)", text.partition("\n")[0])
    return Module(computations, entry, int(devices[1]) if devices else 1)


def _instruction(name: str, text: str, root: bool) -> Instruction:
    end = _closing(text) if text.startswith("(") else text.index(" ")
    kind, rest = text[:end], text[end:].lstrip()
    opcode, _, arguments = rest.partition("(")
    arguments = "(" + arguments
    inside = arguments[: _closing(arguments)]
    return Instruction(name, opcode, _arrays(kind), tuple(_NAME.findall(inside)), text, root)


def _closing(text: str) -> int:
    """Return the index behind the bracket that closes the first one."""
    depth = 0
    for i, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if depth == 0:
            return i + 1
    return len(text)


def _arrays(kind: str) -> tuple[Array, ...]:
    found = []
    for dtype, shape, layout in _ARRAY.findall(kind):
        sides, width = [int(n) for n in shape.split(",") if n], _width(dtype)
        # S(n) in a layout: a memory other than the HBM.
        hbm = 0 if re.search(r"S\([1-9]", layout) else width * _padded(sides, layout)
        found.append(Array(width * math.prod(sides), hbm))
    return tuple(found)


def _padded(sides: list[int], layout: str) -> int:
    """Return the values of an array, sides rounded up to the tile, e.g. of "1,0:T(8,128)"."""
    order, _, tiles = layout.partition(":")
    tile = re.match(r"T\(([\d,]+)\)", tiles)
    sides = list(sides)
    if tile and sides:
        # The layout lists axes from the fastest; the tile ends with that one.
        axes = [int(n) for n in order.split(",") if n]
        for axis, n in zip(axes, reversed([int(n) for n in tile[1].split(",")]), strict=False):
            sides[axis] = -(-sides[axis] // n) * n
    return math.prod(sides)


def _width(dtype: str) -> int:
    """Return the bytes of a value; types below a byte count as one."""
    if dtype in ("pred", "token"):
        return int(dtype == "pred")
    return max(int(re.search(r"\d+", dtype)[0]) // 8, 1)
