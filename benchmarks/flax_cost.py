"""What networks as Flax modules cost: trace, compile, step and init time against another checkout.

    git worktree add /tmp/before fb3cc56
    python benchmarks/flax_cost.py --before /tmp/before

Each checkout runs in processes of its own, in turn; the numbers are the smallest CPU seconds
of all rounds (other work on the machine lengthens them, and never shortens them), and ratios
after / before.  `same` says whether both lower to the same StableHLO text.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ENCODER = {"scale": 4, "nf": 32, "gc": 16, "nb": 8}
FLOW = {"steps": (4, 4, 4), "hidden": 32, "stacked_blocks": (0, 2, 4, 6)}
UNET = {"channels": 32, "multipliers": (1, 2, 2), "attn_res": (8,), "image_size": 32}
UNET |= {"norm_groups": 8, "dropout": 0.0}
# {name: (family, config, loss)}, at 4 x 4 (LR 8x8, HR 32x32), batch 2
CASES = {
    "RRDB": ("rrdb", ENCODER, "l1"),
    "SRFlow": ("srflow", {"encoder": ENCODER, **FLOW}, "nll"),
    "SR3": ("sr3", {"scale": 4, "unet": UNET}, "eps"),
    "IRN": ("irn", {"scale": 4, "blocks": (4, 4)}, "rescale"),
    "Glow": ("glow", {"levels": 3, "steps": 4, "hidden": 32, "size": 32}, "nll"),
}
COLUMNS = ("trace", "compile", "step", "init")
REPEATS = {"trace": 5, "step": 20, "init": 3}


def one(name: str) -> dict[str, float | str]:
    """Return CPU seconds of a case's loss gradient, in the checkout that is imported."""
    import jax
    import jax.numpy as jnp

    from flowsr_jax.config import from_dict
    from flowsr_jax.models import get_family

    family_name, values, loss = CASES[name]
    family = get_family(family_name)
    config = from_dict(family.config_class, values)

    def seconds(what, function):
        times = []
        for _ in range(REPEATS[what]):
            start = time.process_time()
            result = jax.block_until_ready(function())
            times.append(time.process_time() - start)
        return min(times), result

    init = lambda: family.init(config, jax.random.key(0)).tree  # noqa: E731
    init()
    found = dict(zip(("init", "tree"), seconds("init", init), strict=True))
    params = family.init(config, jax.random.key(0))
    state, key = family.init_state(config), jax.random.key(1)
    batch = {"hr": jnp.ones((2, 32, 32, 3)) / 2, "lr": jnp.ones((2, 8, 8, 3)) / 2}

    def gradient(params, batch):
        total = lambda p: family.losses[loss](p, state, batch, key)[0]  # noqa: E731
        return jax.grad(total)(params)

    def lower():
        jax.clear_caches()
        return jax.jit(gradient).lower(params, batch)

    lower()
    found["trace"], lowered = seconds("trace", lower)
    start = time.process_time()
    compiled = lowered.compile()
    found["compile"] = time.process_time() - start
    compiled(params, batch)
    found["step"], _ = seconds("step", lambda: compiled(params, batch))
    text = re.sub(r"@\w+", "@", lowered.as_text())
    del found["tree"]
    return found | {"text": hashlib.sha256(text.encode()).hexdigest()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--before", help="folder of the other checkout")
    parser.add_argument("--rounds", type=int, default=3, help="of both checkouts (default 3)")
    parser.add_argument("--cases", default=",".join(CASES), help="names, separated by commas")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(one(args.child)))
        return
    if not args.before:
        parser.error("--before is missing: the folder of the checkout to compare with")
    here = Path(__file__).resolve().parents[1]
    print("| gradient of | " + " | ".join(COLUMNS) + " | same |\n" + "|---" * 6 + "|", flush=True)
    for name in args.cases.split(","):
        best: dict[str, dict] = {}
        for _ in range(args.rounds):
            for tree in (Path(args.before).resolve(), here):
                command = [sys.executable, __file__, "--child", name]
                env = {**os.environ, "PYTHONPATH": str(tree), "JAX_PLATFORMS": "cpu"}
                text = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
                row = json.loads(text.stdout.splitlines()[-1])
                known = best.setdefault(str(tree), row)
                known.update({c: min(known[c], row[c]) for c in COLUMNS})
        before, after = best.values()
        same = "yes" if before["text"] == after["text"] else "no"
        cells = [f"{after[c] / before[c]:.2f} ({after[c]:.3f} s)" for c in COLUMNS]
        print(f"| {name} | " + " | ".join(cells) + f" | {same} |", flush=True)


if __name__ == "__main__":
    main()
