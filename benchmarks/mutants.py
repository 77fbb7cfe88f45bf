"""Plant faults one at a time in a copy of the tree, and report the share that tests see.

    python benchmarks/mutants.py --list
    python benchmarks/mutants.py [--only PART] [--first N]

A fault is a file of the package, a text that stands in it once, what is put in its place, and
the tests that ought to fail.  "NOT SEEN" names a gap of the tests; "NO TEXT" a fault that the
code has outgrown.  The tests are run without a fault first.  Exit status: 0 all were seen.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UNSEEN = "test_unseen_faults"
# (file, old text, new text, arguments of pytest)
FAULTS = (
    # Those that no test saw once (each has a test in tests/test_unseen_faults.py since).
    ("models/srflow/sample.py", "[temperature * z for", "[temperature**2 * z for", UNSEEN),
    ("train/step.py", "(state.step + 1)\n", "(state.step)\n", "test_train_step"),
    ("api.py", "jnp.float32) - 0.5) / 255", "jnp.float32)) / 255", UNSEEN),
    ("bijectors/conv1x1.py", 'jax.lax.stop_gradient(params["sign_s"])', 'params["sign_s"]', UNSEEN),
    ("bijectors/conv1x1.py", 'jax.lax.stop_gradient(params["p"])', 'params["p"]', UNSEEN),
    ("models/irn/losses.py", "return config.z_scale * jax", "return jax", UNSEEN),
    ("models/sr3/losses.py", "drop(extra[3]", "drop(extra[2]", UNSEEN),
    ("math/back_projection.py", "i in (0, iterations - 1)", "i == 0", UNSEEN),
    # Densities and bijectors.
    ("math/gaussian.py", "math.log2(255.0)", "math.log2(256.0)", "test_api test_evaluate"),
    ("math/gaussian.py", "2.0 * logs + jnp", "logs + jnp", "test_layers test_bijectors"),
    ("math/gaussian.py", "(jnp.square(z) + LOG_2PI)", "jnp.square(z)", "test_bijectors"),
    (
        "bijectors/actnorm.py",
        "return (x + params",
        "return (x - params",
        "test_bijectors -k actnorm",
    ),
    # Diffusion.
    ("diffusion/process.py", "sqrt(1 - level * level)", "sqrt(1 - level)", "test_diffusion"),
    ("diffusion/process.py", "a = gamma / next_gamma", "a = next_gamma / gamma", "test_diffusion"),
    ("diffusion/process.py", "zero, one, one / noise", "zero, one, one", "test_diffusion"),
    ("diffusion/process.py", "jnp.minimum(gamma, k", "jnp.maximum(gamma, k", "test_diffusion"),
    ("diffusion/process.py", "unconditional + scale", "conditional + scale", "test_diffusion"),
    ("diffusion/process.py", "-scale, scale) / scale", "-scale, scale)", "test_diffusion"),
    ("diffusion/chain.py", "return math.sqrt(2) * lax", "return lax", "test_diffusion"),
    ("diffusion/chain.py", "x0 + center) - center", "x0 + center)", "test_diffusion test_sr3"),
    ("diffusion/chain.py", "step = 2 * step * ratio", "step = step * ratio", "test_diffusion"),
    # Training.
    ("train/step.py", "(1 + t) / (10 + t)", "(1 + t) / (1 + t)", "test_train_step"),
    ("train/step.py", "fold_in(key, state.step)", "fold_in(key, 0)", "test_train_step"),
    ("train/optimizer.py", "* m / (v + eps)", "* m / v", "test_glow_golden test_train_step"),
    ("train/optimizer.py", "(direction, decay) if", "(decay, direction) if", "test_train_step"),
    ("train/optimizer.py", "b2 * v, jnp.abs(g)", "b2 * v, g", "test_glow_golden test_train_step"),
    (
        "train/schedules.py",
        "(n >= m).astype",
        "(n > m).astype",
        "test_train_step test_train_config",
    ),
    ("train/schedules.py", "jnp.cos(angle) ** 2", "jnp.cos(angle)", "test_train_step"),
    # Numbers of tables.
    ("metrics/basic.py", "/ 255**2 + eps", "/ 255**2", "test_metrics"),
    ("metrics/basic.py", "sigma=1.5, use", "sigma=1.2, use", "test_metrics"),
    ("metrics/basic.py", "/ 255 + OFFSET[0]", "/ 255", "test_metrics"),
    # Requests, exits and files.
    ("memory.py", "if size > free", "if size > 1000 * free", "test_requests"),
    ("memory.py", "free * count // size", "free // size", "test_requests"),
    ("exits.py", '"status", 2)', '"status", 0)', "test_exits"),
    ("exits.py", "text[:LONGEST]", "text", "test_exits"),
    ("files/atomic.py", "and not _lives(", "and _lives(", "test_leftovers test_png_stream"),
    ("files/atomic.py", "    if path.exists():\n", "    if False:\n", "test_export -k older"),
    ("export.py", "config.update(name, 0)", "config.update(name, 10)", "test_export -k another"),
    ("export.py", "    _refuse_others(folder)\n", "", "test_export -k older"),
    ("models/inputs.py", "isinstance(number, bool) or ", "", "test_fuzz_calls"),
    ("models/inputs.py", "not limit > 0", "limit == 0", "test_fuzz_calls"),
    ("upscaling/files.py", "if page < 1", "if page < -1", "test_fuzz_commands -k sample"),
)


def plant(tree: Path, file: str, old: str, new: str) -> bool:
    """Put a fault into a tree, unless its text is not there exactly once."""
    path = tree / "flowsr_jax" / file
    text = path.read_text()
    if text.count(old) != 1:
        return False
    path.write_text(text.replace(old, new))
    return True


def passes(tree: Path, tests: str) -> bool:
    """Return whether tests (module names, and `-k NAME`) pass in a tree."""
    words = [f"tests/{w}.py" if w.startswith("test_") else w for w in tests.split()]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *words]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    return not subprocess.run(command, cwd=tree, env=environment, capture_output=True).returncode


def main() -> int:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--list", action="store_true", help="show the faults only")
    flags.add_argument("--only", default="", metavar="PART", help="those whose file holds PART")
    flags.add_argument("--first", type=int, metavar="N", help="the first N of them")
    args = flags.parse_args()
    faults = [fault for fault in FAULTS if args.only in fault[0]][: args.first]
    counts = {"seen": 0, "NOT SEEN": 0, "NO TEXT": 0}
    healthy: dict[str, bool] = {}
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        ignored = shutil.ignore_patterns(".git", "__pycache__", "runs")
        shutil.copytree(ROOT, tree, ignore=ignored, symlinks=True)
        # Tests look for reference data beside their repository (tests/conftest.py).
        if (data := ROOT.parent / "shared").is_dir():
            (tree.parent / "shared").symlink_to(data)
        for file, old, new, tests in faults:
            line = f"{file}: {old.strip()!r} -> {new.strip()!r}"
            if not args.list and tests not in healthy:
                healthy[tests] = passes(tree, tests)
                if not healthy[tests]:
                    print(f"{tests}: fails without a fault", flush=True)
                    return 2
            kept = (tree / "flowsr_jax" / file).read_text()
            outcome = "NO TEXT"
            if plant(tree, file, old, new):
                outcome = "NOT SEEN" if not args.list and passes(tree, tests) else "seen"
            (tree / "flowsr_jax" / file).write_text(kept)
            counts[outcome] += 1
            print(line if args.list and outcome == "seen" else f"{outcome}: {line}", flush=True)
    print(", ".join(f"{n} {outcome}" for outcome, n in counts.items()) + f" of {len(faults)}")
    return 0 if counts["seen"] == len(faults) else 1


if __name__ == "__main__":
    sys.exit(main())
