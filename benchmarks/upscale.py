"""A whole photograph upscaled: megapixels per second, in one piece and in tiles.

    python benchmarks/upscale.py                         # the package's demonstration model
    python benchmarks/upscale.py --model runs/quickstart --crop 128 --tile 64

Through `upscaling.upscale_image`, as launch/sample.py works, with the `compute` that the model
was saved with ("own").  The baseline is the same model without hoisting and sub-pixel
evaluation ("plain"); ratio is to its one piece.
"""

from __future__ import annotations

import argparse
import functools

import jax
import numpy as np
from common import add_output, measure, report
from srflow import FORMS, with_form

import flowsr_jax
from flowsr_jax.data import EmbeddedSource
from flowsr_jax.upscaling import upscale_image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="demo", help="an SRFlow model")
    parser.add_argument("--crop", type=int, default=96, help="LR pixels of the photograph's side")
    parser.add_argument("--tile", type=int, default=48)
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    add_output(parser)
    args = parser.parse_args()
    model = flowsr_jax.load(args.model)
    photo = EmbeddedSource("valid")[0]["hr"]
    lr = np.ascontiguousarray(photo[: args.crop, : args.crop])
    key, rows, base = jax.random.key(0), {}, None
    pixels = args.samples * lr.shape[0] * lr.shape[1] * model.config.scale**2
    for form, params in (("plain", with_form(model, FORMS["plain"])), ("own", model)):
        for name, tile in (("one piece", 0), (f"tiles of {args.tile}", args.tile)):
            run = functools.partial(
                upscale_image, params, lr, key, num_samples=args.samples, tile=tile
            )
            row = measure(run, repeats=args.repeats)
            base = base or row["median_u"]
            row |= {"ratio": row["median_u"] / base, "MP_s": pixels / row["median_s"] / 1e6}
            rows[f"{form}, {name}"] = row
    size = f"{lr.shape[1]}x{lr.shape[0]}"
    report(f"{args.model}, {size} LR, {args.samples} sample(s)", rows, args.output)


if __name__ == "__main__":
    main()
