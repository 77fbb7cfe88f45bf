"""Memory and time of SRFlow's training step against K, for each `compute.memory`.

    python benchmarks/memory.py [--steps 4,8,16,32] [--size 48] [--hidden 32] [--blocks 2]
    python benchmarks/memory.py --size 160 --hidden 64 --blocks 23     # the published network
    python benchmarks/memory.py --topology v5e:1x1    # as compiled for a TPU (needs libtpu)

Temporaries (`memory_analysis`) of loss and gradients of one HR patch, everything trained,
three levels of K steps; the encoder is rematerialised where the flow does not store.
Seconds are ratios to "store" at the smallest K of the same run; the error is the largest
relative one of a leaf's gradient, by norms, against "store" at the same K.  `--blocks 0`
leaves the encoder out: random features of its width are the conditioning, and get gradients.
"""

from __future__ import annotations

import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np
from common import add_output, measure, report
from jax.experimental import topologies

from flowsr_jax.math.gaussian import standard_normal_log_prob
from flowsr_jax.models.rrdb.config import RRDBConfig
from flowsr_jax.models.srflow.config import SRFlowConfig
from flowsr_jax.models.srflow.losses import init_from_data, nll_loss
from flowsr_jax.models.srflow.network import build_flow, init
from flowsr_jax.nets.conv import MEMORY, Compute


def model(k: int, memory: str, args) -> SRFlowConfig:
    """SRFlow 4x with K steps at each of the three levels."""
    blocks = max(args.blocks, 1)
    stacked = tuple(sorted({round(i * (blocks - 1) / 3) for i in range(4)}))
    of_encoder = Compute(memory="store" if memory == "store" else "remat")
    width = {} if args.blocks in (0, 23) else {"nf": 16, "gc": 8}
    encoder = RRDBConfig(nb=23 if args.blocks == 0 else blocks, compute=of_encoder, **width)
    return SRFlowConfig(
        encoder,
        steps=(k,) * 3,
        hidden=args.hidden,
        stacked_blocks=(1, 8, 15, 22) if args.blocks in (0, 23) else stacked,
        compute=Compute(memory=memory),
    )


def arguments(config: SRFlowConfig, args):
    """(parameters, conditioning or LR, HR) of one patch."""
    rng = np.random.default_rng(0)
    hr = jax.image.resize(rng.random((1, 12, 12, 3), np.float32), (1, *[args.size] * 2, 3), "cubic")
    # Networks of zeros would have no gradients.
    moved = lambda x: x + 0.02 * jax.random.normal(jax.random.key(x.size), x.shape)  # noqa: E731
    if args.blocks:
        params, lr = jax.tree.map(moved, init(config, jax.random.key(0))), hr[:, ::4, ::4]
        batch = {"hr": hr, "lr": lr}
        return init_from_data(params, batch, jax.random.key(1)), lr, hr
    flow = build_flow(config)
    params = jax.tree.map(moved, flow.init(jax.random.key(0), (8, 8, 3)))
    sides = [args.size // 2**level for level in (1, 2, 3)]
    levels = [rng.standard_normal((1, n, n, config.cond_channels(1)), np.float32) for n in sides]
    cond = {"levels": [jnp.asarray(level) for level in levels], "estimate": None}
    return flow.init_from_data(params, hr, cond)[0], cond, hr


def step(config: SRFlowConfig, args, timed: bool):
    """(compiled loss and gradients, its arguments: shapes alone unless it is timed)."""
    make = functools.partial(arguments, config, args)
    given = make() if timed else jax.eval_shape(make)
    if args.topology:
        device = topologies.get_topology_desc(args.topology, platform="tpu").devices[0]
        place = jax.sharding.SingleDeviceSharding(device)
        given = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), given
        )

    def whole(params, lr, hr):
        return nll_loss(params, {}, {"hr": hr, "lr": lr}, jax.random.key(1))[0]

    def flow(params, cond, hr):
        latents, logdet = build_flow(config).forward(params, hr, cond)
        return -jnp.sum(logdet + sum(standard_normal_log_prob(z) for z in latents)) / hr.size

    gradients = jax.value_and_grad(whole if args.blocks else flow, 0 if args.blocks else (0, 1))
    return jax.jit(gradients).lower(*given).compile(), given


def error(found, expected) -> float:
    """Largest relative error of a leaf, by norms."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    norm = lambda x: float(jnp.linalg.norm(jnp.ravel(x)))  # noqa: E731
    return max(norm(a - b) / max(norm(b), 1e-20) for a, b in pairs)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", default="4,8,16,32")
    parser.add_argument("--modes", default=",".join(MEMORY))
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5, help="0: memory alone")
    parser.add_argument("--topology", help="compile for it (memory alone), e.g. v5e:1x1")
    add_output(parser)
    args = parser.parse_args()
    timed = args.repeats > 0 and not args.topology
    rows, stored, base = {}, {}, None
    for memory in args.modes.split(","):
        for k in map(int, args.steps.split(",")):
            compiled, given = step(model(k, memory, args), args, timed)
            row = {"temp_MB": compiled.memory_analysis().temp_size_in_bytes / 1e6}
            if timed:
                gradients = compiled(*given)[1]
                if memory == "store":
                    stored[k] = gradients
                elif k in stored:
                    row["error"] = error(gradients, stored[k])
                row["median_u"] = measure(compiled, *given, repeats=args.repeats)["median_u"]
                base = base or row["median_u"]
                row["ratio"] = row["median_u"] / base
            rows[f"{memory}, K={k}"] = row
            print(f"{memory}, K={k}: {row}", flush=True)
    report(f"SRFlow's step, {args.size}x{args.size} HR, hidden {args.hidden}", rows, args.output)


if __name__ == "__main__":
    main()
