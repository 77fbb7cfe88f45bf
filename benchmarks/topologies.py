"""The table of docs/compile.md: programs compiled for TPUs of many sizes, at equal batch per chip.

    python benchmarks/topologies.py --output=runs/topologies            # hours of compiling
    python benchmarks/topologies.py --output=runs/topologies --configs=irn_div2k \
        --topologies=v5e:2x4,v5e:16x16 --what=step

Every program is compiled by launch/compile.py in a process of its own.  Rows that are in the
folder are skipped, so the command can be stopped and given again.  The batch per chip is the
config's batch over eight chips (--per_chip sets another).  Networks are in bfloat16.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from importlib import import_module
from math import prod
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Networks in bfloat16, as one would train on TPUs.
HALF = "--config.model.{}compute.dtype=bfloat16"
CONFIGS = {
    "srflow_div2k": [HALF.format(""), HALF.format("encoder.")],
    "sr3_ffhq": [HALF.format("unet.")],
    "irn_div2k": [HALF.format("")],
}
# 8, 64 and 256 chips of each kind.
TOPOLOGIES = (
    "v4:2x2x2,v4:4x4x4,v4:4x8x8,v5e:2x4,v5e:8x8,v5e:16x16,"
    "v5p:2x2x2,v5p:4x4x4,v5p:4x8x8,v6e:2x4,v6e:8x8,v6e:16x16"
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", required=True, help="folder of the rows and table.md")
    parser.add_argument("--configs", default=",".join(CONFIGS), help="names, perhaps NAME:variant")
    parser.add_argument("--float32", action="store_true", help="the configs' own precision")
    parser.add_argument("--topologies", default=TOPOLOGIES)
    parser.add_argument("--what", default="step,sampler")
    parser.add_argument("--per_chip", type=int, help="batch per chip; default: config's / 8")
    args, more = parser.parse_known_args()
    sys.path.insert(0, str(ROOT))
    cases = [
        (config, topology, what)
        for topology in args.topologies.split(",")
        for config in args.configs.split(",")
        for what in args.what.split(",")
    ]
    failed = []
    for number, (config, topology, what) in enumerate(cases, 1):
        name, _, variant = config.partition(":")
        values = import_module(f"configs.{name}").get_config(variant)
        chips = prod(map(int, topology.partition(":")[2].split("x")))
        per_chip = args.per_chip or max(values.train.batch_size // 8, 1)
        print(f"[{number}/{len(cases)}] {config}, {what}, {topology}", flush=True)
        start = time.perf_counter()
        done = subprocess.run(
            [
                sys.executable,
                str(ROOT / "launch/compile.py"),
                f"--config={ROOT / 'configs' / name}.py" + (f":{variant}" if variant else ""),
                f"--topology={topology}",
                f"--what={what}",
                f"--global-batch={per_chip * chips}",
                f"--output={args.output}",
                *([] if args.float32 else CONFIGS.get(name, [])),
                *more,
            ]
        )
        if done.returncode:
            failed.append(f"{config}, {what}, {topology}")
        print(f"  {time.perf_counter() - start:.0f} s", flush=True)
    print(f"table: {Path(args.output) / 'table.md'}")
    if failed:
        sys.exit("failed: " + "; ".join(failed))


if __name__ == "__main__":
    main()
