"""The public verbs of the families that draw images from nothing: Glow, RealNVP and NICE."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flowsr_jax
from flowsr_jax.models import get_family

SHAPE = (8, 8, 3)
CONFIGS = {
    "glow": {"levels": 2, "steps": 1, "hidden": 4, "size": 8},
    "conditional": {"levels": 2, "steps": 1, "hidden": 4, "size": 8, "classes": 3},
    "realnvp": {"scales": 2, "dim": 2, "blocks": 1, "size": 8},
    "nice": {"shape": SHAPE, "couplings": 2, "layers": 1, "hidden": 4},
}
MULTIPLE = {"glow": 4, "conditional": 4, "realnvp": 2}


@pytest.fixture(scope="module", params=CONFIGS)
def case(request):
    """(name, parameters, options that every call of this model needs)."""
    family = get_family({"conditional": "glow"}.get(request.param, request.param))
    params = jax.jit(family.init, static_argnums=0)(
        family.config_class(**CONFIGS[request.param]), jax.random.key(0)
    )
    return request.param, params, {"label": 1} if request.param == "conditional" else {}


@pytest.fixture(scope="module")
def hr():
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, *SHAPE)) / 255, jnp.float32)


def test_draw_encode_decode_and_measure(case, hr):
    _, params, label = case
    drawn = flowsr_jax.sample(
        params, None, jax.random.key(1), num_samples=2, temperature=0.5, **label
    )
    assert drawn.shape == (2, *SHAPE) and drawn.dtype == jnp.float32
    again = flowsr_jax.sample(
        params, None, jax.random.key(1), shape=(2, *SHAPE), temperature=0.5, **label
    )
    np.testing.assert_array_equal(drawn, again)
    assert not np.array_equal(drawn[0], drawn[1])

    latents, log_prob = flowsr_jax.encode(params, hr, **label)
    assert isinstance(latents, list) and log_prob.shape == (2,)
    np.testing.assert_allclose(flowsr_jax.decode(params, latents, **label), hr, atol=1e-4)
    bits = flowsr_jax.bits_per_dim(params, hr, **label)
    want = -np.asarray(log_prob) / (np.log(2) * hr[0].size) + np.log2(255)
    np.testing.assert_allclose(bits, want, rtol=1e-5)
    noisy = flowsr_jax.bits_per_dim(params, hr, key=jax.random.key(2), **label)
    assert noisy.shape == (2,) and not np.array_equal(noisy, bits)


def test_the_verbs_can_be_traced(case, hr):
    """Traced only: what they give is tested above, and compiling is slow."""
    _, params, label = case

    def everything(params, hr, key, label):
        latents, _ = flowsr_jax.encode(params, hr, **label)
        drawn = flowsr_jax.sample(params, None, key, temperature=0.7, **label)
        bits = flowsr_jax.bits_per_dim(params, hr, key=key, **label)
        return flowsr_jax.decode(params, latents, **label), drawn, bits

    label = {name: jnp.int32(value) for name, value in label.items()}
    found = jax.eval_shape(everything, params, hr, jax.random.key(3), label)
    assert [x.shape for x in found] == [hr.shape, (1, *SHAPE), (2,)]


def calls(params, hr, **options):
    """Every verb on images of the shape of hr."""
    key, config = jax.random.key(0), params.config
    yield lambda: flowsr_jax.sample(params, None, key, shape=hr.shape, **options)
    yield lambda: flowsr_jax.encode(params, hr, **options)
    yield lambda: flowsr_jax.bits_per_dim(params, hr, **options)
    if hr.shape[1:] == config.image_shape:
        family = get_family(config.family)
        shapes = family.latent_shapes(config, hr.shape)
        latents = [jnp.zeros(s) for s in shapes]
        yield lambda: flowsr_jax.decode(params, latents, **options)


def refused(message, params, hr, **options):
    for call in calls(params, hr, **options):
        with pytest.raises((ValueError, TypeError), match=message):
            call()


def test_labels(case, hr):
    name, params, _ = case
    if name != "conditional":
        return refused(rf"this {params.config.family} has no classes", params, hr, label=0)
    refused("class-conditional: give label, 0 to 2", params, hr)
    refused("label = 3 is out of range: 0 to 2", params, hr, label=3)
    refused("label = -1 is out of range: 0 to 2", params, hr, label=[0, -1])
    refused(r"one per image, \[2\], got shape \(3,\)", params, hr, label=np.arange(3))
    refused("label must be an integer", params, hr, label=[0.0, 1.0])
    one = flowsr_jax.bits_per_dim(params, hr, label=[0, 2])
    np.testing.assert_array_equal(one, flowsr_jax.bits_per_dim(params, hr, label=jnp.array([0, 2])))
    assert flowsr_jax.sample(params, None, jax.random.key(0), label=[0, 1, 2]).shape == (3, *SHAPE)


def test_sizes(case):
    name, params, label = case
    if name == "nice":
        message = r"this NICE takes examples of shape \(8, 8, 3\) only, got \(16, 8, 3\)"
        refused(message, params, jnp.zeros((1, 16, 8, 3)), **label)
    else:
        m = MULTIPLE[name]
        message = rf"multiples of {m}, got {2 * m + 1}x8; take {2 * m}x8, or {3 * m}x\d"
        refused(message, params, jnp.zeros((1, 2 * m + 1, 8, 3)), **label)
        if m == 4:
            refused("multiples of 4, got 2x8; take 4x8$", params, jnp.zeros((1, 2, 8, 3)), **label)
        other = jnp.full((1, 2 * m, 8, 3), 0.5)  # any other multiple is as good
        assert flowsr_jax.encode(params, other, **label)[1].shape == (1,)
    refused("channels|shape", params, jnp.zeros((1, 8, 8, 1)), **label)


def test_an_lr_image_is_refused(case, hr):
    _, params, label = case
    lr = hr[:, ::2, ::2]
    latents, _ = flowsr_jax.encode(params, hr, **label)
    for call in (
        lambda: flowsr_jax.sample(params, lr, jax.random.key(0), **label),
        lambda: flowsr_jax.encode(params, hr, lr, **label),
        lambda: flowsr_jax.decode(params, latents, lr, **label),
        lambda: flowsr_jax.bits_per_dim(params, hr, lr, **label),
    ):
        with pytest.raises(ValueError, match="None for lr|needs no lr here"):
            call()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"shape": (8, 8)}, "shape must be that of one image"),
        ({"shape": (2, *SHAPE), "num_samples": 3}, "do not agree"),
        ({"num_samples": 0}, "num_samples must be None or an integer >= 1"),
        ({"temperature": -1.0}, "temperature must be finite and >= 0"),
        ({"temperature": [0.5, 0.7]}, r"one per image, \[1\], got shape \(2,\)"),
        ({"noise": [np.zeros((1, 3, 3, 3))]}, "noise must have shapes"),
    ],
)
def test_bad_requests_of_draws(case, options, message):
    _, params, label = case
    with pytest.raises((ValueError, TypeError), match=message):
        flowsr_jax.sample(params, None, jax.random.key(0), **options, **label)


def test_bad_images_and_latents(case, hr):
    _, params, label = case
    with pytest.raises(TypeError, match="hr must be float.*divide by 255"):
        flowsr_jax.encode(params, np.asarray(255 * hr).astype(np.uint8), **label)
    with pytest.raises(ValueError, match="non-finite"):
        flowsr_jax.encode(params, hr.at[0, 0, 0, 0].set(jnp.nan), **label)
    with pytest.raises(ValueError, match="latents must have shapes"):
        flowsr_jax.decode(params, [hr[..., :1]], **label)
