"""Mistakes are told before the first step, for all phases, in one line that names the field."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from train_cases import FAMILY, TinyConfig, make_pictures, registered, run_values

from flowsr_jax.config import ConfigError
from flowsr_jax.io import weights
from flowsr_jax.models.base import get_family
from flowsr_jax.train import mesh as meshes
from flowsr_jax.train.config import resolve
from flowsr_jax.train.loop import train_and_evaluate
from flowsr_jax.train.overrides import plain
from flowsr_jax.train.preflight import check_run

ROOT = Path(__file__).parent.parent


class Source:
    fields = ("hr",)


def check(name: str, overrides: dict, side: int = 64, channels: int = 3, begun: int = -1):
    """Resolve a config and look at what its run will need; no data are read."""
    sys.path.insert(0, str(ROOT))
    try:
        module, _, variant = name.partition(":")
        values = importlib.import_module(f"configs.{module}").get_config(variant)
    finally:
        sys.path.pop(0)
    values = plain(values)
    if len(values["train"]["phases"]) == 1:  # the first one is traced when it runs
        (first,) = values["train"]["phases"]
        values["train"]["phases"] = [first, {**first, "name": "second"}]
    config = resolve(values, overrides)
    scale = config.data.scale
    pair = {
        "name": "valid.png",
        "hr": np.zeros((side, side, channels), np.uint8),
        "lr": np.zeros((side // scale, side // scale, channels), np.uint8),
    }
    family = get_family(config.model.family)
    check_run(config, family, meshes.make_mesh(1, 1), Source, [pair], begun)


@pytest.mark.parametrize(
    "name",
    ["srflow_div2k:smoke", "sr3_quickstart:smoke", "rrdb_div2k:smoke", "ddpm_cifar10:smoke"],
)  # fmt: skip
def test_right_configs_pass(name):
    check(name, {})


PLANTED = [
    ("srflow_quickstart", {"data.scale": 8}, r"data\.scale = 8, .* is 4: set data\.scale = 4"),
    ("sr3_quickstart:smoke", {"model.scale": 2}, r"data\.scale = 4, but the model's scale is 2"),
    ("irn_quickstart", {"data.scale": 4}, r"data\.scale = 4, but the model's scale is 2"),
    ("glow_quickstart:smoke", {"data.patch_size": 30}, r"data\.patch_size = 30.*multiple"),
    ("glow_quickstart:smoke", {"data.channels": 1, "data.color_permutations": False},
     r"data\.channels = 1: .*3 channels"),
    ("glow_quickstart:smoke", {"model.channels": 1}, r"data\.channels = 3: .*1 channel"),
    ("glow_quickstart:smoke", {"model.classes": 10}, r"model\.classes = 10, .*has no labels"),
    ("rrdb_div2k:smoke", {"model.out_channels": 1}, r"makes images \(64, 64, 1\) of .*other chan"),
    ("rrdb_div2k:smoke", {"model.in_channels": 1, "model.out_channels": 1},
     "data.patch_size = 64 at scale 4: .*must have 1 channels"),
    ("sr3_quickstart:smoke", {"model.unet.image_channels": 1, "model.unet.cond_channels": 1},
     "takes no such images|cannot run|makes images"),
    ("glow_quickstart:smoke", {"train.phases[0].loss_options.niose": "none"},
     r"loss_options\.niose is no option of the loss 'nll' \(it has none\)"),
    ("sr3_quickstart:smoke", {"train.phases[1].loss_options.levles": "paper"},
     r"phase 'second' cannot run.* unexpected keyword argument 'levles'; did you mean 'levels'"),
    ("sr3_quickstart:smoke", {"train.phases[1].loss_options.norm": "l3"},
     r"phase 'second': .*'l3' is not one of 'l1', 'l2'"),
    ("irn_quickstart", {"train.phases[1].loss_options.lamda_rec": 2.0},
     r"phase 'second' cannot run.*'lamda_rec'; did you mean 'lambda_rec'"),
    # The second phase of two: what tracing tells.
    ("srflow_div2k:smoke", {"train.phases.flow.loss_options.niose": "none"},
     r"phase 'flow' cannot run.*unexpected keyword argument 'niose'; did you mean 'noise'"),
    ("srflow_div2k:smoke", {"train.phases.flow.loss_options.noise": "gausian"},
     r"phase 'flow': .*'gausian' is not one of.*did you mean 'gaussian'"),
    ("srflow_div2k:smoke", {"train.phases.flow.loss_options.sigma": "abc"}, "phase 'flow' cannot"),
    ("srflow_div2k:smoke", {"train.phases.flow.groups[0].name": "flwo"},
     r"phase 'flow' trains the group 'flwo', which the model lacks; did you mean 'flow'"),
    ("srflow_div2k:smoke", {"train.phases.flow.init_from": "/no/such/run"},
     r"phase 'flow': init_from = '/no/such/run' cannot be read: /no/such/run: no such folder"),
    ("srflow_div2k:smoke", {"train.phases.flow.init_from": "demo",
                            "train.phases.flow.init_groups": ("encodr",)},
     r"phase 'flow': init_from = 'demo': it has no group 'encodr'; did you mean 'encoder'"),
    ("srflow_div2k:smoke", {"train.phases.flow.init_from": "demo"},
     r"phase 'flow': init_from = 'demo', group '\w+': .* in the model"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "overrides", "message"), PLANTED, ids=lambda x: str(x)[:60])
def test_a_mistake_is_told_before_the_first_step(name, overrides, message):
    with pytest.raises(ConfigError, match=message) as caught:
        check(name, overrides)
    assert "\n" not in str(caught.value)


def test_a_phase_that_is_over_may_have_lost_its_files():
    lost = {"train.phases.encoder.init_from": "/no/such/run"}
    check("srflow_div2k:smoke", lost, begun=0)
    with pytest.raises(ConfigError, match="no such folder"):
        check("srflow_div2k:smoke", lost)


def test_validation_images_are_checked_against_the_model():
    with pytest.raises(ConfigError, match=r"image 'valid\.png': .*such images.*\(8, 8, 1\) only"):
        check("nice_digits:smoke", {}, side=16, channels=1)


@pytest.fixture
def values(tmp_path):
    make_pictures(tmp_path / "train", 2)
    make_pictures(tmp_path / "valid", 1, seed=1)
    with registered():
        yield run_values(tmp_path)


def test_a_run_tells_it_before_it_writes_anything(values, tmp_path, capsys):
    other = {**values["train"]["phases"][0], "name": "second"}
    values["train"]["phases"].append(other)
    weights.save(FAMILY.init(TinyConfig(width=4), jax.random.key(0)), tmp_path / "wide")
    for overrides, message in (
        ({"train.phases.second.loss_options.nose": 0.1}, r"loss 'mse'; did you mean 'noise'"),
        ({"train.phases.fit.loss_options.noise": "much"}, r"phase 'fit' cannot run"),
        ({"train.phases.second.loss_options.noise": "much"}, r"phase 'second' cannot run"),
        ({"train.phases.second.init_from": str(tmp_path / "wide")}, r"phase 'second': init_from"),
        ({"model.scale": 3}, r"data\.scale = 2, but the model's scale is 3"),
    ):
        with pytest.raises(ConfigError, match=message):
            train_and_evaluate(resolve(values, overrides), str(tmp_path / "run"))
        assert "step" not in capsys.readouterr().out
        assert not (tmp_path / "run" / "model").exists()
