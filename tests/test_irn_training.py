"""IRN in the ordinary trainer: IRN+, weight files of single groups, what the run says."""

from __future__ import annotations

import importlib

import jax
import numpy as np
import pytest

import flowsr_jax
from flowsr_jax.config import ConfigError
from flowsr_jax.models import Params, get_family
from flowsr_jax.nets.vgg import layers
from flowsr_jax.train.begin import take_over
from flowsr_jax.train.config import resolve
from flowsr_jax.train.loop import train_and_evaluate


def vgg_file(path):
    """Random weights of VGG19's features, as a file with torchvision's names."""
    rng = np.random.default_rng(0)
    weights = {"classifier.0.weight": np.zeros((2, 2), np.float32)}
    for index, ci, co, _ in layers():
        scale = np.sqrt(2 / (9 * ci))
        weights[f"features.{index}.weight"] = scale * rng.standard_normal((co, ci, 3, 3), "f")
        weights[f"features.{index}.bias"] = np.zeros(co, np.float32)
    np.savez(path, **{k: v.astype(np.float32) for k, v in weights.items()})
    return str(path)


def smoke(**overrides):
    values = importlib.import_module("configs.irnp_div2k").get_config("smoke").to_dict()
    return resolve(values, overrides)


def test_groups_come_from_a_run_and_from_a_weight_file(tmp_path):
    config = smoke(**{"model.features": True})
    family = get_family("irn")
    fresh = family.init(config.model, jax.random.key(0))
    trained = jax.tree.map(lambda x: x + 1.0, Params({"generator": fresh["generator"]}, _plain()))
    flowsr_jax.save(trained, tmp_path / "irn")
    flowsr_jax.to_torch(trained, tmp_path / "irn.pth")
    file = vgg_file(tmp_path / "vgg19.npz")
    for source in ("irn", "irn.pth"):
        phase = smoke(
            **{
                "train.phases.plus.init_from": str(tmp_path / source),
                "train.phases.plus.init_files": {"features": file},
            }
        ).train.phases[0]
        params = take_over(fresh, phase)
        assert set(params) == {"generator", "discriminator", "features"}
        jax.tree.map(np.testing.assert_array_equal, params["generator"], trained["generator"])
        jax.tree.map(np.testing.assert_array_equal, params["discriminator"], fresh["discriminator"])
        kernel = np.load(file)["features.0.weight"].transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(params["features"]["conv0"]["w"], kernel)
    with pytest.raises(ConfigError, match="no group 'features'"):
        take_over(trained, phase)
    with pytest.raises(ConfigError, match="init_files: group = 'generator'"):
        smoke(**{"train.phases.plus.init_files": {"generator": file}})
    phase = smoke(**{"train.phases.plus.init_files": {"features": str(tmp_path / "no.pth")}})
    with pytest.raises(ConfigError, match=r"no\.pth.*cannot be read"):
        take_over(fresh, phase.train.phases[0])


def _plain():
    return resolve(importlib.import_module("configs.irn_div2k").get_config("smoke")).model


def test_a_feature_term_needs_weights(tmp_path):
    config = smoke(**{"model.features": True})
    with pytest.raises(ConfigError, match=r"'features' has no weights.*init_files.features"):
        train_and_evaluate(config, str(tmp_path))


def test_irn_plus_trains_without_vgg_and_says_so(tmp_path, capsys):
    steps = {"train.phases.plus.steps": 3, "train.phases.plus.groups.generator.from_step": 1}
    params = train_and_evaluate(smoke(**steps), str(tmp_path))
    said = capsys.readouterr()
    assert "no perceptual term" in said.out + said.err
    table = (tmp_path / "metrics.csv").read_text()
    assert "discriminator/l_d" in table and "l_back_gan" in table and "l_back_fea" not in table
    hr = np.random.default_rng(0).random((1, 16, 20, 3), np.float32)
    lr = flowsr_jax.downscale(params, hr)
    assert lr.shape == (1, 4, 5, 3) and lr.dtype == np.uint8
    assert flowsr_jax.upscale(params, lr).shape == hr.shape
