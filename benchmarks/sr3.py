"""SR3: one call of the network, a training step, a chain per image.

    python benchmarks/sr3.py                     # configs/sr3_quickstart.py
    python benchmarks/sr3.py --full              # the public 16 -> 128 network
    python benchmarks/sr3.py --full --dtype bfloat16 --batch 32 --steps 2000

Aims for --full on two cores, in u (float32, batch 1): one call 55, a training step 170; the
public PyTorch code needs 63.5 and 184.  A training step here is the loss, its gradient and Adam.
temp_MB is what a program needs beside its arguments and results: that of a chain, of any length,
is that of one call and a few images.  Both forms of the convolutions are timed where
--conv is not given.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from common import add_output, measure, report

import flowsr_jax
from flowsr_jax.models import get_family
from flowsr_jax.models.sr3.condition import condition
from flowsr_jax.models.sr3.config import SR3Config
from flowsr_jax.models.sr3.losses import eps_loss
from flowsr_jax.models.sr3.network import predict_noise
from flowsr_jax.nets.conv import Compute

ADAM = optax.adam(1e-4)


@jax.jit
def train_step(params, state, batch, key):
    """Loss, gradient and Adam: (loss, new parameters, new state)."""
    loss, grads = jax.value_and_grad(lambda p: eps_loss(p, {}, batch, key)[0])(params)
    updates, state = ADAM.update(grads, state)
    return loss, optax.apply_updates(params, updates), state


def temporary(function, *args) -> float:
    """Megabytes of the function's program beside its arguments and results."""
    memory = jax.jit(function).lower(*args).compile().memory_analysis()
    return memory.temp_size_in_bytes / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--full", action="store_true", help="the public 16 -> 128 network")
    parser.add_argument("--model", help="a model folder instead")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--size", type=int, help="side of the images; default: the network's")
    parser.add_argument("--dtype", default="float32", help="float32 or bfloat16")
    parser.add_argument("--conv", nargs="+", default=["xla", "gemm"], help="xla, gemm, auto")
    parser.add_argument("--steps", type=int, nargs="*", default=[20], help="lengths of chains")
    parser.add_argument("--repeats", type=int, default=5)
    add_output(parser)
    args = parser.parse_args()
    if args.model:
        base, name = flowsr_jax.load(args.model), args.model
    elif args.full:
        base, name = get_family("sr3").init(SR3Config(), jax.random.key(0)), "SR3 16 -> 128"
    else:
        sys.path.append(str(Path(__file__).resolve().parents[1]))
        from configs.sr3_quickstart import get_config
        from flowsr_jax.train.config import resolve

        model = resolve(get_config()).model
        base, name = get_family("sr3").init(model, jax.random.key(0)), "sr3_quickstart"
    scale, size = base.config.scale, args.size or base.config.unet.image_size
    lr = jax.random.uniform(jax.random.key(1), (args.batch, size // scale, size // scale, 3))
    hr = jax.random.uniform(jax.random.key(2), (args.batch, size, size, 3))
    level, key = jnp.full((args.batch,), 0.5), jax.random.key(3)
    batch = {"hr": hr, "lr": lr}
    timed = functools.partial(measure, repeats=args.repeats)
    rows = {}
    for conv in args.conv:
        compute = dataclasses.replace(Compute(), conv=conv, dtype=args.dtype)
        unet = dataclasses.replace(base.config.unet, compute=compute)
        params = type(base)(base.tree, dataclasses.replace(base.config, unet=unet))
        cond = condition(params.config, lr)
        rows[f"{conv}: one call"] = timed(predict_noise, params, hr, level, cond)
        state = ADAM.init(params)
        rows[f"{conv}: training step"] = timed(train_step, params, state, batch, key)
        del state
        for steps in args.steps:
            draw = functools.partial(flowsr_jax.sample, sampler="dpmpp2m", steps=steps)
            rows[f"{conv}: {steps} steps of 2M"] = timed(draw, params, lr, key)
            rows[f"{conv}: {steps} steps of 2M"]["temp_MB"] = temporary(draw, params, lr, key)
        rows[f"{conv}: one call"]["temp_MB"] = temporary(predict_noise, params, hr, level, cond)
    report(f"{name}, {args.batch} x {size}x{size}, {args.dtype}", rows, args.output)
    print(
        f"per image: divide by {args.batch}.  A longer chain costs its number of calls; it is the "
        "same compiled program."
    )


if __name__ == "__main__":
    main()
