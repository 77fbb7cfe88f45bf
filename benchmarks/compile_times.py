"""Seconds to compile a config's training step and sampler: cold, and from the persistent cache.

    python benchmarks/compile_times.py --config=configs/srflow_div2k.py [--config=...]

Each compilation is a process of its own, with a fresh cache folder for the first and the
same one for the second; tracing is counted apart.  ratio is to the first row.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time

import jax
from common import add_output, report
from data import read_config

from flowsr_jax.aot.plan import mesh_of, phase_of, sampler, training_step


def one(file: str, what: str, cache: str) -> dict[str, float]:
    """Seconds of tracing and compiling one program, in this process."""
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    config = read_config(file)
    mesh = mesh_of(config, jax.devices()[:1])
    start = time.perf_counter()
    traced = (
        sampler(config, mesh)
        if what == "sampler"
        else training_step(config, phase_of(config), mesh)
    )
    lowered = traced.lower()
    between = time.perf_counter()
    lowered.compile()
    return {"trace_s": between - start, "compile_s": time.perf_counter() - between}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", action="append", help="FILE[:variant]; may be repeated")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    add_output(parser)
    args = parser.parse_args()
    files = args.config or ["configs/srflow_div2k.py"]
    if args.child:
        print(json.dumps(one(files[0], *args.child)))
        return
    rows, base = {}, None
    for file in files:
        for what in ("step", "sampler"):
            with tempfile.TemporaryDirectory() as cache:
                for kind in ("cold", "cached"):
                    command = [sys.executable, __file__, "--config", file, "--child", what, cache]
                    start = time.perf_counter()
                    text = subprocess.run(
                        command, check=True, capture_output=True, text=True
                    ).stdout
                    row = json.loads(text.splitlines()[-1])
                    row["process_s"] = time.perf_counter() - start
                    base = base or row["compile_s"]
                    rows[f"{file}: {what}, {kind}"] = row | {"ratio": row["compile_s"] / base}
    report("Compile times", rows, args.output)


if __name__ == "__main__":
    main()
