"""Palette's tasks as degradations, the blur of LR patches, and the data protocol."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from flowsr_jax.config import ConfigError
from flowsr_jax.data import DataConfig, valid_pairs
from flowsr_jax.data.degradations import DegradationConfig, degrade_image, palette_source
from flowsr_jax.data.degradations.palette import QUALITIES, QUALITY_SHARES
from flowsr_jax.data.transforms import blur_lr, training_patches
from flowsr_jax.math import holes


class Noise:
    """A source of two smooth pictures."""

    fields = ("hr",)

    def __len__(self):
        return 2

    def name(self, index):
        return f"picture {index}"

    def __getitem__(self, index):
        ramp = np.linspace(20, 230, 48 * 40).reshape(48, 40)
        picture = np.stack([ramp, ramp[::-1], ramp[:, ::-1]], axis=-1)
        return {"hr": (picture + 10 * index).astype(np.uint8)}


def config(*tasks, **fields):
    degradation = DegradationConfig(kind="palette", tasks=tasks)
    return DataConfig(scale=1, degradation=degradation, patch_size=32, **fields)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_tasks(rng):
    image = rng.integers(0, 256, (64, 64, 3), np.uint8)
    grey = palette_source(image, "colorize", rng)
    assert np.all(grey == grey[..., :1])
    luma = image @ np.array([0.299, 0.587, 0.114])
    assert np.abs(grey[..., 0] - luma).max() < 1
    for task, low, high in (("inpaint", 0.02, 0.95), ("uncrop", 0.45, 0.55)):
        source = palette_source(image, task, rng)
        hole = holes.find(source / np.float32(255))[..., 0]
        assert low < hole.mean() < high
        np.testing.assert_array_equal(source[~hole], image[~hole])
    smooth = Noise()[0]["hr"]
    coarse = palette_source(smooth, "jpeg", rng)
    assert coarse.shape == smooth.shape and not np.array_equal(coarse, smooth)
    with pytest.raises(ConfigError, match="did you mean 'inpaint'"):
        palette_source(image, "inpant", rng)


def test_jpeg_qualities_are_drawn_as_published():
    assert (QUALITIES[0], QUALITIES[-1]) == (5, 30)
    np.testing.assert_allclose(QUALITY_SHARES.sum(), 1)
    np.testing.assert_allclose(QUALITY_SHARES[10] / QUALITY_SHARES[0], np.exp(-1))


def test_patches_and_pairs():
    source, data = Noise(), config("inpaint")
    patches = training_patches(source[0], np.random.default_rng(0), data)
    assert patches["lr"].shape == patches["hr"].shape == (1, 32, 32, 3)
    hole = holes.find(patches["lr"] / np.float32(255))
    np.testing.assert_array_equal(
        np.where(hole, 0, patches["lr"]), np.where(hole, 0, patches["hr"])
    )
    # The mask is one of the patch, not of the image around it.
    shares = []
    for seed in range(12):
        lr = training_patches(source[0], np.random.default_rng(seed), config("uncrop"))["lr"]
        shares.append(holes.find(lr / np.float32(255)).mean())
    np.testing.assert_allclose(shares, 0.5, atol=0.05)
    pairs = valid_pairs(source, config("uncrop"), crop=32)
    for pair, again in zip(pairs, valid_pairs(source, config("uncrop"), crop=32), strict=True):
        assert pair["lr"].shape == pair["hr"].shape == (32, 32, 3)
        assert abs(holes.find(pair["lr"] / np.float32(255)).mean() - 0.5) < 0.05
        np.testing.assert_array_equal(pair["lr"], again["lr"])
    kinds = set()
    for seed in range(20):
        data = config("colorize", "jpeg")
        lr = training_patches(source[0], np.random.default_rng(seed), data)["lr"]
        kinds.add(bool(np.all(lr == lr[..., :1])))
    assert kinds == {True, False}


def test_half_of_the_lr_patches_are_blurred(rng):
    pair = {"hr": np.zeros((16, 16, 3), np.uint8), "lr": rng.integers(0, 256, (8, 8, 3), np.uint8)}
    found = [blur_lr(pair, (0.4, 0.6), np.random.default_rng(i)) for i in range(40)]
    changed = [not np.array_equal(f["lr"], pair["lr"]) for f in found]
    assert 10 < sum(changed) < 30
    for f, blurred in zip(found, changed, strict=True):
        assert f["lr"].dtype == np.uint8 and f["hr"] is pair["hr"]
        assert (f["lr"].std() < pair["lr"].std()) == blurred
    data = DataConfig(scale=2, patch_size=16, lr_blur=(0.4, 0.6), flips=False, rotations=False)
    plain = dataclasses.replace(data, lr_blur=(0.0, 0.0))
    example = {"hr": rng.integers(0, 256, (16, 16, 3), np.uint8)}
    draw = [
        [training_patches(example, np.random.default_rng(i), d)["lr"] for i in range(10)]
        for d in (data, plain)
    ]
    same = [np.array_equal(a, b) for a, b in zip(*draw, strict=True)]
    assert 0 < sum(same) < 10
    pair = [valid_pairs(Noise(), d)[0]["lr"] for d in (data, plain)]
    np.testing.assert_array_equal(*pair)  # never in validation


def test_bad_configs(rng):
    with pytest.raises(ConfigError, match="needs tasks"):
        DegradationConfig(kind="palette")
    with pytest.raises(ConfigError, match="needs kind = 'palette'"):
        DegradationConfig(tasks=("jpeg",))
    with pytest.raises(ConfigError, match="did you mean 'colorize'"):
        DegradationConfig(kind="palette", tasks=("colourize",))
    with pytest.raises(ConfigError, match="needs scale = 1"):
        dataclasses.replace(config("jpeg"), scale=2)
    with pytest.raises(ConfigError, match="color_permutations"):
        config("jpeg", color_permutations=True)
    with pytest.raises(ConfigError, match="lr_blur"):
        DataConfig(lr_blur=(0.6, 0.4))
    with pytest.raises(ConfigError, match="needs scale = 1, not 2"):
        degrade_image(np.zeros((8, 8, 3), np.uint8), 2, config("jpeg").degradation, rng)
