"""SRFlow 4x with and without what makes it cheaper: training step, passes, samples, compiling.

    python benchmarks/srflow.py                   # a small network, LR 40x40
    python benchmarks/srflow.py --full            # SRFlow DF2K 4x, published size
    python benchmarks/srflow.py --full --forms "all,all reversible" --work "step,frozen step"
    python benchmarks/srflow.py --model runs/quickstart --work "one sample,ten samples"

Forms (`Compute`):
  "plain" transcribes the network: it convolves [latent, conditioning] in every step, unrolled,
    and draws ten samples as ten images;
  "hoist" computes the conditioning's share once, as one wide convolution, for all samples;
  "hoist, gemm" adds the CPU's kernel gradients and the scan;
  "all" also evaluates enlarged features at their small size; it is the library's default.
Batch 1, float32.  ratio is to "plain" (or the first form).  aim and official are those of
docs/performance.md, in its unit u.  A training step is loss, gradients and a plain gradient
step; "frozen" trains the flow alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools

import jax
import jax.numpy as jnp
from common import add_output, measure, report

import flowsr_jax
from flowsr_jax.models import get_family
from flowsr_jax.models.base import Params
from flowsr_jax.models.rrdb.config import RRDBConfig
from flowsr_jax.models.srflow.config import SRFlowConfig
from flowsr_jax.models.srflow.losses import nll_loss
from flowsr_jax.models.srflow.network import condition
from flowsr_jax.models.srflow.sample import encode
from flowsr_jax.nets.conv import Compute

FORMS = {
    "plain": Compute(conv="xla", unroll=True, hoist=False, subpixel=False),
    "hoist": Compute(conv="xla", unroll=True, subpixel=False),
    "hoist, gemm": Compute(subpixel=False),
    "all": Compute(),
    "all, remat": Compute(memory="remat"),
    "all, reversible": Compute(memory="reversible"),
    "all, bfloat16": Compute(dtype="bfloat16"),
}
# (official, aim) in u, LR 40x40, two cores.
PUBLISHED = {
    "encoder": (45, 35),
    "forward": (107, 90),
    "one sample": (110, 90),
    "ten samples": (996, 180),
    "step": (338, 285),
    "frozen step": (225, 190),
}


def model(args) -> Params:
    """Parameters of the network to time."""
    if args.model:
        return flowsr_jax.load(args.model)
    config = SRFlowConfig()
    if not args.full:
        encoder = RRDBConfig(nf=32, gc=16, nb=4)
        config = SRFlowConfig(encoder, steps=(4, 4, 4), hidden=32, stacked_blocks=(1, 3))
    return get_family("srflow").init(config, jax.random.key(0))


def with_form(params: Params, compute: Compute) -> Params:
    """The same weights, evaluated in another form."""
    memory = "store" if compute.memory == "store" else "remat"
    of_encoder = dataclasses.replace(compute, memory=memory)
    encoder = dataclasses.replace(params.config.encoder, compute=of_encoder)
    return Params(params.tree, dataclasses.replace(params.config, encoder=encoder, compute=compute))


def train_step(groups, params, hr, lr):
    """Loss, gradients and a plain gradient step of some groups."""

    def loss(trained):
        batch = {"hr": hr, "lr": lr}
        return nll_loss(params.replace(**trained), {}, batch, jax.random.key(0), noise="none")[0]

    trained = {k: params[k] for k in groups}
    return jax.tree.map(lambda w, g: w - 1e-9 * g, trained, jax.grad(loss)(trained))


def programs(params, hr, lr, samples: int):
    """{what: (function, arguments)}."""
    key, config = jax.random.key(2), params.config
    sample = functools.partial(get_family("srflow").sample, temperature=0.5)
    if config.compute.hoist:
        many = lambda p, lr, key: sample(p, lr, key, num_samples=samples)  # noqa: E731
    else:
        many = lambda p, lr, key: sample(p, jnp.repeat(lr, samples, 0), key)  # noqa: E731
    return {
        "encoder": (condition, (params, lr)),
        "forward": (encode, (params, hr, lr)),
        "one sample": (sample, (params, lr, key)),
        "ten samples": (many, (params, lr, key)),
        "step": (functools.partial(train_step, ("encoder", "flow")), (params, hr, lr)),
        "frozen step": (functools.partial(train_step, ("flow",)), (params, hr, lr)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--full", action="store_true", help="the published size")
    parser.add_argument("--model", help="a model folder instead of random weights")
    parser.add_argument("--forms", default="plain,hoist,hoist gemm,all", help="commas between")
    parser.add_argument("--work", default=",".join(PUBLISHED), help=f"of {', '.join(PUBLISHED)}")
    parser.add_argument("--size", type=int, default=40, help="side of the LR image")
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    add_output(parser)
    args = parser.parse_args()
    known = {name.replace(",", ""): name for name in FORMS}
    params = model(args)
    lr = jax.random.uniform(jax.random.key(1), (1, args.size, args.size, 3))
    side = args.size * params.config.scale
    hr = jax.image.resize(lr, (1, side, side, 3), "cubic")
    rows, base = {}, {}
    for form in args.forms.split(","):
        name = known[form.strip()]
        made = programs(with_form(params, FORMS[name]), hr, lr, args.samples)
        for what in args.work.split(","):
            function, given = made[what]
            row = measure(jax.jit(function), *given, repeats=args.repeats)
            base.setdefault(what, row["median_u"])
            row["ratio"] = row["median_u"] / base[what]
            if args.full and args.size == 40 and what in PUBLISHED:
                row["official_u"], row["aim_u"] = PUBLISHED[what]
            rows[f"{what}: {name}"] = row
            print(f"{what}: {name}: {row}", flush=True)
    size = args.model or ("published size" if args.full else "a small network")
    report(f"SRFlow 4x, {size}, LR {args.size}x{args.size}", rows, args.output)


if __name__ == "__main__":
    main()
