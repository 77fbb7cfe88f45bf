"""Every config resolves; the smoke variant trains, and survives kill -9 unchanged."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flowsr_jax
from flowsr_jax.models import get_family
from flowsr_jax.train.config import resolve

ROOT = Path(__file__).resolve().parents[1]
VARIANTS = {
    "srflow_div2k": ("", "8x", "flow", "smoke"),
    "srflow_celeba": ("", "smoke"),
    "rrdb_div2k": ("", "8x", "smoke"),
    "srflow_quickstart": ("",),
    "srflow_demo": ("",),
    "irn_div2k": ("", "x2", "x3", "x4", "x8", "jpeg", "color", "smoke"),
    "irnp_div2k": ("", "vgg", "smoke"),
    "irn_quickstart": ("", "x4"),
    "sr3_quickstart": ("", "smoke"),
    "sr3_ffhq": ("", "paper", "512", "smoke"),
    "sr3_imagenet": ("", "base", "16_64", "stage", "smoke", "smoke_base", "smoke_16_64"),
    "sr3_div2k": ("", "smoke"),
    "ddpm_cifar10": ("", "classes", "smoke"),
    "score_cifar10": ("", "smoke"),
    "palette_multitask": ("", "smoke"),
    "palette_colorization": ("", "smoke"),
    "palette_inpainting": ("", "smoke"),
    "palette_uncropping": ("", "smoke"),
    "palette_jpeg": ("", "smoke"),
    "glow_quickstart": ("", "smoke"),
    "glow_cifar10": ("", "conditional", "smoke"),
    "glow_imagenet32": ("", "smoke"),
    "glow_imagenet64": ("", "smoke"),
    "glow_celebahq256": ("", "smoke"),
    "realnvp_cifar10": ("", "smoke"),
    "nice_mnist": ("", "smoke"),
    "nice_digits": ("", "smoke"),
}


def test_every_config_is_listed():
    names = {path.stem for path in (ROOT / "configs").glob("*.py")} - {"common"}
    assert names == set(VARIANTS)


@pytest.mark.parametrize(
    ("name", "variant"), [(n, v) for n, variants in VARIANTS.items() for v in variants]
)
def test_config_resolves_and_its_model_can_be_built(name, variant):
    module = importlib.import_module(f"configs.{name}")
    config = resolve(module.get_config(variant))
    family = get_family(config.model.family)
    shapes = jax.eval_shape(lambda key: family.init(config.model, key), jax.random.key(0))
    groups = {g.name for phase in config.train.phases for g in phase.groups}
    assert groups <= set(shapes)
    assert config.data.scale == getattr(config.model, "scale", 1)
    with pytest.raises(ValueError, match="variant"):
        module.get_config("no-such-variant")


def test_published_sizes():
    config = resolve(importlib.import_module("configs.srflow_div2k").get_config("")).model
    shapes = jax.eval_shape(lambda key: get_family("srflow").init(config, key), jax.random.key(0))
    unused = 276_576  # flowUpsamplerNet.f of the released files
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 39_541_811 - unused


@pytest.mark.parametrize(
    ("variant", "trained"),
    [
        ("x2", 1_667_952),
        ("x3", 3_139_029),
        ("x4", 4_355_136),
        ("x8", 11_119_248),
        ("color", 1_413_601),
        ("jpeg", 1_667_952 + 5_795_843),
    ],
)
def test_published_sizes_of_irn(variant, trained):
    config = resolve(importlib.import_module("configs.irn_div2k").get_config(variant)).model
    shapes = jax.eval_shape(lambda key: get_family("irn").init(config, key), jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == trained


def train(workdir, *flags, **kwargs):
    command = [sys.executable, "launch/train.py", "--config=configs/srflow_div2k.py:smoke"]
    return subprocess.Popen(
        [*command, f"--workdir={workdir}", *flags],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **kwargs,
    )


def test_smoke_trains_validates_and_loads(tmp_path):
    # The encoder begins as an official file; a few small steps do not move it far.
    config = resolve(importlib.import_module("configs.rrdb_div2k").get_config("smoke")).model
    encoder = get_family("rrdb").init(config, jax.random.key(5))
    flowsr_jax.to_torch(encoder, tmp_path / "RRDB.pth")
    process = train(tmp_path / "run", f"--init-encoder={tmp_path / 'RRDB.pth'}")
    output, _ = process.communicate()
    assert process.returncode == 0, output
    table = json.loads((tmp_path / "run" / "result.json").read_text())
    views = [row["view"] for row in table["rows"]]
    assert views == ["bicubic", "RRDB", "T=0", "T=0.5", "T=0.8"]
    assert np.isfinite(table["bits_per_dim"]) and np.isfinite(table["gaussian_bits_per_dim"])
    assert len(list((tmp_path / "run" / "sheets").glob("*.png"))) == 2
    params = flowsr_jax.load(tmp_path / "run")
    moved = jax.tree.map(
        lambda a, b: jnp.max(jnp.abs(a - b)), params["encoder"], encoder["encoder"]
    )
    assert 0 < max(jax.tree.leaves(moved)) < 0.01
    lr = jnp.full((1, 6, 4, 3), 0.5)
    assert flowsr_jax.sample(params, lr, jax.random.key(0)).shape == (1, 24, 16, 3)


@pytest.mark.slow
def test_kill_and_resume_gives_the_same_parameters(tmp_path):
    longer = "--config.train.phases.flow.steps=40"  # there is something left to kill
    straight = train(tmp_path / "straight", longer)
    assert straight.wait() == 0
    killed = train(tmp_path / "killed", longer, start_new_session=True)
    deadline = time.monotonic() + 600
    while not (tmp_path / "killed" / "checkpoints" / "10").is_dir():
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "result.json").read_text().count('"phase": "flow"')
    resumed = train(tmp_path / "killed", longer)
    output, _ = resumed.communicate()
    assert resumed.returncode == 0, output
    a, b = (flowsr_jax.load(tmp_path / name) for name in ("straight", "killed"))
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)
