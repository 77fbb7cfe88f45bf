"""The examples run, and hold what they claim."""

from __future__ import annotations

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from flowsr_jax.testing import check_bijector


@pytest.fixture(scope="module")
def moons():
    return importlib.import_module("examples.two_moons")


def test_two_moons_beats_a_gaussian(moons, tmp_path, capsys):
    nll, gaussian = moons.main(["-o", str(tmp_path), "--steps", "250"])
    assert nll < gaussian - 0.5, (nll, gaussian)
    assert f"flow {nll:.3f} nats, one Gaussian per class {gaussian:.3f} nats" in (
        capsys.readouterr().out
    )
    picture = np.asarray(Image.open(tmp_path / "two_moons.png").convert("RGB"))
    assert picture.shape == (360, 1440, 3) and picture.std() > 20


def test_its_flow_holds_the_invariants_and_is_a_density(moons):
    flow = moons.make_flow(steps=2)
    check_bijector(flow, (2,), cond=jnp.eye(2))
    params = flow.init(jax.random.key(0), (2,))
    side = jnp.linspace(-8, 8, 161)
    grid = jnp.stack(jnp.meshgrid(side, side), -1).reshape(-1, 2)
    label = jnp.zeros(len(grid), jnp.int32)
    total = jnp.sum(jnp.exp(moons.log_prob(flow, params, grid, label))) * 0.1**2
    np.testing.assert_allclose(total, 1.0, atol=1e-3)


def test_the_gaussian_fit(moons):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4000, 2)).astype(np.float32) * [1.0, 3.0]
    label = np.arange(4000) % 2
    entropy = np.log(2 * np.pi * np.e) + np.log(3.0)
    np.testing.assert_allclose(moons.gaussian_nll((x, label), (x, label)), entropy, atol=0.05)
