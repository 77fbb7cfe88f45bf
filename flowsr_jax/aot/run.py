"""Compile the programs of a configuration for topologies, one row after another."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from flowsr_jax.aot import plan, report
from flowsr_jax.aot.chips import devices_of, parse_topology
from flowsr_jax.aot.estimate import Result, compile_program, largest_batch
from flowsr_jax.config import ConfigError, choice
from flowsr_jax.train.config import Config

BEAT_S = 60.0


def compile_run(
    config: Config,
    topologies: Sequence[str],
    what: Sequence[str] = plan.PROGRAMS,
    *,
    phase: str | None = None,
    largest: bool = False,
    output: str | None = None,
) -> list[dict[str, Any]]:
    """Compile, print and perhaps save each program on each topology.

    Args:
      config: the run; `train.batch_size` is the global batch on every topology.
      topologies: names such as "v5e:4x4".
      what: "step", "sampler".
      phase: of the step; None is the last.
      largest: search the largest batch per chip that fits, too.
      output: folder of rows (`report.save_row`); rows found there are not made again.

    Returns:
      The rows, with those found.

    Raises:
      ConfigError: a name or a batch that cannot be used, on any of the topologies; before
        anything is compiled.
    """
    for name, given in (("topology", topologies), ("what", what)):
        if not given:
            raise ConfigError(f"{name} is empty: there is nothing to compile")
    for name in what:
        choice("what", name, plan.PROGRAMS)
    for name in topologies:
        parse_topology(name)
    meshes = {name: plan.mesh_of(config, devices_of(name)) for name in topologies}
    chosen = plan.phase_of(config, phase)
    rows = []
    for topology, mesh in meshes.items():
        for program in what:
            about = {
                "config": config.name,
                "phase": chosen.name,
                "program": program,
                "topology": topology,
                "digest": _digest(config),
            }
            row = report.find_row(output, about) if output else None
            if row:
                _say(f"{config.name}, {program}, {topology}: found in {output}")
            else:
                row = _row(config, chosen, about, mesh.size, largest)
                if output:
                    report.save_row(output, row)
            print(report.to_text(row), flush=True)
            rows.append(row)
    return rows


def _row(config, phase, about, chips, largest) -> dict[str, Any]:
    """Compile one program, and others of other batches for the largest."""
    topology, program = about["topology"], about["program"]
    chip, devices = parse_topology(topology)[0], devices_of(topology)
    if program == "step":
        about = {**about, "gradient_bytes": plan.gradient_bytes(config, phase)}

    def compile_batch(per_chip: int) -> Result:
        train = dataclasses.replace(config.train, batch_size=per_chip * chips)
        sized = dataclasses.replace(config, train=train)
        mesh = plan.mesh_of(sized, devices)
        trace = {
            "step": functools.partial(plan.training_step, sized, phase, mesh),
            "sampler": functools.partial(plan.sampler, sized, mesh),
        }[program]
        with _progress(f"{config.name}, {program}, {topology}, {per_chip} per chip"):
            return compile_program(trace, chip, chips)

    batch = config.train.batch_size
    result = compile_batch(batch // chips)
    row = report.make_row(result, batch, chips, about)
    if largest:
        found, best = largest_batch(
            compile_batch, {batch // chips: result}, config.train.accumulate, _say
        )
        row["largest_batch"] = {
            "per_chip": found,
            "global": found * chips,
            "total_bytes": best.memory.total if best else None,
        }
    return row


def _digest(config: Config) -> str:
    """Return eight letters that differ for different configurations."""
    return hashlib.sha256(json.dumps(config.to_dict()).encode()).hexdigest()[:8]


@contextmanager
def _progress(what: str) -> Iterator[None]:
    """Print what is being compiled and, from time to time, for how long."""
    start, done = time.perf_counter(), threading.Event()

    def beat():
        while not done.wait(BEAT_S):
            _say(f"{what}: compiling for {time.perf_counter() - start:.0f} s")

    _say(f"{what}: compiling")
    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
