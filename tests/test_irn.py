"""IRN: exact round trips, verbs, losses, configurations, importer, and one error per bad input."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flowsr_jax
from flowsr_jax.config import ConfigError, from_dict, to_dict
from flowsr_jax.models.importer import state_dict
from flowsr_jax.models.irn import FAMILY, IRNConfig, compression
from flowsr_jax.models.irn.compression import RestorerConfig
from flowsr_jax.models.irn.discriminator import DiscriminatorConfig
from flowsr_jax.models.irn.losses import draw_z, rescale_loss, rescale_terms
from flowsr_jax.models.irn.network import init
from flowsr_jax.models.irn.plus import init_state, without_plus
from flowsr_jax.models.irn.sample import decode, downscale, encode, upscale
from flowsr_jax.models.irn.weights import constants, discriminator_rules, irn_rules

# For programs that run once or so: half the time to compile.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
TINY = IRNConfig(scale=2, blocks=(1,), growth=4)
FORMS = {
    "x2": TINY,
    "x2 learned": IRNConfig(scale=2, blocks=(1,), growth=4, down="learned"),
    "x3": IRNConfig(scale=3, blocks=(2,), growth=4),
    "x4": IRNConfig(scale=4, blocks=(1, 1), growth=4),
    "x4 haar first": IRNConfig(scale=4, blocks=(1,), growth=4, down="haar_first"),
    "x8": IRNConfig(scale=8, blocks=(1, 1, 1), growth=4),
    "color": IRNConfig(scale=1, blocks=(1,), growth=4),
}


def make(config):
    """Parameters moved away from their start, where every block is the identity."""
    rng = np.random.default_rng(0)
    params = init(config, jax.random.key(0))
    return jax.tree.map(
        lambda p: p + 0.05 * rng.standard_normal(p.shape).astype(np.float32), params
    )


@functools.cache
def tiny(name="x2"):
    return make(FORMS[name])


def picture(h, w, batch=1, seed=1):
    return jax.random.uniform(jax.random.key(seed), (batch, h, w, 3))


@pytest.mark.parametrize("name", FORMS)
def test_exact_round_trip_before_quantisation(name):
    config, params = FORMS[name], tiny(name)
    s = config.scale
    hr = picture(2 * s, 3 * s, batch=2)
    forward, inverse = quick_jit(encode), quick_jit(decode)
    (lr, z), likelihood = forward(params, hr)
    assert likelihood is None
    assert lr.shape == (2, 2, 3, config.channels)
    assert [lr.shape, z.shape] == FAMILY.latent_shapes(config, lr.shape)
    assert lr.size + z.size == hr.size
    np.testing.assert_allclose(inverse(params, [lr, z]), hr, atol=2e-5)
    moved = inverse(params, [lr, z + 0.1])
    assert float(jnp.max(jnp.abs(moved - hr))) > 1e-3


@pytest.mark.parametrize("name", ["x3", "x4", "color"])
def test_at_first_the_lr_image_is_the_box_mean(name):
    config = FORMS[name]
    s = config.scale
    hr = picture(2 * s, 3 * s)
    lr = quick_jit(downscale, static_argnames="quantize")(
        init(config, jax.random.key(0)), hr, quantize=False
    )
    box = hr.reshape(1, 2, s, 3, s, 3).mean((2, 4))
    if name == "color":
        box = box @ jnp.asarray([[0.299], [0.587], [0.114]])
    np.testing.assert_allclose(lr, box, atol=1e-6)


def test_downscale_gives_8_bit_values():
    params, hr = tiny(), picture(8, 6, batch=2)
    levels, exact = downscale(params, hr), downscale(params, hr, quantize=False)
    assert levels.shape == (2, 4, 3, 3) and levels.dtype == jnp.uint8
    assert exact.dtype == jnp.float32
    np.testing.assert_array_equal(levels, np.rint(np.clip(exact, 0, 1) * 255).astype(np.uint8))


def test_upscale_takes_a_key_or_z_or_neither():
    params = tiny()
    levels = downscale(params, picture(8, 6))
    z = jax.random.normal(jax.random.key(3), (1, 4, 3, 9))
    zero = upscale(params, levels)
    assert zero.shape == (1, 8, 6, 3) and zero.dtype == jnp.float32
    np.testing.assert_array_equal(zero, upscale(params, levels, z=jnp.zeros_like(z)))
    np.testing.assert_allclose(zero, upscale(params, levels / 255.0), atol=1e-6)
    np.testing.assert_allclose(
        upscale(params, levels, z=z), decode(params, [levels / 255.0, z]), atol=1e-5
    )
    a = upscale(params, levels, jax.random.key(0))
    np.testing.assert_array_equal(a, upscale(params, levels, jax.random.key(0)))
    assert not np.allclose(a, upscale(params, levels, jax.random.key(1)), atol=1e-3)
    np.testing.assert_allclose(
        upscale(params, levels, jax.random.key(0), temperature=0.0), zero, atol=1e-6
    )


def test_sample_draws_as_every_family_does():
    params = tiny()
    lr = downscale(params, picture(8, 6)) / 255.0
    key = jax.random.key(5)
    many = FAMILY.sample(params, lr, key, temperature=0.5, num_samples=3)
    same = flowsr_jax.sample(params, lr, key, temperature=0.5, num_samples=3)
    np.testing.assert_array_equal(many, same)
    assert many.shape == (3, 1, 8, 6, 3) and float(jnp.std(many, axis=0).mean()) > 1e-3
    noise = [jax.random.normal(key, (3, *FAMILY.noise_shapes(params.config, lr.shape)[0]))]
    given = flowsr_jax.sample(
        params, lr, None, temperature=0.5, num_samples=3, noise=noise, restore=False
    )
    np.testing.assert_allclose(many, given, atol=1e-6)
    one = upscale(params, lr, z=0.5 * noise[0][1])
    np.testing.assert_allclose(many[1], one, atol=1e-5)


def bad(change):
    params, hr = tiny(), picture(8, 6)
    return change(params, hr, downscale(params, hr))


Z = (1, 4, 3, 9)
BAD_INPUTS = {
    "hr size": (
        lambda p, hr, lr: downscale(p, hr[:, :7]),
        ValueError,
        "hr height and width must be multiples of 2, got 7x6; crop .* to 6x6",
    ),
    "hr uint8": (lambda p, hr, lr: downscale(p, lr), TypeError, "divide by 255"),
    "hr range": (lambda p, hr, lr: downscale(p, hr * 255), ValueError, "0..255"),
    "hr NaN": (lambda p, hr, lr: downscale(p, hr * jnp.nan), ValueError, "non-finite"),
    "hr rank": (lambda p, hr, lr: downscale(p, hr[0]), ValueError, r"x\[None\]"),
    "hr channels": (lambda p, hr, lr: downscale(p, hr[..., :1]), ValueError, "3 channels"),
    "hr list": (lambda p, hr, lr: downscale(p, [[0.5]]), TypeError, "array"),
    "lr dtype": (lambda p, hr, lr: upscale(p, lr.astype(jnp.int32)), TypeError, "int32"),
    "lr range": (
        lambda p, hr, lr: upscale(p, lr.astype(jnp.float32)),
        ValueError,
        "divide by 255",
    ),
    "lr channels": (lambda p, hr, lr: upscale(p, lr[..., :2]), ValueError, "3 channels"),
    "z shape": (
        lambda p, hr, lr: upscale(p, lr, z=jnp.zeros((1, 4, 3, 8))),
        ValueError,
        r"z must have the shape \(1, 4, 3, 9\).*got \(1, 4, 3, 8\)",
    ),
    "key and z": (
        lambda p, hr, lr: upscale(p, lr, jax.random.key(0), z=jnp.zeros(Z)),
        ValueError,
        "key or z",
    ),
    "no key": (lambda p, hr, lr: upscale(p, lr, temperature=1.0), ValueError, "needs a key"),
    "key": (lambda p, hr, lr: upscale(p, lr, 0), TypeError, "PRNG key"),
    "temperature": (
        lambda p, hr, lr: upscale(p, lr, jax.random.key(0), temperature=-1.0),
        ValueError,
        ">= 0",
    ),
    "restorer": (lambda p, hr, lr: upscale(p, lr, restore=True), ValueError, "restorer"),
}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_bad_inputs(name):
    change, error, message = BAD_INPUTS[name]
    with pytest.raises(error, match=message) as caught:
        bad(change)
    print(f"{name}: {caught.value}")


BAD_CONFIGS = {
    "scale": ({"scale": 5}, "scale = 5 is not one of 1, 2, 3, 4, 8"),
    "Haar at 3": ({"scale": 3, "down": "haar"}, "'haar' is not one of 'learned'"),
    "color at 4": ({"scale": 4, "down": "color"}, "'color' is not one of 'haar'"),
    "blocks": ({"scale": 4, "blocks": (8,)}, r"blocks = \(8,\) must hold 2 number"),
    "no blocks": ({"scale": 2, "blocks": (0,)}, "at least 1"),
    "clamp": ({"clamp": 0.0}, "clamp"),
    "temperature": ({"temperature": -1.0}, "temperature"),
    "restorer": ({"restorer": {"nb": 0}}, "nb = 0 must be at least 1"),
    "discriminator": ({"discriminator": {"size": 16}}, "at least 32"),
    "name": ({"block": (1,)}, "did you mean 'blocks'"),
}


@pytest.mark.parametrize("name", BAD_CONFIGS)
def test_bad_configs(name):
    values, message = BAD_CONFIGS[name]
    with pytest.raises(ConfigError, match=message):
        from_dict(IRNConfig, values)


def count(config, group="generator"):
    shapes = jax.eval_shape(lambda key: init(config, key), jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes[group]))


def test_published_sizes():
    sizes = {1: 1_413_601, 2: 1_667_952, 3: 3_139_029, 4: 4_355_136, 8: 11_119_248}
    assert {s: count(IRNConfig(scale=s)) for s in sizes} == sizes
    full = IRNConfig(restorer=RestorerConfig(), discriminator=DiscriminatorConfig(), features=True)
    assert count(full, "restorer") == 5_795_843
    assert count(full, "discriminator") == 14_499_401
    assert count(full, "features") == 20_024_384
    assert from_dict(IRNConfig, to_dict(full)) == full


def listed(shared, name):
    lines = (shared / f"spec/keys/{name}.txt").read_text().splitlines()
    return sorted(line.split()[0] for line in lines if not line.startswith("#"))


def test_rules_cover_the_official_keys(shared):
    def keys(rules):
        return [k for rule in rules for k in rule.keys]

    for scale in (1, 2, 3, 4, 8):
        config = IRNConfig(scale=scale)
        name = "irn_color" if scale == 1 else f"irn_x{scale}"
        assert sorted([*keys(irn_rules(config)), *constants(config)]) == listed(shared, name)
    restorer = irn_rules(IRNConfig(restorer=RestorerConfig()))[len(irn_rules(IRNConfig())) :]
    assert sorted(keys(restorer)) == listed(shared, "irn_crm_R")
    wanted = [k for k in listed(shared, "irn_plus_D") if not k.endswith("num_batches_tracked")]
    assert sorted(keys(discriminator_rules(DiscriminatorConfig()))) == wanted


@pytest.mark.parametrize("name", FORMS)
def test_importer_infers_every_form(name):
    params = tiny(name)
    found = FAMILY.weights(state_dict(params))
    resolved = dataclasses.replace(found.config, down=found.config.form)
    assert resolved == dataclasses.replace(params.config, down=params.config.form)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(a, b)


def test_importer_refuses_what_does_not_fit():
    state = state_dict(tiny("x4"))
    recognise = FAMILY.weights.recognise
    assert recognise(state) and not recognise({"conv_first.weight": 0})
    changed = {**state, "operations.0.haar_weights": state["operations.0.haar_weights"] / 2}
    with pytest.raises(ValueError, match=r"operations\.0\.haar_weights holds no Haar filters"):
        FAMILY.weights(changed)
    missing = {k: v for k, v in state.items() if k != "operations.1.G.conv2.bias"}
    with pytest.raises(ValueError, match=r"1 missing \(first: operations\.1\.G\.conv2\.bias\)"):
        FAMILY.weights(missing)
    gap = {k: v for k, v in state.items() if not k.startswith("operations.1.")}
    with pytest.raises(ValueError, match=r"without gaps; found operations \[0, 2, 3\]"):
        FAMILY.weights(gap)


def test_rescale_loss():
    params = tiny()
    batch = {"hr": picture(8, 8, batch=2), "lr": picture(4, 4, batch=2, seed=2)}

    @quick_jit
    def loss(key):
        return rescale_loss(params, {}, batch, key, lr_noise=0.1)

    @quick_jit
    def without_noise(key):
        z = draw_z(jax.random.split(key, 3)[0], params.config, batch["lr"])
        return rescale_terms(params, batch["hr"], batch["lr"], z)

    quiet = 0
    for key in jax.random.split(jax.random.key(7), 20):
        value, (state, metrics) = loss(key)
        terms, image = without_noise(key)
        assert state == {} and set(metrics) == {*terms, "psnr"}
        np.testing.assert_allclose(value, sum(metrics[name] for name in terms), rtol=1e-6)
        np.testing.assert_allclose(metrics["l_forw_fit"], terms["l_forw_fit"], rtol=1e-6)
        # The noise on the LR image comes and goes with the step's coin.
        if np.isclose(metrics["l_back_rec"], terms["l_back_rec"], rtol=1e-6):
            mse = np.mean(np.square(np.clip(image, 0, 1) - batch["hr"]))
            np.testing.assert_allclose(metrics["psnr"], -10 * np.log10(mse), rtol=1e-4)
            quiet += 1
    assert 4 <= quiet <= 16
    with pytest.raises(ConfigError, match="'l1', 'l2'"):
        rescale_terms(params, batch["hr"], batch["lr"], None, forward_loss="l3")


def test_plus_losses_of_one_step():
    judge = DiscriminatorConfig(nf=2, size=32)
    config = dataclasses.replace(tiny().config, discriminator=judge)
    params, key = FAMILY.init(config, jax.random.key(0)), jax.random.key(1)
    batch = {"hr": picture(32, 32, batch=2), "lr": picture(16, 16, batch=2, seed=2)}
    state = init_state(config)

    @quick_jit
    def step(params, state):
        _, (state, metrics) = FAMILY.losses["plus"](params, state, batch, key, lambda_features=0.0)
        loss, (state, more) = FAMILY.losses["discriminator"](params, state, batch, key)
        return state, {**metrics, **more, "loss": loss}

    new, found = step(params, state)
    assert set(found) == {"l_forw_fit", "l_back_rec", "l_back_gan", "l_d", "loss", "psnr"}
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves((new, found)))
    assert jax.tree.structure(new) == jax.tree.structure(state)
    assert not np.allclose(new["discriminator"]["bn4_1"]["mean"], 0)
    bare = without_plus(params)
    assert bare.config == TINY and set(bare) == {"generator"}
    with pytest.raises(ValueError, match="32x32 pixels, got shape"):
        FAMILY.losses["discriminator"](
            params, state, {k: jnp.tile(v, (1, 2, 2, 1)) for k, v in batch.items()}, key
        )


def test_restore_loss_and_restorer():
    config = dataclasses.replace(TINY, restorer=RestorerConfig(nf=4, gc=2, nb=1))
    params = make(config)
    batch = {"hr": picture(16, 16, batch=2), "lr": picture(8, 8, batch=2, seed=2)}

    @quick_jit
    def gradient(restorer):
        def loss(restorer):
            return FAMILY.losses["restore"](
                params.replace(restorer=restorer), {}, batch, jax.random.key(0)
            )

        return jax.value_and_grad(loss, has_aux=True)(restorer)

    (value, (_, metrics)), grads = gradient(params["restorer"])
    assert set(metrics) == {"l_jpeg_rec"} and float(value) > 0
    assert all(float(jnp.max(jnp.abs(g))) > 0 for g in jax.tree.leaves(grads))
    levels = downscale(params, batch["hr"])
    assert not np.allclose(upscale(params, levels), upscale(params, levels, restore=False))


@pytest.mark.parametrize("codec", ["jpeg_like", "diff_jpeg"])
def test_a_differentiable_codec_trains_both_directions(codec):
    config = dataclasses.replace(TINY, restorer=RestorerConfig(nf=4, gc=2, nb=1))
    params = make(config)
    batch = {"hr": picture(16, 16, batch=2), "lr": picture(8, 8, batch=2, seed=2)}

    def loss(generator):
        # Only the way through the codec: the reconstruction, not the match of the LRs.
        options = {"codec": codec, "lambda_jpeg": 0.0, "lambda_rec": 1.0}
        trained = params.replace(generator=generator)
        return FAMILY.losses["restore"](trained, {}, batch, jax.random.key(0), **options)[0]

    value, grads = quick_jit(jax.value_and_grad(loss))(params["generator"])
    assert np.isfinite(value)
    assert all(float(jnp.max(jnp.abs(g))) > 0 for g in jax.tree.leaves(grads))
    rows, columns = np.mgrid[:16, :24] / 24
    smooth = 0.5 + 0.4 * np.stack([np.sin(3 * rows), np.cos(4 * columns), rows * columns], -1)
    lr = (np.rint(255 * smooth) / 255).astype(np.float32)[None]
    stored, real = compression.codec(codec, 90)(lr), compression.codec("jpeg", 90)(lr)
    assert (
        0 < float(jnp.mean(jnp.abs(stored - real))) < {"jpeg_like": 1, "diff_jpeg": 5}[codec] / 255
    )


def test_codecs_and_qualities_that_do_not_exist():
    with pytest.raises(ConfigError, match="codec = 'webp'"):
        compression.codec("webp")
    with pytest.raises(ConfigError, match="quality = 0 "):
        compression.codec("jpeg", 0)


def test_invertibility_report_names_the_layers():
    params = tiny()
    lr = downscale(params, picture(8, 6)) / 255.0
    report = FAMILY.check_invertibility(params, lr)
    names = [layer.name for layer in report.layers]
    assert names == ["blocks1[0]", "down1"] and report.ok


def test_save_and_load(tmp_path):
    config = dataclasses.replace(
        TINY,
        restorer=RestorerConfig(nf=4, gc=2, nb=1),
        discriminator=DiscriminatorConfig(nf=2, size=32),
    )
    params = make(config)
    flowsr_jax.save(params, tmp_path / "model")
    loaded = flowsr_jax.load(tmp_path / "model")
    assert loaded.config == config
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(loaded), strict=True):
        np.testing.assert_array_equal(a, b)
