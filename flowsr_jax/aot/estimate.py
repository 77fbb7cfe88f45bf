"""What a compiled program needs and costs on a chip: measured bytes, estimated seconds."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable
from typing import Any

import jax

from flowsr_jax.aot.chips import GIB, Chip
from flowsr_jax.aot.collectives import Collective, collectives
from flowsr_jax.aot.flops import Count, count_flops
from flowsr_jax.aot.hlo import parse
from flowsr_jax.aot.traffic import hbm_bytes

NEARLY_FULL = 0.9  # of a chip: the search for the largest batch ends


@dataclasses.dataclass(frozen=True)
class Memory:
    """HBM of one chip in bytes, as the compiler laid the program out.

    Attributes:
      arguments: the state and the batch; `outputs`: results that take no argument's place.
      temporaries: activations and the like; `code`: the program itself.
      total: of all, or what the compiler says that it needs beyond the chip's.
      limit: the chip's.
    """

    arguments: int
    outputs: int
    temporaries: int
    code: int
    total: int
    limit: int

    @property
    def fits(self) -> bool:
        """Whether the program was compiled into the chip's memory."""
        return self.total <= self.limit


@dataclasses.dataclass(frozen=True)
class Seconds:
    """An estimate from peak rates, that no program reaches: a lower bound of one execution.

    Attributes:
      products: convolutions and matrix products at the chip's bfloat16 peak, times the
        passes that their precision takes.
      hbm: bytes to and from the HBM at its peak.
      links: collectives at the rate of the chip's links, not overlapped.
    """

    products: float
    hbm: float
    links: float

    @property
    def total(self) -> float:
        """The slower one of products and HBM, then the links."""
        return max(self.products, self.hbm) + self.links


@dataclasses.dataclass(frozen=True)
class Result:
    """One compiled program; without a program if it does not fit.

    Attributes:
      memory: of one chip.
      count: FLOPs of the whole program, all chips.
      collectives, traffic, seconds: what each chip sends, its HBM bytes, and the estimate.
      compile_s: seconds of tracing, lowering and compiling.
    """

    memory: Memory
    count: Count
    collectives: tuple[Collective, ...]
    traffic: float
    seconds: Seconds | None
    compile_s: float


def compile_program(trace: Callable[[], jax.stages.Traced], chip: Chip, chips: int) -> Result:
    """Compile a program for so many chips, and return what it needs.

    A program too large for the chip is a result without `seconds`, not an error.
    """
    start = time.perf_counter()
    traced = trace()
    count = count_flops(traced.jaxpr)
    try:
        compiled = traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        needed = _needed(str(error))
        if needed is None:
            raise
        memory = Memory(0, 0, 0, 0, needed, chip.memory)
        return Result(memory, count, (), 0.0, None, time.perf_counter() - start)
    took = time.perf_counter() - start
    module = parse(compiled.as_text())
    sent, traffic = collectives(module), hbm_bytes(module)
    seconds = Seconds(
        count.passes / chips / chip.flops,
        traffic / chip.bandwidth,
        sum(c.sent for c in sent) / chip.link,
    )
    return Result(_memory(compiled, chip), count, sent, traffic, seconds, took)


def largest_batch(
    compile_batch: Callable[[int], Result],
    known: dict[int, Result],
    multiple: int,
    say: Callable[[str], None] = lambda line: None,
    tries: int = 4,
) -> tuple[int, Result | None]:
    """Find about the largest batch per chip that fits, and compile it.

    Memory is close to linear in the batch, so a line through two programs gives the next
    guess; the answer is a program that was compiled, not the line's.

    Args:
      compile_batch: batch per chip -> result.
      known: results so far, at least one.
      multiple: batches per chip must be multiples of it.
      say: told each guess.
      tries: programs that may be compiled.

    Returns:
      (batch per chip, its result); (0, None) if none fits.
    """
    known = dict(known)
    for _ in range(tries):
        fit = max((b for b, r in known.items() if r.memory.fits), default=0)
        over = min((b for b, r in known.items() if not r.memory.fits and b > fit), default=None)
        guess = _guess(known, fit, over, multiple)
        if guess <= fit or guess in known:
            break
        say(f"trying {guess} per chip")
        known[guess] = compile_batch(guess)
        memory = known[guess].memory
        if NEARLY_FULL * memory.limit <= memory.total <= memory.limit:
            break
    best = max((b for b, r in known.items() if r.memory.fits), default=0)
    return best, known.get(best)


def _guess(known: dict[int, Result], fit: int, over: int | None, multiple: int) -> int:
    if len(known) == 1:
        return 2 * fit if fit else next(iter(known)) // 2 // multiple * multiple
    (a, x), (b, y) = sorted(known.items())[-2:]
    slope = (y.memory.total - x.memory.total) / (b - a)
    guess = a + (x.memory.limit - x.memory.total) / slope if slope > 0 else 2 * b
    if over is not None:
        guess = min(guess, over - multiple)
    return max(int(guess) // multiple * multiple, 0)


def _memory(compiled: Any, chip: Chip) -> Memory:
    sizes = compiled.memory_analysis()
    outputs = sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    parts = (
        sizes.argument_size_in_bytes,
        outputs,
        sizes.temp_size_in_bytes,
        sizes.generated_code_size_in_bytes,
    )
    return Memory(*parts, sum(parts), chip.memory)


def _needed(message: str) -> int | None:
    """Return the bytes that a program wants, from the compiler's complaint; else None."""
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    sizes = re.findall(r"\(?([\d.]+)([KMG])\)?", message.partition("See http")[0])
    scale = {"K": 1 << 10, "M": 1 << 20, "G": GIB}
    return max((int(float(n) * scale[unit]) for n, unit in sizes), default=None)
