"""IRN in units u of the machine: forward, inverse and training step, and the step's memory.

    python benchmarks/irn.py [--scales 2,4] [--size 144] [--repeats 5] [--forms xla,gemm]

Official network, batch 1, 144x144 HR, as the table of the released code was measured:
x2 forward 20 u, inverse 22 u, training step (both directions) 99 u; x4 26, 29, 153 u
(two CPU cores).  The forms of a row are how the convolutions are computed, and whether the
blocks run unrolled or scanned, and what the backward pass keeps (`Compute.memory`).
"""

from __future__ import annotations

import argparse

import jax
from common import add_output, measure, report

from flowsr_jax.models.irn.config import IRNConfig
from flowsr_jax.models.irn.losses import rescale_loss
from flowsr_jax.models.irn.network import forward, init, inverse, z_shape
from flowsr_jax.nets.conv import Compute

OFFICIAL = {2: (20, 22, 99), 4: (26, 29, 153)}
KINDS = {
    "unrolled": {"unroll": True},
    "scan": {},
    "scan, remat": {"memory": "remat"},
    "scan, reversible": {"memory": "reversible"},
}


def inputs(params, size: int):
    """(HR, LR, z) of one image, in the network's range."""
    config = params.config
    keys = jax.random.split(jax.random.key(1), 2)
    hr = jax.random.uniform(keys[0], (1, size, size, 3))
    lr, _ = forward(params, hr)
    return hr, lr, jax.random.normal(keys[1], z_shape(config, lr.shape))


def train_step(params, hr, lr, key):
    """Loss gradients and a plain gradient step."""
    batch = {"hr": hr, "lr": lr}
    grads = jax.grad(lambda p: rescale_loss(p, {}, batch, key)[0])(params)
    return jax.tree.map(lambda w, g: w - 1e-9 * g, params, grads)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scales", default="2,4")
    parser.add_argument("--forms", default="xla,gemm")
    parser.add_argument("--size", type=int, default=144)
    parser.add_argument("--repeats", type=int, default=5)
    add_output(parser)
    args = parser.parse_args()
    for scale in map(int, args.scales.split(",")):
        if scale in OFFICIAL:
            print(f"x{scale} official: forward, inverse, step {OFFICIAL[scale]} u")
        rows = {}
        for form in args.forms.split(","):
            for kind, options in KINDS.items():
                if form == "xla" and kind != "unrolled" and jax.default_backend() == "cpu":
                    continue  # the compiler's gradient in a scan is a naive loop there
                config = IRNConfig(scale=scale, compute=Compute(conv=form, **options))
                params = init(config, jax.random.key(0))
                hr, lr, z = inputs(params, args.size)
                step = jax.jit(train_step).lower(params, hr, lr, jax.random.key(2)).compile()
                memory = step.memory_analysis().temp_size_in_bytes / 1e6
                name = f"x{scale} {form} {kind}"
                if "memory" not in options:  # which is of the step alone
                    rows[f"{name}: forward"] = measure(
                        jax.jit(forward), params, hr, repeats=args.repeats
                    )
                    rows[f"{name}: inverse"] = measure(
                        jax.jit(inverse), params, lr, z, repeats=args.repeats
                    )
                timed = measure(step, params, hr, lr, jax.random.key(2), repeats=args.repeats)
                rows[f"{name}: step"] = {**timed, "temp_MB": memory}
                del step
        report(f"IRN x{scale}, {args.size}x{args.size}, batch 1", rows, args.output)


if __name__ == "__main__":
    main()
