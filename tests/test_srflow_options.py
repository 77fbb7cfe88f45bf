"""SRFlow's options of our own: noise that the networks are told, and the conditional prior."""

from __future__ import annotations

import frozen_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flowsr_jax
from flowsr_jax.config import ConfigError, from_dict
from flowsr_jax.models.srflow import FAMILY, SRFlowConfig
from flowsr_jax.models.srflow.losses import noisy
from flowsr_jax.testing import moved

VALUES = {
    "encoder": {"scale": 4, **frozen_cases.ENCODER, "head": "subpixel", "residual": True},
    "steps": (1, 1),
    "transition_steps": 1,
    "hidden": 8,
    "stacked_blocks": (),
    "splits": (1,),
    "scale_form": "tanh",
    "conditional_prior": True,
    "told_noise": 4.0,
    "draw_noise": 2.0,
}
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def model():
    """Parameters with every value moved, an HR and an LR image."""
    config = from_dict(SRFlowConfig, VALUES)
    params = moved(FAMILY.init(config, KEY))
    hr = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3))
    return params, hr, hr[:, ::4, ::4]


def test_latents_and_likelihood_belong_together(model):
    params, hr, lr = model
    for sigma in (None, jnp.array([0.5, 4.0])):
        latents, log_prob = flowsr_jax.encode(params, hr, lr, sigma=sigma)
        again = flowsr_jax.decode(params, latents, lr, sigma=sigma)
        np.testing.assert_allclose(again, hr, atol=2e-5)
    told = flowsr_jax.encode(params, hr, lr, sigma=jnp.array([0.0, 4.0]))[1]
    untold = flowsr_jax.encode(params, hr, lr)[1]
    assert told[0] == pytest.approx(float(untold[0]), rel=1e-5)
    assert abs(float(told[1] - untold[1])) > 1e-3
    assert np.all(np.isfinite(log_prob))


def test_the_prior_shifts_and_scales_what_is_drawn(model):
    """At temperature 0 the latents are the predicted means, so z = 0 decodes to that image."""
    params, _, lr = model
    zeros = [jnp.zeros(s) for s in FAMILY.latent_shapes(params.config, lr.shape)]
    image = flowsr_jax.sample(params, lr, KEY, temperature=0.0, sigma=0.0)
    np.testing.assert_allclose(image, flowsr_jax.decode(params, zeros, lr), atol=1e-5)
    plain = jax.tree.map(jnp.zeros_like, params["flow"]["multiscale"]["level2"]["prior"])
    flow = {**params["flow"]["multiscale"]}
    flow["level2"] = {**flow["level2"], "prior": plain}
    other = params.replace(flow={**params["flow"], "multiscale": flow})
    assert float(jnp.abs(flowsr_jax.decode(other, zeros, lr) - image).max()) > 1e-3


def test_denoising_is_the_score_step(model):
    params, _, lr = model
    noise = [0.1 * jax.random.normal(KEY, s) for s in FAMILY.latent_shapes(params.config, lr.shape)]
    drawn = flowsr_jax.sample(params, lr, None, noise=noise, sigma=3.0, denoise=False)
    got = flowsr_jax.sample(params, lr, None, noise=noise, sigma=3.0)
    score = jax.grad(lambda x: jnp.sum(FAMILY.encode(params, x, lr, sigma=3.0)[1]))(drawn)
    np.testing.assert_allclose(got, drawn + (3.0 / 255) ** 2 * score, atol=1e-5)
    default = flowsr_jax.sample(params, lr, None, noise=noise)
    asked = flowsr_jax.sample(params, lr, None, noise=noise, sigma=2.0)
    np.testing.assert_array_equal(default, asked)


def test_told_noise_has_the_deviation_that_is_told():
    config = from_dict(SRFlowConfig, VALUES)
    hr = jnp.full((64, 32, 32, 3), 0.5)
    out, told = noisy(config, KEY, hr, noise="told")
    assert told.shape == (64,) and float(told.min()) >= 0 and float(told.max()) <= 4
    assert float(told.max() - told.min()) > 3
    measured = jnp.std(255 * (out - hr), axis=(1, 2, 3))
    wanted = jnp.sqrt(told**2 + 1 / 12)  # that of one grey level's width besides
    np.testing.assert_allclose(measured, wanted, rtol=0.07)


def test_what_cannot_be_told_is_refused(model):
    params, hr, lr = model
    with pytest.raises(ValueError, match="from 0 to 4 grey levels, got 5"):
        flowsr_jax.encode(params, hr, lr, sigma=5.0)
    with pytest.raises(ValueError, match="from 0 to 4 grey levels"):
        flowsr_jax.sample(params, lr, KEY, sigma=-1.0)
    with pytest.raises(ConfigError, match="draw_noise = 5 must be at most told_noise = 4"):
        from_dict(SRFlowConfig, {**VALUES, "draw_noise": 5.0})
    plain = from_dict(SRFlowConfig, {**VALUES, "told_noise": 0.0, "draw_noise": 0.0})
    with pytest.raises(ConfigError, match="told_noise above 0"):
        noisy(plain, KEY, hr, noise="told")
    untold = FAMILY.init(plain, KEY)
    with pytest.raises(ValueError, match="told no noise"):
        flowsr_jax.sample(untold, lr, KEY, sigma=1.0)
    with pytest.raises(ConfigError, match="did you mean 'told'"):
        noisy(plain, KEY, hr, noise="tld")


def test_saved_folders_remember_the_options(model, tmp_path):
    params, hr, lr = model
    flowsr_jax.save(params, tmp_path / "m")
    again = flowsr_jax.load(tmp_path / "m")
    assert again.config == params.config
    with pytest.raises(ConfigError, match="conditional_prior, told_noise"):
        flowsr_jax.to_torch(params, tmp_path / "m.pth")
