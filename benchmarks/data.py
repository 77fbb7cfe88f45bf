"""The pipeline alone: patches per second, next to what a training step takes.

    python benchmarks/data.py                  # 160x160 patches of photographs as large as DIV2K's
    python benchmarks/data.py --step_ms 150 --batch_size 16
    python benchmarks/data.py --config=configs/srflow_quickstart.py   # its data, its step measured
    python benchmarks/data.py --folder data/DIV2K_train_HR --records data/records

Without --folder the embedded photographs are enlarged and written as PNG.  "no cache" reads
every image anew, as for a set that is larger than data.cache_mib.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from common import add_output, report, unit_seconds
from jax.sharding import Mesh
from PIL import Image

from flowsr_jax.data import DataConfig, EmbeddedSource, FolderSource, make_loader, make_source
from flowsr_jax.data.sources.record_writer import write_records
from flowsr_jax.files.images import write_png
from flowsr_jax.models import get_family
from flowsr_jax.train import config_files
from flowsr_jax.train.config import Config, resolve
from flowsr_jax.train.mesh import global_batch, make_mesh
from flowsr_jax.train.state import TrainState, create
from flowsr_jax.train.step import Step, make_step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", help="folder of HR images")
    parser.add_argument("--records", help="folder written by launch/prepare_data.py")
    parser.add_argument("--images", type=int, default=6, help="photographs to make for --folder")
    parser.add_argument("--side", type=int, default=2040, help="their longer side")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--patch_size", type=int, default=160)
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--seconds", type=float, default=3.0, help="time for each measurement")
    parser.add_argument("--step_ms", type=float, help="milliseconds of a training step")
    parser.add_argument("--config", help="FILE[:variant]; takes its data and measures its step")
    add_output(parser)
    args = parser.parse_args()
    data = DataConfig(scale=args.scale, patch_size=args.patch_size, rotations=False)
    if args.config:
        config = read_config(args.config)
        data, args.batch_size = config.data, config.train.batch_size
    plain = {"train_lr_dir": None, "tfds_name": None, "textures": False, "crops_per_image": 1}
    with tempfile.TemporaryDirectory() as folder:
        photos = args.folder or make_photos(Path(folder, "photos"), args.images, args.side)
        records = [args.records] if args.records else make_records(photos, Path(folder), data)
        many = math.gcd(8, args.batch_size)
        png = dataclasses.replace(data, source="folder", train_dir=photos, **plain)
        cases = {
            "embedded": DataConfig(scale=data.scale, patch_size=min(data.patch_size, 300)),
            "PNG": png,
            "PNG, no cache": dataclasses.replace(png, cache_mib=0),
            f"PNG, no cache, {many} crops each": dataclasses.replace(
                png, cache_mib=0, crops_per_image=many
            ),
        }
        stored = dataclasses.replace(png, source="array_record", cache_mib=0)
        for name, path in zip(("records", "records with LR"), records, strict=False):
            cases[f"{name}, no cache"] = dataclasses.replace(stored, train_dir=path)
        if args.config and data.source != "embedded":
            cases["the config's"] = data
        rows = {}
        for name, case in cases.items():
            source = make_source(case, "train")
            for workers in args.workers:
                label = f"{name}, {workers} workers"
                rows[label] = throughput(source, case, args.batch_size, workers, args.seconds)
    batch, patch = args.batch_size, data.patch_size
    report(f"{batch} patches of {patch}x{patch}, {data.scale}x", rows, args.output)
    step = args.step_ms / 1000 if args.step_ms else step_seconds(config) if args.config else None
    if step:
        print(f"a step of {1000 * step:.1f} ms takes {batch / step:.1f} patches/s")
        for label, row in rows.items():
            print(f"  {label:40s} {row['patches_s'] * step / batch:8.2f} times as many")


def read_config(text: str) -> Config:
    """Resolve FILE[:variant]."""
    return resolve(config_files.read_config(text))


def make_photos(folder: Path, count: int, side: int) -> str:
    """Write the embedded photographs, enlarged, as PNG files."""
    source = EmbeddedSource("train")
    folder.mkdir()
    for i in range(count):
        image = Image.fromarray(source[i % len(source)]["hr"])
        factor = side / max(image.size)
        size = [round(n * factor) for n in image.size]
        write_png(folder / f"{i:04d}.png", np.asarray(image.resize(size, Image.Resampling.LANCZOS)))
    return str(folder)


def make_records(photos: str, folder: Path, data: DataConfig) -> list[str]:
    """Write records of crops without and with LR images."""
    step = max(480, data.patch_size) // (2 * data.scale) * data.scale
    found = []
    for name, scale in (("hr", None), ("pairs", data.scale)):
        source = FolderSource(photos, check=False)
        write_records(source, folder / name, crop=2 * step, step=step, scale=scale)
        found.append(str(folder / name))
    return found


def throughput(
    source, config: DataConfig, batch_size: int, workers: int, seconds: float
) -> dict[str, float]:
    """Patches and megabytes (of batches) per second, after the start-up."""
    with make_loader(source, config, batch_size=batch_size, seed=0, workers=workers) as loader:
        start = time.perf_counter()
        size = sum(array.nbytes for array in next(loader).values())
        first = time.perf_counter() - start
        for _ in range(8):  # what was prefetched during the start
            next(loader)
        before, batches, start = unit_seconds(), 0, time.perf_counter()
        while time.perf_counter() - start < seconds or batches < 3:
            next(loader)
            batches += 1
        taken = time.perf_counter() - start
    unit = min(before, unit_seconds())
    return {
        "first_s": first,
        "patches_s": batches * batch_size / taken,
        "mb_s": batches * size / taken / 1e6,
        "batch_ms": 1000 * taken / batches,
        "batch_u": taken / batches / unit,
    }


def begin_step(config: Config, mesh: Mesh) -> tuple[Step, TrainState]:
    """The step of the config's last phase with all of its groups, and fresh state for it."""
    family, phase, train = get_family(config.model.family), config.train.phases[-1], config.train
    params = family.init(config.model, jax.random.key(0))
    state = create(params, family.init_state(config.model), phase, train)
    return make_step(family, phase, train, mesh), state


def step_seconds(config: Config, repeats: int = 5) -> float:
    """Median seconds of a step of the config's last phase, all of its groups training."""
    train = config.train
    mesh = make_mesh(train.mesh_data, train.mesh_fsdp)
    step, state = begin_step(config, mesh)
    source = EmbeddedSource("train")  # its pixels do not matter
    data = DataConfig(scale=config.data.scale, patch_size=config.data.patch_size)
    with make_loader(source, data, batch_size=train.batch_size, seed=0) as loader:
        batch = global_batch(mesh, next(loader))
    times = []
    for _ in range(repeats + 1):  # the first one compiles
        start = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, batch, jax.random.key(0)))
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))


if __name__ == "__main__":
    main()
