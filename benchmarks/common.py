"""Timing in units of the machine: everything is a ratio measured in one run."""

from __future__ import annotations

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
    """Compile seconds, and the median and spread of warm runs in seconds and units.

    The unit is measured right before and after each run and the smaller one taken.
    """
    start = time.perf_counter()
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
    return {
        "compile_s": max(first - float(np.median(seconds)), 0.0),
        "median_s": float(np.median(seconds)),
        "median_u": float(np.median(units)),
        "min_u": min(units),
        "max_u": max(units),
    }


def machine() -> str:
    """One line that describes where the numbers come from."""
    device = jax.devices()[0]
    return (
        f"{device.device_kind} ({device.platform}), {os.cpu_count()} cores, "
        f"{platform.machine()}, jax {jax.__version__}"
    )


def report(title: str, rows: dict[str, dict[str, float]]) -> None:
    """Print a table and one JSON line."""
    print(f"{title}: {machine()}")
    for name, row in rows.items():
        print("  " + f"{name:40s}" + "  ".join(f"{k} {v:8.3f}" for k, v in row.items()))
    print(json.dumps({"title": title, "machine": machine(), "rows": rows}))
