"""Quality per step of a trained diffusion model: samplers of few steps against the long chain.

    python benchmarks/sr3_curve.py --model runs/sr3_quickstart -o OUT

For every sampler and number of steps: PSNR and SSIM to HR, LR-PSNR, and distances to the long
ancestral chain from the same start: PSNR, a structural distance (1 - MS-SSIM), and where the
LPIPS backbone is installed LPIPS.  The row "long, another seed" is the noise: what two long chains
differ by.  Seconds include compilation where a program is new.  Writes OUT/curve.csv as it goes
(a stopped run goes on from there) and OUT/curve.md.
"""

from __future__ import annotations

import argparse
import csv
import functools
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import flowsr_jax
from flowsr_jax.data import DataConfig, make_source, valid_pairs
from flowsr_jax.metrics import load_lpips_weights, lpips, lr_psnr, ms_ssim, psnr, ssim, to_uint8

SNR = {"spacing": "log_snr"}
CHAINS = (
    ("ancestral", {}, (20, 50, 100, 250)),
    ("ddim", {}, (5, 10, 20, 50, 100)),
    ("dpmpp2m", {}, (10, 20, 50)),
    ("dpmpp2m", SNR, (5, 10, 15, 20, 50, 100)),
    ("dpmpp2m", {"eta": 1.0, **SNR}, (5, 10, 15, 20, 50)),
    ("pc", {}, (50,)),
)
COLUMNS = ("psnr", "ssim", "lr_psnr", "to_long_psnr", "to_long_1-ms_ssim", "to_long_lpips", "s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", required=True, help="model folder or run")
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("-i", "--input", help="HR folder; default: the embedded photographs")
    parser.add_argument("--crop", type=int, default=192, help="HR pixels, at least 176")
    parser.add_argument("--limit", type=int, default=3, help="number of images")
    parser.add_argument("--long", type=int, help="steps of the long chain; default: all")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    params = flowsr_jax.load(args.model)
    scale, total = params.config.scale, params.config.schedule.steps
    data = DataConfig(scale=scale, patch_size=scale, valid_dir=args.input)
    pairs = valid_pairs(make_source(data, "valid"), data, count=args.limit, crop=args.crop)
    try:
        weights = load_lpips_weights()
    except (ValueError, OSError) as error:
        print(f"no LPIPS: {error}")
        weights = None
    lr = jnp.asarray(np.stack([p["lr"] for p in pairs]), jnp.float32) / 255
    side = (scale * lr.shape[1], scale * lr.shape[2])
    long = args.long or total

    def draw(seed, **options):
        """8-bit images; chains of one seed share their start."""
        start, rest = jax.random.split(jax.random.key(seed))
        x_T = jax.random.normal(start, (len(pairs), *side, 3))
        began = time.perf_counter()
        out = np.asarray(flowsr_jax.sample(params, lr, rest, x_T=x_T, **options))
        return [to_uint8(x) for x in out], time.perf_counter() - began

    def measure(images, reference, seconds):
        def mean(metric, others):
            return float(np.mean([metric(a, b) for a, b in zip(images, others, strict=True)]))

        hr, small = [p["hr"] for p in pairs], [p["lr"] for p in pairs]
        near = (None, None, None)
        if reference is not None:
            near = (mean(psnr, reference), mean(lambda a, b: 1 - ms_ssim(a, b), reference), None)
            if weights is not None:
                stacks = (np.stack(x).astype(np.float32) / 255 for x in (images, reference))
                near = (*near[:2], float(np.mean(lpips(weights, *stacks))))
        fit = None if scale == 1 else mean(lambda a, b: lr_psnr(a, b, scale), small)
        return dict(
            zip(COLUMNS, (mean(psnr, hr), mean(ssim, hr), fit, *near, seconds), strict=True)
        )

    out = Path(args.output)
    out.mkdir(parents=True, exist_ok=True)
    rows, done = [], {}
    if (out / "curve.csv").exists():
        with open(out / "curve.csv", newline="") as table:
            done = {tuple(cells[:2]): cells for cells in csv.reader(table)}
    with open(out / "curve.csv", "w", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(["sampler", "steps", *COLUMNS])

        def row(name, steps, make, reference):
            """Draw and measure, unless an earlier run did; returns the images if drawn."""
            images, cells = None, done.get((name, str(steps)))
            if cells is None:
                images, seconds = make()
                values = measure(images, reference, seconds)
                cells = [name, str(steps)]
                cells += ["" if values[c] is None else f"{values[c]:.4f}" for c in COLUMNS]
            rows.append(cells)
            writer.writerow(cells)
            table.flush()
            print("  ".join(f"{c:>12s}" for c in cells), flush=True)
            return images

        ancestral = {"sampler": "ancestral", "spacing": "trailing", "steps": long}
        if not (out / "long.npz").exists():
            done = {}
        reference = row("long", long, lambda: draw(args.seed, **ancestral), None)
        if reference is not None:
            np.savez(out / "long.npz", images=np.stack(reference))
        with np.load(out / "long.npz") as file:
            reference = list(file["images"])
        other = functools.partial(draw, args.seed + 1, **ancestral)
        row("long, another seed", long, other, reference)
        for sampler, options, lengths in CHAINS:
            title = ", ".join([sampler, *(f"{k} {v}" for k, v in options.items())])
            options = {"sampler": sampler, "spacing": "trailing", "eta": 0.0, **options}
            for steps in (n for n in lengths if n <= total):
                row(
                    title,
                    steps,
                    functools.partial(draw, args.seed, steps=steps, **options),
                    reference,
                )
    head = ["sampler", "steps", *COLUMNS]
    lines = ["| " + " | ".join(r) + " |" for r in (head, ["---"] * len(head), *rows)]
    (out / "curve.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
