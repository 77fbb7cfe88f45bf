"""A folder of photographs of mixed sizes beside a folder of one size, programs not compiled yet.

    python benchmarks/folder.py                # 40 crops of 60 to 200 pixels a side, and 135x135
    python benchmarks/folder.py --images 10

Runs launch/sample.py with an empty cache of compiled programs; prints CPU seconds (user and
system) and the window sizes that were compiled.  CPU seconds do not depend on other load as
much as wall time does.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from flowsr_jax.data import EmbeddedSource
from flowsr_jax.files.images import write_png

SAMPLE = Path(__file__).parents[1] / "launch" / "sample.py"
SIDE = 135  # of the folder of one size: about the mean area of the mixed one


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--least", type=int, default=60, help="pixels a side")
    parser.add_argument("--most", type=int, default=200)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    mixed = rng.integers(args.least, args.most + 1, (args.images, 2))
    seconds = {}
    for name, sizes in (("mixed", mixed), ("one size", np.full((args.images, 2), SIDE))):
        with tempfile.TemporaryDirectory() as folder:
            cut(Path(folder) / "in", sizes, rng)
            seconds[name], windows = run(Path(folder), args.model)
        print(
            f"{name}: {args.images} images, {np.prod(sizes, axis=1).mean():.0f} pixels each: "
            f"{seconds[name]:.1f} CPU s, windows {', '.join(windows)}",
            flush=True,
        )
    print(f"mixed / one size: {seconds['mixed'] / seconds['one size']:.2f}")


def cut(folder: Path, sizes: np.ndarray, rng: np.random.Generator) -> None:
    """Write crops of the package's photographs."""
    photos = [example["hr"] for example in EmbeddedSource("valid")]
    folder.mkdir()
    for i, (height, width) in enumerate(sizes):
        photo = photos[i % len(photos)]
        top, left = (
            rng.integers(n - m + 1) for n, m in zip(photo.shape, (height, width), strict=False)
        )
        write_png(folder / f"{i:03d}.png", photo[top : top + height, left : left + width])


def run(folder: Path, model: str) -> tuple[float, list[str]]:
    """Return the CPU seconds of the command, and the window sizes that it compiled."""
    env = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    env.pop("JAX_COMPILATION_CACHE_DIR", None)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, SAMPLE, "-i", folder / "in", "-o", folder / "out", "-n", model]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = sum(after[i] - before[i] for i in (0, 1))
    return spent, re.findall(r"compiling for windows of (\d+x\d+)", done.stdout)


if __name__ == "__main__":
    main()
