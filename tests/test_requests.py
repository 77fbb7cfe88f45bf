"""Requests that no memory can hold are refused in one line, before anything is made."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from test_preflight import check

import flowsr_jax
from flowsr_jax import memory
from flowsr_jax.commands import edit, sample
from flowsr_jax.editing import unconditional
from flowsr_jax.evaluation.draw import draw_tight
from flowsr_jax.files.images import write_png
from flowsr_jax.io import weights
from flowsr_jax.models import Params
from flowsr_jax.models.base import get_family
from flowsr_jax.models.nice import NICEConfig
from flowsr_jax.models.sr3 import SR3Config
from flowsr_jax.nets.unet import UNetConfig

KEY = jax.random.key(0)
MANY = 10**9
LR = np.zeros((1, 8, 8, 3), np.float32)
UNET = UNetConfig(
    channels=4, multipliers=(1,), res_blocks=1, attn_res=(), norm_groups=2, image_size=16
)
DRAWER = SR3Config(1, UNetConfig(**{**vars(UNET), "cond_channels": 0}))
TINY = NICEConfig(shape=(4, 4, 1), couplings=2, layers=1, hidden=2)


@pytest.fixture(autouse=True)
def _one_gibibyte(monkeypatch):
    monkeypatch.setattr(memory, "host_memory", lambda: 1 << 30)
    monkeypatch.setattr(memory, "device_memory", lambda: 1 << 30)


def of(config):
    """Parameters that no program gets to see."""
    return Params({}, config)


@pytest.fixture(scope="module")
def demo():
    return flowsr_jax.load("demo")


# {what the message names: the call}
CALLS = {
    "num_samples = 1000000000 needs at least 11444.1 GiB of memory, and 1.0 GiB are free, "
    "enough for 87381 of 1000000000": lambda demo: flowsr_jax.sample(
        demo, LR, KEY, num_samples=MANY
    ),
    "num_samples = 999999999": lambda demo: draw_tight(
        demo, np.zeros((8, 8, 3), np.uint8), KEY, num_samples=MANY - 1
    ),
    "shape = (1000000000, 4, 4, 1)": lambda _: flowsr_jax.sample(
        of(TINY), None, KEY, num_samples=MANY
    ),
    "shape = (1000000000, 16, 16, 3)": lambda _: flowsr_jax.sample(
        of(DRAWER), None, KEY, num_samples=MANY
    ),
    "shape = (1, 1000000, 1000000, 3)": lambda _: flowsr_jax.sample(
        of(DRAWER), None, KEY, shape=(10**6, 10**6, 3)
    ),
    "points = 1000000000": lambda _: unconditional.interpolate_images(
        of(TINY), *np.zeros((2, 4, 4, 1), np.float32), points=MANY
    ),
    "scale = 1000000000.0": lambda _: flowsr_jax.imresize(LR[0], 1e9),
    "scale = 1e-12": lambda _: flowsr_jax.imresize(LR[0], 1e-12),
    "output_shape = (1000000000, 1)": lambda _: flowsr_jax.imresize(LR[0], output_shape=(MANY, 1)),
    "train.batch_size = 1000000000": lambda _: check(
        "rrdb_div2k:smoke", {"train.batch_size": MANY}
    ),
}


@pytest.mark.parametrize("named", CALLS)
def test_calls(named, demo):
    with pytest.raises(ValueError) as info:
        CALLS[named](demo)
    assert str(info.value).startswith(named) and "1.0 GiB are free" in str(info.value)


def test_commands(tmp_path, capsys):
    image, model, out = (str(tmp_path / n) for n in ("a.png", "nice", "out"))
    write_png(image, np.zeros((4, 4, 3), np.uint8))
    weights.save(get_family("nice").init(TINY, KEY), model)
    for main, line in (
        (sample.main, ["-i", image, "-n", "demo", "--num-samples", str(MANY)]),
        (edit.main, ["interpolate", "-n", "demo", "--lr", image, "--steps", str(MANY)]),
        (edit.main, ["interpolate", "-n", model, "--pair", image, image, "--steps", str(MANY)]),
        (edit.main, ["temperature", "-n", model, "--draws", str(MANY)]),
        (edit.main, ["resample", "-n", "demo", "--lr", image, "--mask", image,
                     "--num-samples", str(MANY)]),
    ):  # fmt: skip
        assert main([*line, "-o", out]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1, error
        assert "1.0 GiB are free" in error, error


def test_what_fits_is_taken():
    memory.require("steps", 2, 1 << 30)
    with pytest.raises(ValueError, match="steps = 3 needs at least 1.0 GiB.*enough for 2 of 3"):
        memory.require("steps", 3, (1 << 30) + 4, count=3)
