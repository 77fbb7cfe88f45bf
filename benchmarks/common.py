"""Timing in units of the machine: everything is a ratio measured in one run."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time

import jax
import numpy as np


def unit_seconds(repeats: int = 5) -> float:
    """Seconds of one 1024^3 float32 NumPy matrix product: the unit u."""
    a = np.random.default_rng(0).standard_normal((1024, 1024), np.float32)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return min(times)


def measure(function, *args, repeats: int = 5) -> dict[str, float]:
    """Compile seconds, temporaries, and the median and spread of warm runs, in seconds and u.

    The unit is measured right before and after each run and the smaller one taken.

    Args:
      function: a jitted function, or a callable of its own, whose first call is then taken
        to compile (no temporaries are known of it).
    """
    row = {}
    start = time.perf_counter()
    if hasattr(function, "lower"):
        function = function.lower(*args).compile()
        row["compile_s"] = time.perf_counter() - start
        row["temp_MB"] = function.memory_analysis().temp_size_in_bytes / 1e6
    jax.block_until_ready(function(*args))
    first = time.perf_counter() - start
    seconds, units = [], []
    before = unit_seconds()
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function(*args))
        seconds.append(time.perf_counter() - start)
        after = unit_seconds()
        units.append(seconds[-1] / min(before, after))
        before = after
    row.setdefault("compile_s", max(first - float(np.median(seconds)), 0.0))
    return row | {
        "median_s": float(np.median(seconds)),
        "median_u": float(np.median(units)),
        "min_u": min(units),
        "max_u": max(units),
    }


def machine() -> str:
    """One line that describes where the numbers come from."""
    device = jax.devices()[0]
    return (
        f"{device.device_kind} ({device.platform}), {_processor()}, {os.cpu_count()} cores, "
        f"jax {jax.__version__}, u = {1000 * unit_seconds():.1f} ms"
    )


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(x.split(":")[1].strip() for x in file if x.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add the option that `report` takes as `output`."""
    parser.add_argument("-o", "--output", help="file.md to append the table to")


def report(title: str, rows: dict[str, dict[str, float]], output: str | None = None) -> None:
    """Print a table and one JSON line; append the table, in Markdown, to a file."""
    where = machine()
    print(f"{title}: {where}")
    for name, row in rows.items():
        print("  " + f"{name:40s}" + "  ".join(f"{k} {v:8.3f}" for k, v in row.items()))
    print(json.dumps({"title": title, "machine": where, "rows": rows}))
    if output:
        columns = list(dict.fromkeys(key for row in rows.values() for key in row))
        lines = [f"## {title}", "", f"{where}; {time.strftime('%Y-%m-%d')}.", ""]
        lines += [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
        for name, row in rows.items():
            cells = [f"{row[c]:.4g}" if c in row else "" for c in columns]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        with open(output, "a", encoding="utf-8") as file:
            file.write("\n".join([*lines, "", ""]))
