"""Ten samples of one LR image against one: what sharing the LR-only work saves.

    python benchmarks/sampling.py                 # a small SRFlow 4x, LR 40x40
    python benchmarks/sampling.py --full          # SRFlow DF2K 4x at full size
    python benchmarks/sampling.py --model runs/quickstart

"not shared" draws the ten samples as ten copies of the LR in one batch, so that encoder
and conditioning are computed ten times.
"""

from __future__ import annotations

import argparse
import dataclasses

import jax
import jax.numpy as jnp
from common import measure, report

import flowsr_jax
from flowsr_jax.models import get_family
from flowsr_jax.models.rrdb_config import RRDBConfig
from flowsr_jax.models.srflow import SRFlowConfig
from flowsr_jax.nets.conv import Compute


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--full", action="store_true", help="full-size SRFlow DF2K 4x")
    parser.add_argument("--model", help="a model folder instead of random weights")
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    if args.model:
        params, name = flowsr_jax.load(args.model), args.model
    else:
        config, name = SRFlowConfig(), "SRFlow DF2K 4x, full size"
        if not args.full:
            encoder = RRDBConfig(nf=32, gc=16, nb=4)
            config = SRFlowConfig(encoder, steps=(4, 4, 4), hidden=32, stacked_blocks=(1, 3))
            name = "small SRFlow 4x"
        params = get_family("srflow").init(config, jax.random.key(0))
    plain = Compute(conv="xla")
    config = dataclasses.replace(
        params.config,
        compute=plain,
        encoder=dataclasses.replace(params.config.encoder, compute=plain),
    )
    params = type(params)(params.tree, config)
    lr = jax.random.uniform(jax.random.key(1), (1, 40, 40, 3))
    copies = jnp.repeat(lr, args.samples, axis=0)
    key, n = jax.random.key(2), args.samples
    sample = get_family("srflow").sample
    rows = {
        "one sample": measure(lambda: sample(params, lr, key), repeats=args.repeats),
        f"{n} samples, shared": measure(
            lambda: sample(params, lr, key, num_samples=n), repeats=args.repeats
        ),
        f"{n} samples, not shared": measure(
            lambda: sample(params, copies, key), repeats=args.repeats
        ),
    }
    report(f"{name}, LR 40x40", rows)
    one, shared, apart = (row["median_u"] for row in rows.values())
    print(f"{n} samples cost {shared / one:.2f} times one; not shared, {apart / one:.2f} times")


if __name__ == "__main__":
    main()
