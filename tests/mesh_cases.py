"""Tiny runs of every family on several layouts of devices, for test_mesh.py.

Run as a script it trains some of them: JOBS_JSON DEVICES [PORT PROCESSES INDEX], where the
jobs are [{"values": plain configuration, "workdir": folder}].  Each run leaves in its folder
begin-PHASE.npz and end-PHASE.npz, all arrays of the training state, and end-PHASE.json, the
share of each part of the state that one device holds.
"""

from __future__ import annotations

import copy
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
from PIL import Image
from virtual_devices import virtual_devices

ROOT = Path(__file__).parent.parent

# All of 8 devices.  Two processes have four each; PROCESSES names their layouts.
LAYOUTS = {
    "one": {"mesh_data": 1},
    "data": {"mesh_data": 8},
    "fsdp": {"mesh_data": 2, "mesh_fsdp": 4},
    "processes": {"mesh_data": 8},
    "fsdp_processes": {"mesh_data": 1, "mesh_fsdp": 8},
}
PROCESSES = ("processes", "fsdp_processes")
SPLIT = ("fsdp", "fsdp_processes")
BATCH = 16
# Arrays of so many values or more are split: tiny networks have no large ones.
MIN_SPLIT_SIZE = 8


def group(name: str, **options) -> dict:
    """Adam, whose first steps are lr * g / (|g| + eps): eps well above rounding noise in g."""
    return {"name": name, "lr": 1e-3, "eps": 1e-3, "clip_norm": 1.0, **options}


def phase(loss: str, *groups: dict, steps: int = 4, **options) -> dict:
    return {"name": loss, "loss": loss, "steps": steps, "groups": list(groups), **options}


def pictures(scale: int, size: int = 16) -> dict:
    return {"source": "folder", "scale": scale, "patch_size": size}


DIGITS = {"source": "digits", "channels": 1, "scale": 1, "patch_size": 8, "flips": False}
DIGITS |= {"rotations": False}
ENCODER = {"nf": 8, "gc": 4, "nb": 1}

# {case: (model, data, phases, other fields of train)}
CASES = {
    "glow": (
        {"family": "glow", "levels": 2, "steps": 1, "hidden": 8, "size": 8, "channels": 1,
         "classes": 10, "compute": {"memory": "reversible"}},
        DIGITS,
        [phase("nll", *(group(n, optimizer="adamax_glow") for n in ("flow", "prior")),
               group("classifier"), init_from_data=True)],
        {"accumulate": 2},
    ),
    # The first phase also moves the generator away from a plain mean of 8-bit values, which
    # lies halfway between two levels so often that rounding noise would decide.  The gradient
    # of a leaky ReLU jumps at 0: on one device, too, changing the weights by their last bit
    # moves a weight of this tiny discriminator by 2e-4 at lr 1e-3 in three steps.
    "irn": (
        {"family": "irn", "scale": 4, "blocks": (1, 1), "growth": 4,
         "discriminator": {"nf": 4, "size": 32}},
        pictures(4, 32),
        [phase("rescale", group("generator"), steps=2, loss_options={"lr_noise": 0.01}),
         phase("plus", group("generator", from_step=1),
               group("discriminator", loss="discriminator", lr=1e-4, clip_norm=0.01), steps=2)],
        {"checkpoint_every": 1},
    ),
    "nice": (
        {"family": "nice", "shape": (8, 8, 1), "layers": 1, "hidden": 16},
        DIGITS,
        [phase("nll", group("flow", lr=1e-2))],
        {"accumulate": 2},
    ),
    "realnvp": (
        {"family": "realnvp", "scales": 2, "dim": 4, "blocks": 1, "size": 8, "channels": 1},
        DIGITS,
        [phase("nll", group("flow"))],
        {"accumulate": 2},
    ),
    "rrdb": (
        {"family": "rrdb", "scale": 2, **ENCODER},
        pictures(2),
        [phase("l1", group("encoder"))],
        {},
    ),
    "sr3": (
        {"family": "sr3", "scale": 2, "schedule": {"steps": 3},
         "unet": {"channels": 8, "multipliers": (1, 2), "res_blocks": 1, "attn_res": (8,),
                  "image_size": 16, "norm_groups": 4, "dropout": 0.2}},
        pictures(2),
        [phase("eps", group("*"), loss_options={"drop_condition": 0.2})],
        {"accumulate": 2},
    ),
    "srflow": (
        {"family": "srflow", "encoder": {"scale": 2, **ENCODER}, "steps": (1, 1),
         "transition_steps": 1, "hidden": 8, "stacked_blocks": (0,)},
        pictures(2),
        [phase("nll", group("flow"), group("encoder"), init_from_data=True)],
        {},
    ),
}  # fmt: skip


def run_values(case: str, layout: str, folder: Path) -> dict:
    """Return the plain configuration of a case; `folder` is that of `make_pictures`."""
    model, data, phases, train = copy.deepcopy(CASES[case])
    if data["source"] == "folder":
        data |= {"train_dir": str(folder), "valid_dir": str(folder)}
    return {
        "model": model,
        "data": {**data, "workers": 0},
        "train": {
            "batch_size": BATCH,
            "phases": phases,
            "ema_decay": 0.9,
            "log_every": 1,
            "checkpoint_every": 2,
            "keep": 10,
            "valid_images": 2,
            "valid_draws": 1,
            "valid_crop": data["patch_size"],
            "sheet_images": 0,
            "compilation_cache": None,
            "tensorboard": False,
            **train,
            **LAYOUTS[layout],
        },
        "seed": 5,
        "name": case,
    }


def make_pictures(folder: Path) -> Path:
    """Write 19 smooth pictures (a prime number) of very different brightness."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i, level in enumerate(rng.permutation(19)):
        coarse = 10 * level + rng.integers(0, 70, (6, 6, 3))
        image = Image.fromarray(coarse.astype(np.uint8)).resize((40, 40), Image.BICUBIC)
        image.save(folder / f"{i:03d}.png")
    return folder


def start(jobs: list[dict], folder: Path, devices: int = 8, processes: int = 1) -> list:
    """Start the process, or processes, that do some jobs one after the other."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    file = folder / f"jobs{processes}.json"
    file.write_text(json.dumps(jobs))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        # Programs run a few times only: most of the time goes into compiling them.
        **virtual_devices(
            devices,
            "--xla_backend_optimization_level=0",
            "--xla_llvm_disable_expensive_passes=true",
        ),
    }
    command = [sys.executable, __file__, str(file), str(port), str(processes)]
    started = []
    for index in range(processes):
        with open(f"{file}.{index}.log", "w") as log:  # a pipe that nobody reads may fill up
            process = subprocess.Popen(
                [*command, str(index)], env=environment, stdout=log, stderr=subprocess.STDOUT
            )
        started.append((process, log.name))
    return started


def finish(started: list) -> None:
    """Wait for processes; AssertionError with what they said if one fails."""
    try:
        for process, log in started:
            assert process.wait(timeout=1800) == 0, Path(log).read_text()[-5000:]
    finally:
        for process, _ in started:
            process.kill()


def main(file: str, port: str, processes: str, index: str) -> None:
    from flowsr_jax.train import loop, mesh
    from flowsr_jax.train.config import resolve

    if processes != "1":
        mesh.initialize_distributed(f"localhost:{port}", int(processes), int(index))
    mesh.MIN_SPLIT_SIZE = MIN_SPLIT_SIZE
    train_phase = loop.train_phase

    def recorded(run, index, offset, state, batch):
        name = run.config.train.phases[index].name
        if batch is not None:
            dump(run, state, f"begin-{name}")
        state = train_phase(run, index, offset, state, batch)
        dump(run, state, f"end-{name}")
        return state

    loop.train_phase = recorded
    with open(file) as text:
        jobs = json.load(text)
    for job in jobs:
        loop.train_and_evaluate(resolve(job["values"]), job["workdir"])


def dump(run, state, name: str) -> None:
    """Write the state, and how much of it one device holds."""
    from flowsr_jax.train.checkpoint import _flat
    from flowsr_jax.train.mesh import gather

    arrays = gather(run.mesh, _flat(state))
    held = {}
    for part in ("params", "opt_state", "ema"):
        leaves = jax.tree.leaves(getattr(state, part))
        local = sum(leaf.addressable_shards[0].data.size for leaf in leaves)
        held[part] = local / sum(leaf.size for leaf in leaves)
    if jax.process_index() == 0:
        np.savez(run.path(f"{name}.npz"), **arrays)
        Path(run.path(f"{name}.json")).write_text(json.dumps(held))


if __name__ == "__main__":
    main(*sys.argv[1:])
