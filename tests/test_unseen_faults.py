"""Faults that were planted and that no other test saw, one test for each kind.

Each compares with what the definition says, at values where a wrong form differs from it.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import train_cases
from train_cases import TinyConfig

import flowsr_jax
from flowsr_jax.bijectors import Conv1x1PLU
from flowsr_jax.diffusion.schedules import ScheduleConfig
from flowsr_jax.math.back_projection import RELAXATION, back_project
from flowsr_jax.math.resize import imresize
from flowsr_jax.models import base, get_family
from flowsr_jax.models.irn.config import IRNConfig
from flowsr_jax.models.rrdb.config import RRDBConfig
from flowsr_jax.models.sr3 import losses as sr3_losses
from flowsr_jax.models.sr3.config import SR3Config
from flowsr_jax.models.srflow.config import SRFlowConfig
from flowsr_jax.nets.unet import UNetConfig

ENCODER = RRDBConfig(scale=2, nf=4, gc=2, nb=1)


@pytest.mark.parametrize("temperature", [0.5])
def test_latents_of_srflow_are_temperature_times_noise(temperature):
    config = SRFlowConfig(ENCODER, steps=(1, 1), hidden=4, stacked_blocks=(0,))
    params = get_family("srflow").init(config, jax.random.key(0))
    lr = jax.random.uniform(jax.random.key(1), (1, 4, 4, 3))
    latents = {}
    for t in (temperature, 1.0):
        image = flowsr_jax.sample(params, lr, jax.random.key(2), temperature=t)
        latents[t], _ = flowsr_jax.encode(params, image, lr)
    for small, whole in zip(latents[temperature], latents[1.0], strict=True):
        np.testing.assert_allclose(small, temperature * whole, atol=1e-4)
        assert 0.5 < float(jnp.std(whole)) < 1.5


def test_the_noise_of_a_density_is_centred_and_one_level_wide():
    def encode(params, hr, lr):
        del params, lr
        flat = hr.reshape(len(hr), -1)
        return [], jnp.stack([flat[0].sum(), flat[1].min() * flat[1].size])

    family = dataclasses.replace(train_cases.FAMILY, encode=encode)
    params = family.init(TinyConfig(), jax.random.key(0))
    hr, lr = jnp.full((2, 64, 64, 3), 0.5), jnp.full((2, 32, 32, 3), 0.5)
    with base.FAMILIES.using("tiny", family):
        plain, noisy = (
            flowsr_jax.bits_per_dim(params, hr, lr, key) for key in (None, jax.random.key(0))
        )
    mean, least = 255 * math.log(2) * np.asarray(plain - noisy)
    assert abs(mean) < 0.02, "grey levels: 0.29 / sqrt(12288) is their deviation"
    assert least + 1e-3 >= -0.5 and least < -0.49


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_the_permutation_and_the_signs_of_plu_are_not_trained(direction):
    layer = Conv1x1PLU()
    params = layer.init(jax.random.key(0), (2, 2, 4))
    x = jax.random.normal(jax.random.key(1), (1, 2, 2, 4))

    def scalar(params):
        y, logdet = getattr(layer, direction)(params, x)
        return jnp.sum(y**3) + jnp.sum(logdet)

    grads = jax.grad(scalar)(params)
    for name, grad in grads.items():
        assert bool(jnp.any(grad)) == (name not in ("p", "sign_s")), name


def test_irn_trains_with_the_deviation_of_its_config():
    family = get_family("irn")
    batch = {"hr": jax.random.uniform(jax.random.key(1), (1, 4, 4, 3))}
    found = {}
    for temperature in (None, 0.0, 1.0):
        config = IRNConfig(scale=1, blocks=(1,), growth=2, temperature=temperature)
        params = family.init(config, jax.random.key(0))
        # Last convolutions begin at zero: z would not reach the image.
        params = jax.tree.map(lambda x: x + 0.05, params)
        grey = batch["hr"].mean(-1, keepdims=True)
        loss = jax.jit(family.losses["rescale"])
        found[temperature] = [
            float(loss(params, {}, {**batch, "lr": grey}, jax.random.key(k))[0]) for k in (2, 3)
        ]
    assert found[None][0] == found[None][1], "IRN-Color is trained with z = 0"
    assert found[0.0] == found[None] and abs(found[1.0][0] - found[1.0][1]) > 1e-3


def test_labels_and_conditions_are_dropped_independently(monkeypatch):
    class Seen(Exception):
        pass

    def capture(params, x0, cond, noise, level, **options):
        del params, x0, noise, level
        raise Seen(np.asarray(cond), np.asarray(options["label"]))

    monkeypatch.setattr(sr3_losses, "denoising_loss", capture)
    unet = UNetConfig(channels=8, multipliers=(1,), res_blocks=1, norm_groups=4, attn_res=())
    config = SR3Config(scale=1, unet=unet, classes=3, schedule=ScheduleConfig(steps=4, end=0.4))
    params = base.Params({}, config)
    images = jnp.full((64, 2, 2, 3), 0.75)
    batch = {"hr": images, "lr": images, "label": jnp.zeros(64, jnp.int32)}
    with pytest.raises(Seen) as seen:
        sr3_losses.eps_loss(
            params, {}, batch, jax.random.key(0), drop_label=0.5, drop_condition=0.5
        )
    cond, label = seen.value.args
    no_condition, no_label = ~cond.any(axis=(1, 2, 3)), label == config.classes
    for dropped in (no_condition, no_label):
        assert 16 < dropped.sum() < 48
    assert 16 < (no_condition == no_label).sum() < 48


@pytest.mark.parametrize("iterations", [1, 2, 3, 4])
def test_back_projection_is_the_plain_recursion(iterations):
    """With dense matrices: the first and the last step are whole, the others over-relaxed."""
    rng = np.random.default_rng(0)
    lr, sr = rng.choice([0.0, 1.0], (3, 3)), rng.uniform(0, 1, (6, 6))
    down = np.stack([imresize(e.reshape(6, 6), 0.5).ravel() for e in np.eye(36)], axis=1)
    up, x = np.linalg.pinv(down), sr.ravel()
    for i in range(iterations):
        factor = 1 if i in (0, iterations - 1) else RELAXATION
        x = np.clip(x + factor * up @ (lr.ravel() - down @ x), 0, 1)
    np.testing.assert_allclose(
        back_project(sr, lr, 2, iterations=iterations).ravel(), x, atol=1e-10
    )


@pytest.mark.parametrize(("levels", "power"), [("paper", 2), ("public", 1)])
def test_levels_are_uniform_in_what_the_form_says(levels, power):
    """One wide step, from gamma = 1 to 0.1, where gamma and its root differ."""
    config = SR3Config(schedule=ScheduleConfig(steps=1, start=0.9))
    drawn = np.asarray(sr3_losses.draw_levels(config, jax.random.key(0), 4000, levels)) ** power
    low = 0.1 if power == 2 else math.sqrt(0.1)
    deviation = (1 - low) / math.sqrt(12 * 4000)
    assert drawn.min() >= low - 1e-6 and drawn.max() <= 1
    assert abs(drawn.mean() - (1 + low) / 2) < 5 * deviation
