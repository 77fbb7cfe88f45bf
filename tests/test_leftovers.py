"""Every command removes what killed processes left in the folder that it writes to."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

import flowsr_jax
from flowsr_jax.commands import cascade, export, search_schedule
from flowsr_jax.files.images import write_png
from flowsr_jax.io import weights
from flowsr_jax.models.base import get_family
from flowsr_jax.models.nice import NICEConfig
from flowsr_jax.models.rrdb.config import RRDBConfig
from flowsr_jax.models.sr3 import SR3Config
from flowsr_jax.nets.unet import UNetConfig

pytestmark = pytest.mark.skipif(os.name != "posix", reason="recognised on POSIX systems only")
UNET = UNetConfig(
    channels=4, multipliers=(1,), res_blocks=1, attn_res=(), norm_groups=2, image_size=16
)
MODELS = {
    "nice": NICEConfig(shape=(4, 4, 1), couplings=2, layers=1, hidden=2),
    "rrdb": RRDBConfig(scale=2, nf=2, gc=2, nb=1),
    "sr3": SR3Config(2, UNET),
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The current folder holds models, an image and a leftover, and so does `out`."""
    monkeypatch.chdir(tmp_path)
    for name, config in MODELS.items():
        weights.save(get_family(config.family).init(config, jax.random.key(0)), name)
    os.mkdir("out")
    write_png("out/0000.png", np.zeros((4, 4, 3), np.uint8))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for folder in (".", "out"):
        name = f".tmp-{socket.gethostname()}-{ended.pid}-"
        os.mkdir(f"{folder}/{name}{'0' * 16}")  # of an export
        open(f"{folder}/{name}{'1' * 16}", "x").close()
    return tmp_path


def left(folder):
    return [name for name in os.listdir(folder) if name.startswith(".tmp-")]


def small_export():
    return ["rrdb", "exported", "--size=4x4", "--batch=1", "--platforms=cpu", "--bake"]


@pytest.mark.parametrize(
    ("work", "folder"),
    [
        (lambda: cascade.main(["-n", "nice", "-o", "out", "--num-samples=1"]), "out"),
        (
            lambda: search_schedule.main(["-n", "sr3", "-i", "embedded", "-o", "out", "--score=x"]),
            "out",
        ),
        (lambda: export.main(small_export()), "."),
        (lambda: flowsr_jax.to_torch(flowsr_jax.load("rrdb"), "out/a.npz"), "out"),
        (lambda: flowsr_jax.save(flowsr_jax.load("rrdb"), "out"), "out"),
    ],
    ids=["cascade", "search-schedule", "export", "to_torch", "save"],
)
def test_leftovers_go(place, work, folder):
    assert len(left(folder)) == 2
    work()
    assert left(folder) == []
