"""SR3 through the command lines: sampler and number of steps, files, tables, no LR at all."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import flowsr_jax
from flowsr_jax.diffusion.schedules import ScheduleConfig
from flowsr_jax.models import Params, get_family
from flowsr_jax.models.base import kind_of
from flowsr_jax.models.sr3.config import SR3Config
from flowsr_jax.models.sr3.network import init
from flowsr_jax.nets.unet import UNetConfig
from flowsr_jax.train.evaluate import evaluate

UNET = UNetConfig(
    channels=8, multipliers=(1, 2), res_blocks=1, attn_res=(), image_size=16, norm_groups=4
)
TINY = SR3Config(scale=2, unet=UNET, schedule=ScheduleConfig(steps=40, end=0.4))
LAUNCH = Path(__file__).parents[1] / "launch"


def main(name: str):
    spec = importlib.util.spec_from_file_location(name, LAUNCH / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A saved tiny SR3, a saved NICE, and a folder with one photograph."""
    root = tmp_path_factory.mktemp("sr3")
    flowsr_jax.save(init(TINY, jax.random.key(0)), root / "model")
    family = get_family("nice")
    flowsr_jax.save(family.init(family.config_class(), jax.random.key(0)), root / "nice")
    (root / "photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    Image.fromarray(pixels).save(root / "photos" / "noise.png")
    return root


def read(path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_files_are_drawn_by_the_chosen_chain(folders, tmp_path, capsys):
    found = {}
    for label, flags in {
        "default": ["--steps", "4"],
        "again": ["--steps", "4"],
        "two": ["--sampler", "ddim", "--steps", "2"],
        "four": ["--sampler", "ddim", "--steps", "4"],
    }.items():
        arguments = ["-i", str(folders / "photos"), "-o", str(tmp_path / label)]
        assert main("sample")([*arguments, "-n", str(folders / "model"), *flags]) == 0
        found[label] = read(tmp_path / label / "noise.png")
        assert found[label].shape == (48, 64, 3)
    np.testing.assert_array_equal(found["default"], found["again"])
    assert len({x.tobytes() for x in found.values()}) == 3
    assert "1 written" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["sample", "evaluate"])
@pytest.mark.parametrize(
    "flags, message",
    [
        (["--sampler", "dpm"], "'ancestral', 'ddim', 'dpmpp2m'"),
        (["--steps", "0"], "steps"),
        (["--steps", "41"], "40"),
    ],
)
def test_bad_chains_are_refused_before_anything_is_drawn(
    folders, tmp_path, capsys, command, flags, message
):
    arguments = ["-i", str(folders / "photos"), "-o", str(tmp_path), "-n", str(folders / "model")]
    assert main(command)([*arguments, *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.glob("*.png"))


def test_models_without_a_chain_have_no_steps(folders, tmp_path, capsys):
    where = ["-i", str(folders / "photos"), "-o", str(tmp_path)]
    assert main("sample")([*where, "-n", "demo", "--steps", "3"]) == 2
    assert "family 'srflow' has no steps" in capsys.readouterr().err
    assert main("evaluate")([*where, "-n", "bicubic", "--scale", "2", "--sampler", "ddim"]) == 2
    assert "sampler" in capsys.readouterr().err


@pytest.mark.parametrize("protocol", ["default", "srflow"])
def test_evaluation_draws_the_same_chain(folders, tmp_path, capsys, protocol):
    where = ["-i", str(folders / "photos"), "-n", str(folders / "model"), "--protocol", protocol]
    rows = {}
    for steps in ("2", "3"):
        out = tmp_path / steps
        assert main("evaluate")([*where, "-o", str(out), "--steps", steps]) == 0
        with open(out / "per_image.csv") as table:
            rows[steps] = list(csv.DictReader(table))[1]["psnr"]
        assert f"steps = {steps}" in capsys.readouterr().out
    assert rows["2"] != rows["3"]


def test_a_model_that_draws_from_nothing_enlarges_nothing(folders, tmp_path, capsys):
    unet = dataclasses.replace(UNET, cond_channels=0)
    flowsr_jax.save(init(SR3Config(scale=1, unet=unet), jax.random.key(0)), tmp_path / "ddpm")
    for model in (tmp_path / "ddpm", folders / "nice"):
        where = ["-i", str(folders / "photos"), "-o", str(tmp_path / "out"), "-n", str(model)]
        assert main("sample")(where) == 2
        assert "does not enlarge images: it draws them from nothing" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.png"))


def test_validation_of_a_model_that_needs_no_lr():
    unet = UNetConfig(
        channels=8, multipliers=(1, 2), res_blocks=1, attn_res=(), image_size=16, norm_groups=4,
        cond_channels=0,
    )  # fmt: skip
    family = get_family("sr3")
    params = init(SR3Config(scale=1, unet=unet, schedule=TINY.schedule), jax.random.key(0))
    assert isinstance(params, Params) and kind_of(params) == "unconditional"
    assert kind_of(init(TINY, jax.random.key(0))) == "super_resolution"
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    shown = []
    report = evaluate(
        params, family, family.views(params.config, "eps")[:1], [{"hr": pixels, "lr": pixels}],
        jax.random.key(1), draws=2, show=lambda pair, images: shown.append((pair, images)),
    )  # fmt: skip
    (row,) = report.rows
    assert row["psnr"] is None and row["nonfinite"] == 0 and row["view"].startswith("2M")
    ((pair, images),) = shown
    assert "lr" not in pair and [x.shape for x in images[row["view"]]] == [(16, 16, 3)] * 2
