"""A config's training step against what the chip can do: its own matrix and copy rates.

    python benchmarks/accelerator.py --config=configs/srflow_div2k.py --batch_size 16
    python benchmarks/accelerator.py --config=configs/irn_div2k.py:smoke   # small, for a CPU
    ... --forms "plain, bfloat16;bfloat16" --profile runs/profile

The last phase's step with all its groups, as the trainer compiles it, on one device, fed
with random images.  Forms: "plain" transcribes the network (no conditioning hoisted, no
sub-pixel evaluation, steps and blocks unrolled); the others have all levers.  ratio is images
per second over the first form's.  GFLOP_s counts the convolutions and products of the form's
own program; of_peak is their share of the rate of one large matrix product in the same
precision, measured in the same run; GB_s is what the compiler counts as read and written, to
hold against the copy.  --profile keeps a trace (jax.profiler) of each form.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import add_output, report
from data import begin_step, read_config

from flowsr_jax.aot.flops import count_flops
from flowsr_jax.models import get_family
from flowsr_jax.nets.conv import Compute, matmul
from flowsr_jax.train.config import Config
from flowsr_jax.train.mesh import global_batch, make_mesh

PLAIN = {"conv": "xla", "unroll": True, "hoist": False, "subpixel": False}
FORMS = {
    "plain, float32": Compute(**PLAIN),
    "plain, bfloat16": Compute("bfloat16", **PLAIN),
    "float32": Compute(),
    "tensorfloat32": Compute("tensorfloat32"),
    "bfloat16": Compute("bfloat16"),
    "bfloat16, remat": Compute("bfloat16", memory="remat"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", required=True, help="FILE[:variant]")
    parser.add_argument("--batch_size", type=int, help="default: the config's")
    parser.add_argument("--forms", default=";".join(FORMS), help="semicolons between")
    parser.add_argument("--side", type=int, default=8192, help="of the matrices of the peak")
    parser.add_argument("--seconds", type=float, default=5.0, help="time for each measurement")
    parser.add_argument("--profile", help="folder for traces of a few steps of each form")
    add_output(parser)
    args = parser.parse_args()
    names = [name.strip() for name in args.forms.split(";")]
    if unknown := [name for name in names if name not in FORMS]:
        parser.error(f"--forms: {unknown[0]!r} is not one of {'; '.join(FORMS)}")
    config = read_config(args.config)
    batch = args.batch_size or config.train.batch_size
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, batch_size=batch))
    dtypes = dict.fromkeys(FORMS[name].dtype for name in names)
    peaks = {dtype: product_rate(dtype, args.side, args.seconds) for dtype in dtypes}
    rows = {f"matrix product, {dtype}": {"GFLOP_s": rate / 1e9} for dtype, rate in peaks.items()}
    rows["copy"] = {"GB_s": copy_rate(args.seconds) / 1e9}
    base = None
    for name in names:
        model = with_compute(config.model, FORMS[name])
        folder = os.path.join(args.profile, name.replace(", ", "-")) if args.profile else None
        row = step_row(dataclasses.replace(config, model=model), args.seconds, folder)
        base = base or row["images_s"]
        row |= {
            "ratio": row["images_s"] / base,
            "of_peak": 1e9 * row["GFLOP_s"] / peaks[FORMS[name].dtype],
        }
        rows[name] = row
        print(f"{name}: {row}", flush=True)
    report(f"{config.name}: training step of {batch}, one device", rows, args.output)


def with_compute(record: Any, compute: Compute) -> Any:
    """The same configuration with every `compute` in it replaced."""
    changes = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if isinstance(value, Compute):
            changes[field.name] = compute
        elif dataclasses.is_dataclass(value):
            changes[field.name] = with_compute(value, compute)
    return dataclasses.replace(record, **changes)


def product_rate(dtype: str, side: int, seconds: float) -> float:
    """FLOP/s of a square matrix product on random values, as the networks multiply."""
    compute = Compute(dtype)
    a = jax.random.normal(jax.random.key(0), (side, side)).astype(compute.operands)
    product = jax.jit(functools.partial(matmul, precision=compute.precision))
    return 2 * side**3 / duration(product, a, a, seconds=seconds)


def copy_rate(seconds: float, size: int = 1 << 28) -> float:
    """Bytes/s read and written by x + 1 of a gigabyte of float32 (a 16th of it on a CPU)."""
    size //= 16 if jax.default_backend() == "cpu" else 1
    x = jnp.zeros(size, jnp.float32)
    return 2 * x.nbytes / duration(jax.jit(lambda x: x + 1), x, seconds=seconds)


def duration(function, *args, seconds: float) -> float:
    """Median seconds of a call, warm."""
    jax.block_until_ready(function(*args))
    times, end = [], time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        jax.block_until_ready(function(*args))
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def step_row(config: Config, seconds: float, profile: str | None) -> dict[str, float]:
    """Images per second of the training step, its FLOP/s and its memory."""
    mesh = make_mesh(1, 1, jax.devices()[:1])
    step, state = begin_step(config, mesh)
    batch, key = global_batch(mesh, random_batch(config)), jax.random.key(1)
    start = time.perf_counter()
    traced = step.trace(state, batch, key)
    count = count_flops(traced.jaxpr, jax.default_backend())
    step = traced.lower().compile()
    compiled = time.perf_counter() - start

    def run(state, steps):
        start = time.perf_counter()
        for _ in range(steps):
            state, metrics = step(state, batch, key)
        jax.block_until_ready((state, metrics))
        return state, (time.perf_counter() - start) / steps

    state, _ = run(state, 1)
    state, once = run(state, 1)
    # A few steps at a time: the host is not to wait for each of them.
    steps, times = max(1, round(seconds / 5 / once)), []
    for _ in range(5):
        state, each = run(state, steps)
        times.append(each)
    if profile:
        with jax.profiler.trace(profile):
            state, _ = run(state, 3)
    taken = float(np.median(times))
    touched = (step.cost_analysis() or {}).get("bytes accessed", float("nan"))
    return {
        "images_s": config.train.batch_size / taken,
        "step_ms": 1000 * taken,
        "min_ms": 1000 * min(times),
        "max_ms": 1000 * max(times),
        "GFLOP_s": count.flops / taken / 1e9,
        "GB_s": touched / taken / 1e9,
        "temp_MB": step.memory_analysis().temp_size_in_bytes / 1e6,
        "compile_s": compiled,
    }


def random_batch(config: Config) -> dict[str, np.ndarray]:
    """Smooth random images: HR, and LR by box means."""
    data, count = config.data, config.train.batch_size
    rng, side = np.random.default_rng(0), config.data.patch_size
    coarse = rng.random((count, 6, 6, data.channels), np.float32)
    hr = jax.image.resize(coarse, (count, side, side, data.channels), "cubic").clip(0, 1)
    small = side // data.scale
    lr = hr.reshape(count, small, data.scale, small, data.scale, data.channels).mean((2, 4))
    to_bytes = lambda x: np.asarray(jnp.rint(255 * x), np.uint8)  # noqa: E731
    batch = {"hr": to_bytes(hr), "lr": np.asarray(lr) if data.float_lr else to_bytes(lr)}
    if classes := get_family(config.model.family).classes(config.model):
        batch["label"] = rng.integers(0, classes, count).astype(np.int32)
    return batch


if __name__ == "__main__":
    main()
