"""Classes, guidance, holes, condition noise and residuals of the SR3 family."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flowsr_jax
from flowsr_jax.config import ConfigError, from_dict, to_dict
from flowsr_jax.diffusion import process
from flowsr_jax.diffusion.schedules import ScheduleConfig
from flowsr_jax.math import holes
from flowsr_jax.models import Params, get_family
from flowsr_jax.models.sr3.condition import condition, drop, to_draw
from flowsr_jax.models.sr3.config import SR3Config
from flowsr_jax.models.sr3.losses import denoising_loss, draw_levels, eps_loss
from flowsr_jax.models.sr3.network import init, network, predict_noise
from flowsr_jax.models.sr3.sample import sample
from flowsr_jax.nets.unet import UNetConfig

UNET = UNetConfig(
    channels=8,
    multipliers=(1, 2),
    res_blocks=1,
    attn_res=(),
    mid_attention=False,
    image_size=8,
    norm_groups=4,
    dropout=0.0,
)
FROM_NOTHING = SR3Config(
    scale=1,
    unet=dataclasses.replace(UNET, cond_channels=0),
    classes=3,
    schedule=ScheduleConfig(steps=10, end=0.9),
)
KEY = jax.random.key(0)


def build(**fields):
    base = SR3Config(scale=1, unet=UNET, schedule=ScheduleConfig(steps=10, end=0.9))
    return init(dataclasses.replace(base, **fields), KEY)


@pytest.fixture(scope="module")
def classy():
    return init(FROM_NOTHING, KEY)


def test_images_from_nothing(classy):
    draw = functools.partial(flowsr_jax.sample, classy, None, KEY, steps=3)
    two = draw(num_samples=2)
    assert two.shape == (2, 8, 8, 3) and np.all(np.isfinite(two))
    assert draw(shape=(6, 10, 3), label=1).shape == (1, 6, 10, 3)
    assert draw(label=jnp.array([0, 2])).shape == (2, 8, 8, 3)
    x_T = jax.random.normal(KEY, (2, 8, 8, 3))
    given = flowsr_jax.sample(
        classy, None, None, x_T=x_T, sampler="ddim", steps=3, label=jnp.array([0, 2])
    )
    assert given.shape == (2, 8, 8, 3)
    # A class of its own for each image.
    alone = sample(classy, None, None, x_T=x_T[1:], sampler="ddim", steps=3, label=2)
    np.testing.assert_allclose(given[1:], alone, atol=1e-5)
    states = draw(num_samples=2, trajectory=3)
    assert states.shape == (3, 2, 8, 8, 3)
    np.testing.assert_array_equal(states[-1], two)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"shape": (8, 8)}, r"shape must be that of one image, as \(8, 8, 3\)"),
        ({"shape": (8, 8, 1)}, "shape must be that"),
        ({"shape": (2, 8, 8, 3), "num_samples": 3}, "do not agree"),
        ({"label": 3}, "label = 3 is out of range: 0 to 2"),
        ({"label": 0.5}, "label must be an integer"),
        ({"guidance": 2.0}, "guidance needs label"),
        ({"guidance": -1.0, "label": 1}, r"guidance must be one number in \[0, inf\], got -1.0"),
        ({"cond_level": 0.5}, "needs a model with augmented = True"),
        ({"x_T": np.zeros((1, 8, 8, 1))}, r"x_T must have the shape \(1, 8, 8, 3\)"),
    ],
)
def test_bad_options_of_images_from_nothing(classy, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        sample(classy, None, KEY, **options)


def test_lr_and_shape_exclude_each_other(classy):
    with pytest.raises(ValueError, match="shape = .* is for lr = None"):
        sample(classy, jnp.zeros((1, 8, 8, 3)), KEY, shape=(8, 8, 3))
    with pytest.raises(ValueError, match="lr must be .* got None"):
        flowsr_jax.sample(build(), None, KEY)
    with pytest.raises(ValueError, match="has no classes"):
        sample(build(), jnp.zeros((1, 8, 8, 3)), KEY, label=1)


def one_step(params, x_T, **options):
    """The only step of a chain returns the predicted image itself."""
    return 2 * sample(params, None, None, x_T=x_T, steps=1, clip="none", **options) - 1


def test_guidance_is_the_formula(classy):
    x = jax.random.normal(KEY, (2, 8, 8, 3))
    label, w = jnp.array([0, 2]), 2.5
    level = jnp.sqrt(jnp.full((2,), float(np.prod(1 - np.linspace(1e-6, 0.9, 10)))))
    eps = [
        predict_noise(classy, x, level, None, label=label),
        predict_noise(classy, x, level),  # no class
    ]
    assert not np.allclose(*eps, atol=1e-3)
    want = process.predictions("eps", process.guide(*eps, w), x, level**2)[0]
    got = one_step(classy, x, label=label, guidance=w)
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(
        one_step(classy, x, label=label, guidance=1.0), one_step(classy, x, label=label), rtol=1e-4
    )


def test_guidance_without_classes_leaves_out_the_condition():
    params, x = build(), jax.random.normal(KEY, (1, 8, 8, 3))
    lr = jax.random.uniform(KEY, x.shape)
    level = jnp.sqrt(jnp.full((1,), float(np.prod(1 - np.linspace(1e-6, 0.9, 10)))))
    cond = condition(params.config, lr)
    eps = [predict_noise(params, x, level, c) for c in (cond, jnp.zeros_like(cond))]
    want = process.predictions("eps", process.guide(*eps, 3.0), x, level**2)[0]
    got = sample(params, lr, None, x_T=x, steps=1, clip="none", guidance=3.0)
    np.testing.assert_allclose(2 * got - 1, want, rtol=1e-3, atol=1e-3)


def test_drops_and_labels_in_training(classy):
    value = jnp.arange(20_000)
    gone = np.asarray(drop(KEY, value, -1, 0.1)) == -1
    assert abs(gone.mean() - 0.1) < 0.011  # five standard errors
    assert drop(KEY, value, -1, 0.0) is value
    hr = jax.random.uniform(KEY, (2, 8, 8, 3))
    batch = {"hr": hr, "lr": hr, "label": jnp.array([0, 2])}
    loss = jax.jit(functools.partial(eps_loss, drop_label=0.5))
    value, _ = loss(classy, {}, batch, KEY)
    other, _ = loss(classy, {}, {**batch, "label": jnp.array([1, 1])}, KEY)
    assert np.isfinite(value) and value != other
    with pytest.raises(ConfigError, match="classes = 3, but the data bring no labels"):
        eps_loss(classy, {}, {"hr": hr, "lr": hr}, KEY)
    with pytest.raises(ConfigError, match="drop_label = 1"):
        eps_loss(classy, {}, batch, KEY, drop_label=1.0)
    view = get_family("sr3").views(classy.config, "eps")[0]
    assert jax.eval_shape(view.sample, classy, hr, KEY).shape == hr.shape


def marked(image, mask):
    return jnp.asarray(holes.mark(np.asarray(np.rint(255 * image), np.uint8), mask) / 255.0)


@pytest.fixture(scope="module")
def holed():
    """Two images; the first has a hole."""
    image = np.random.default_rng(0).uniform(0.1, 0.9, (2, 8, 8, 3))
    mask = np.zeros((2, 8, 8), bool)
    mask[0, 2:6, 1:5] = True
    lr = jnp.stack([marked(i, m) for i, m in zip(image, mask, strict=True)]).astype(jnp.float32)
    return lr, mask[..., None]


def test_marks_are_found(holed):
    lr, mask = holed
    np.testing.assert_array_equal(holes.find(lr), mask)
    close = np.array([[(255, 0, 254), (255, 0, 255)]], np.uint8)
    assert holes.mark(close, np.zeros((1, 2), bool)).tolist() == [[[255, 0, 254], [254, 0, 255]]]
    assert not holes.find(np.float32(close[:, :1]) / 255).any()


@pytest.mark.parametrize("mode", ["always", "some"])
def test_only_holes_are_drawn(holed, mode):
    lr, mask = holed
    params = build(holes=mode)
    out = np.asarray(sample(params, lr, KEY, steps=2, num_samples=2))
    assert out.shape == (2, 2, 8, 8, 3)
    kept = ~np.broadcast_to(mask, lr.shape)
    np.testing.assert_array_equal(
        out[:, 0][:, kept[0]], np.asarray(lr)[None, 0][:, kept[0]].repeat(2, 0)
    )
    assert not np.allclose(out[0, 0][mask[0, ..., 0]], out[1, 0][mask[0, ..., 0]])
    assert np.array_equal(out[0, 1], lr[1]) == (mode == "always")
    # The fill is an argument too.
    noise = [jax.random.normal(jax.random.key(i), lr.shape) for i in range(3)]
    run = functools.partial(sample, params, lr, None, x_T=noise[0], sampler="ddim", steps=2)
    assert not np.allclose(run(cond_noise=noise[1]), run(cond_noise=noise[2]), atol=1e-5)
    with pytest.raises(ValueError, match="give a key, or cond_noise"):
        run()


def test_the_loss_counts_holes_alone(holed):
    lr, mask = holed
    params = build(holes="some")
    assert to_draw(params.config, lr)[1].all()
    fill = jax.random.normal(KEY, lr.shape)
    cond = condition(params.config, lr, fill)
    np.testing.assert_array_equal(jnp.where(mask, cond, 0), jnp.where(mask, fill, 0))
    np.testing.assert_allclose(jnp.where(mask, 0, cond), jnp.where(mask, 0, 2 * lr - 1), atol=1e-6)
    x0, level = 2 * lr - 1, jnp.array([0.9, 0.5])
    noise = jax.random.normal(jax.random.key(1), lr.shape)
    loss, metrics = denoising_loss(params, x0, cond, noise, level, mask=mask, norm="l2")
    out = network(params, process.q_sample(x0, noise, level), level, cond)
    error = np.square(out - noise)[np.broadcast_to(mask, out.shape)]
    np.testing.assert_allclose([loss, metrics["mse"]], error.mean(), rtol=1e-5)
    value, _ = jax.jit(eps_loss)(params, {}, {"hr": lr, "lr": lr}, KEY)
    assert np.isfinite(value)


def test_condition_noise():
    params = build(augmented=True, scale=2)
    config = params.config
    lr = jax.random.uniform(KEY, (1, 4, 4, 3))
    noise = jax.random.normal(jax.random.key(1), lr.shape)
    noisy = 0.6 * (2 * lr - 1) + 0.8 * noise
    want = 2 * flowsr_jax.imresize((noisy + 1) / 2, 2) - 1
    np.testing.assert_allclose(condition(config, lr, noise, jnp.array([0.6])), want, atol=1e-5)
    cond = condition(config, lr)
    x, level = jax.random.normal(KEY, cond.shape), jnp.array([0.5])
    told = [network(params, x, level, cond, cond_level=c) for c in (None, 1.0 + 0 * level, level)]
    np.testing.assert_allclose(told[0], told[1], atol=1e-6)
    assert not np.allclose(told[0], told[2], atol=1e-4)
    clean = sample(params, lr, KEY, steps=2)
    images = sample(params, lr, KEY, steps=2, cond_level=0.6, num_samples=2)
    assert images.shape == (2, 1, 8, 8, 3) and not np.allclose(images[0], clean)
    seed = [jax.random.normal(KEY, (1, 8, 8, 3))]
    assert sample(params, lr, None, noise=seed, steps=2, cond_level=0.6).shape == clean.shape
    loss, _ = jax.jit(eps_loss)(params, {}, {"hr": clean, "lr": lr}, KEY)
    assert np.isfinite(loss)
    with pytest.raises(ValueError, match=r"cond_level must be one number in \[0, 1\]"):
        sample(params, lr, KEY, cond_level=1.5)


def test_residuals(monkeypatch):
    """A network that predicts no residual gives the condition; clipping is the image's."""
    params = build(residual=4.0, scale=2, prediction="x0")
    zeros = Params(jax.tree.map(jnp.zeros_like, params.tree), params.config)
    lr = jax.random.uniform(KEY, (1, 3, 4, 3))
    cond = condition(params.config, lr)
    out = sample(zeros, lr, KEY, steps=3)
    assert out.shape == (1, 6, 8, 3)
    np.testing.assert_allclose(2 * out - 1, cond, atol=1e-5)
    final = zeros["unet"]["final_conv"]
    final = {**final, "conv": {**final["conv"], "b": jnp.full((3,), 9.0)}}
    large = zeros.replace(unet={**zeros["unet"], "final_conv": final})
    np.testing.assert_allclose(sample(large, lr, KEY, steps=3), jnp.ones_like(cond), atol=1e-5)
    want = (cond + 9 / 4 + 1) / 2
    np.testing.assert_allclose(sample(large, lr, KEY, steps=3, clip="none"), want, atol=1e-5)
    # The loss regresses the difference: here 4 * 0.25.
    batch = {"hr": (cond + 0.25 + 1) / 2, "lr": lr}
    loss, _ = eps_loss(zeros, {}, batch, KEY)
    np.testing.assert_allclose(loss, 1.0, rtol=1e-4)


def test_score_networks():
    """Discrete levels, and annealed Langevin dynamics as the model's default sampler."""
    config = SR3Config(
        scale=1,
        unet=dataclasses.replace(UNET, cond_channels=0),
        schedule=ScheduleConfig("geometric", 4, 0.05, 20.0),
    )
    levels = np.asarray(draw_levels(config, KEY, 1000, "discrete"))
    want = 1 / np.sqrt(1 + np.geomspace(20.0, 0.05, 4) ** 2)
    found, counts = np.unique(levels, return_counts=True)
    np.testing.assert_allclose(found, want, rtol=1e-5)
    assert counts.min() > 180
    sampler = {"name": "langevin", "corrector_steps": 2, "clip": "none", "step_size": 1e-4}
    config = from_dict(SR3Config, {**to_dict(config), "sampler": sampler})
    params = init(config, KEY)
    out = sample(params, None, KEY, num_samples=2)
    assert out.shape == (2, 8, 8, 3) and np.all(np.isfinite(out))
    noises = jax.random.normal(KEY, (4, 2, 1, 8, 8, 3))
    x_T = jax.random.normal(KEY, (1, 8, 8, 3))
    assert sample(params, None, None, x_T=x_T, corrector_noises=noises).shape == x_T.shape
    with pytest.raises(ValueError, match="give a key, or corrector_noises"):
        sample(params, None, None, x_T=x_T)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"classes": -1}, "classes = -1"),
        ({"holes": "maybe"}, "None, 'always', 'some'"),
        ({"holes": "always", "scale": 2}, "needs scale = 1"),
        ({"holes": "always", "residual": 1.0}, "neither augmented nor residual"),
        ({"augmented": True, "unet": FROM_NOTHING.unet}, "augmented need a condition"),
    ],
)
def test_bad_configs(fields, message):
    with pytest.raises(ConfigError, match=message):
        SR3Config(**{"scale": 1, "unet": UNET, **fields})
    with pytest.raises(ConfigError, match="head_channels = 5 must be 0 or divide .* \\[16\\]"):
        dataclasses.replace(UNET, head_channels=5, mid_attention=True)
