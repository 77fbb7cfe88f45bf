"""The model in the package: it fits, it is what its config says, and its table is true."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flowsr_jax
from flowsr_jax.data import EmbeddedSource
from flowsr_jax.evaluation import evaluate_folder
from flowsr_jax.io.weights import BUILT_IN
from flowsr_jax.metrics import psnr, to_uint8
from flowsr_jax.train.config import resolve

FOLDER = BUILT_IN["demo"]


@pytest.fixture(scope="module")
def demo():
    return flowsr_jax.load("demo")


def test_it_is_small_and_of_its_config(demo):
    assert (FOLDER / "params.safetensors").stat().st_size <= 1_500_000
    config = resolve(importlib.import_module("configs.srflow_demo").get_config())
    assert demo.config == config.model
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(demo))


def test_a_path_of_that_name_comes_first(demo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    other = demo.replace(encoder=jax.tree.map(jnp.zeros_like, demo["encoder"]))
    flowsr_jax.save(other, Path("demo"))
    found = flowsr_jax.load("demo")
    assert all(not leaf.any() for leaf in jax.tree.leaves(found["encoder"]))


def test_it_beats_bicubic_and_its_samples_differ(demo):
    photo = EmbeddedSource("valid")[2]["hr"][100:228, 200:328]
    small = flowsr_jax.imresize(photo, 1 / 4)
    lr = jnp.asarray(small[None], jnp.float32) / 255
    key = jax.random.key(0)
    sharp = to_uint8(np.asarray(flowsr_jax.sample(demo, lr, key, temperature=0.0))[0])
    assert psnr(sharp, photo) > psnr(flowsr_jax.imresize(small, 4), photo) + 1
    drawn = flowsr_jax.sample(demo, lr, key, num_samples=2)
    assert 0.5 < 255 * float(jnp.abs(drawn[0] - drawn[1]).mean()) < 20
    hr = jnp.asarray(photo[None], jnp.float32) / 255
    latents, _ = flowsr_jax.encode(demo, hr, lr)
    np.testing.assert_allclose(flowsr_jax.decode(demo, latents, lr), hr, atol=1e-4)


def test_the_table_of_its_readme(demo, shared, tmp_path):
    text = (FOLDER / "README.md").read_text()
    rows = dict(re.findall(r"^\| (bicubic|T=0) \|([\d. |]+)\|$", text.split("## Set5")[0], re.M))
    result = evaluate_folder(
        shared / "data" / "val", tmp_path, params=demo, name="demo", temperatures=(0.0,)
    )
    for found, row in zip(result.rows, ("bicubic", "T=0"), strict=True):
        table = [float(cell) for cell in rows[row].split("|") if cell.strip()]
        for value, (column, error) in zip(
            table, {"psnr": 0.02, "ssim": 3e-4, "lr_psnr": 0.1}.items(), strict=False
        ):
            assert abs(found[column] - value) < error, (row, column)
