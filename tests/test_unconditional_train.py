"""Glow, RealNVP and NICE through the ordinary trainer, and the data that they train on."""

from __future__ import annotations

import csv
import importlib
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flowsr_jax
from flowsr_jax.config import ConfigError
from flowsr_jax.data import DataConfig, make_loader, make_source, valid_pairs
from flowsr_jax.data.transforms import random_shift
from flowsr_jax.train.config import resolve
from flowsr_jax.train.loop import train_and_evaluate

DIGITS = {"source": "digits", "scale": 1, "patch_size": 8, "flips": False, "rotations": False}


def run_values(model, groups, **train):
    group = {"lr": 0.02}
    phase = {"name": "flow", "loss": "nll", "steps": 12}
    phase["groups"] = [{"name": name, **group} for name in groups]
    return {
        "model": model,
        "data": {**DIGITS, "channels": model.get("channels", 1)},
        "train": {
            "batch_size": 16,
            "phases": [phase],
            "log_every": 1,
            "checkpoint_every": 6,
            "valid_images": 1,
            "valid_draws": 1,
            "sheet_images": 0,
            "mesh_data": 1,
            "compilation_cache": None,
            "tensorboard": False,
            **train,
        },
        "name": "tiny",
    }


def losses(workdir):
    with open(workdir / "metrics.csv") as file:
        return [float(row["loss"]) for row in csv.DictReader(file) if row.get("loss")]


def test_a_conditional_glow_trains_resumes_and_keeps_its_shuffle(tmp_path):
    model = {"family": "glow", "levels": 1, "steps": 1, "hidden": 4, "size": 8, "channels": 1}
    model |= {"permutation": "shuffle", "coupling": "additive", "classes": 10, "n_bits": 5}
    values = run_values(model, ("flow", "prior", "classifier"), ema_decay=0.5, accumulate=2)
    values["train"]["phases"][0]["init_from_data"] = True
    config, workdir = resolve(values), tmp_path / "run"
    straight = train_and_evaluate(config, str(workdir))
    found = losses(workdir)
    assert len(found) == 12 and np.mean(found[-3:]) < found[0] - 0.05, found
    order = straight["flow"]["multiscale"]["level1"]["flow"]["steps"]["permutation"]["indices"]
    assert order.dtype == jnp.int32 and sorted(order[0].tolist()) == [0, 1, 2, 3]
    table = json.loads((workdir / "result.json").read_text())
    params, pair = flowsr_jax.load(workdir), valid_pairs(make_source(config.data, "valid"),
                                                         config.data, count=1)[0]  # fmt: skip
    hr = jnp.asarray(pair["hr"], jnp.float32)[None] / 255
    bits = flowsr_jax.bits_per_dim(params, hr, label=pair["label"], key=jax.random.key(0))
    np.testing.assert_allclose(table["bits_per_dim"], bits[0], atol=0.5)  # another noise

    shutil.rmtree(workdir / "checkpoints" / "12")
    resumed = train_and_evaluate(config, str(workdir))
    for a, b in zip(jax.tree.leaves(straight), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(a, b)


def test_realnvp_exports_its_moving_statistics(tmp_path):
    model = {"family": "realnvp", "scales": 1, "dim": 2, "blocks": 1, "size": 8, "channels": 1}
    params = train_and_evaluate(resolve(run_values(model, ("flow",))), str(tmp_path))
    statistics = jax.tree_util.tree_leaves_with_path(params["statistics"])
    moved = [np.any(leaf != (path[-1].key == "var")) for path, leaf in statistics]
    assert all(moved), "statistics as they were at the start"
    loaded = flowsr_jax.load(tmp_path)
    for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.isfinite(json.loads((tmp_path / "result.json").read_text())["bits_per_dim"])


def test_nice_trains_on_grey_digits(tmp_path):
    values = importlib.import_module("configs.nice_digits").get_config("smoke")
    values.train.update({"compilation_cache": None, "mesh_data": 1, "tensorboard": False})
    train_and_evaluate(resolve(values), str(tmp_path))
    assert np.isfinite(losses(tmp_path)).all()
    assert np.isfinite(json.loads((tmp_path / "result.json").read_text())["bits_per_dim"])


def test_digits():
    source = make_source(DataConfig(**DIGITS), "train")
    valid = make_source(DataConfig(**DIGITS, channels=1), "valid")
    assert (len(source), len(valid)) == (1498, 299)
    assert source[0]["hr"].shape == (8, 8, 3) and valid[0]["hr"].shape == (8, 8, 1)
    assert [source[i]["label"] for i in range(5)] == [0, 1, 2, 3, 4] and valid[0]["label"] == 5
    assert (source.name(5), valid.name(0)) == ("digit_0006", "digit_0005")
    levels = np.unique(np.concatenate([valid[i]["hr"].ravel() for i in range(299)]))
    assert levels.dtype == np.uint8 and levels.tolist() == np.rint(np.arange(17) * 15.9375).tolist()
    # The first one by hand: load_digits().images[0][0].
    assert source[0]["hr"][0, :, 0].tolist() == [
        round(v * 255 / 16) for v in (0, 0, 5, 13, 9, 1, 0, 0)
    ]
    pair = valid_pairs(valid, DataConfig(**DIGITS, channels=1), count=2)[1]
    assert pair["hr"].shape == (8, 8, 1) and pair["label"] == valid[149]["label"]
    with make_loader(valid, DataConfig(**DIGITS, channels=1), batch_size=4, seed=0) as loader:
        batch = next(loader)
    assert batch["hr"].shape == (4, 8, 8, 1) and batch["label"].dtype == np.int32
    with pytest.raises(ConfigError, match="data.patch_size = 8"):
        make_source(DataConfig(**{**DIGITS, "patch_size": 16}), "train")


def test_grey_is_the_luminance():
    config = DataConfig(scale=1, patch_size=8)
    color = make_source(config, "valid")[0]["hr"][:9, :7].astype(np.float64)
    grey = make_source(DataConfig(scale=1, patch_size=8, channels=1), "valid")[0]["hr"][:9, :7]
    want = 0.299 * color[..., 0] + 0.587 * color[..., 1] + 0.114 * color[..., 2]
    assert grey.dtype == np.uint8 and np.abs(grey[..., 0] - want).max() <= 0.5 + 1e-9


@pytest.mark.parametrize(
    "values, message",
    [
        ({"channels": 2}, "channels = 2 must be 3 or 1"),
        ({"channels": 1}, "channels = 1 needs scale = 1, not 4"),
        ({"shift": 0.1}, "shift = 0.1 needs scale = 1, not 4"),
        ({"shift": -0.1, "scale": 1}, "shift = -0.1 must be"),
        ({"channels": 1, "scale": 1, "color_permutations": True}, "needs channels = 3"),
    ],
)
def test_data_that_do_not_go_together(values, message):
    with pytest.raises(ConfigError, match=message):
        DataConfig(**values)


class Fixed:
    """A generator that draws what it is told."""

    def __init__(self, *values):
        self.values = list(values)

    def uniform(self, low, high):
        value = self.values.pop(0)
        assert low <= value <= high
        return value


def test_shift_moves_whole_and_half_pixels_and_repeats_the_edge():
    image = np.random.default_rng(0).integers(0, 256, (10, 20, 3), dtype=np.uint8)
    still = random_shift({"hr": image, "lr": image}, 0.2, Fixed(0.0, 0.0))["hr"]
    np.testing.assert_array_equal(still, image)
    moved = random_shift({"hr": image, "lr": image}, 0.2, Fixed(0.2, -0.05))["hr"]
    np.testing.assert_array_equal(moved[:8, 1:], image[2:, :-1])
    np.testing.assert_array_equal(moved[8:, 1:], np.repeat(image[-1:, :-1], 2, 0))
    np.testing.assert_array_equal(moved[:8, 0], image[2:, 0])
    half = random_shift({"hr": image, "lr": image}, 0.2, Fixed(0.05, 0.0))["hr"]
    np.testing.assert_array_equal(half[:-1], (image[:-1].astype(int) + image[1:]) // 2)
    assert half.dtype == np.uint8
