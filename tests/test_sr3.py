"""SR3's verbs, losses and options, with a network small enough to compile in a second."""

from __future__ import annotations

import dataclasses
import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flowsr_jax
from flowsr_jax.config import ConfigError, from_dict, to_dict
from flowsr_jax.diffusion import chain, process
from flowsr_jax.diffusion.schedules import ScheduleConfig, ScheduleWarning, gammas, level_edges
from flowsr_jax.models import Params, get_family
from flowsr_jax.models.sr3 import sample as sampling
from flowsr_jax.models.sr3.condition import condition
from flowsr_jax.models.sr3.config import SR3Config
from flowsr_jax.models.sr3.losses import denoising_loss, draw_levels, eps_loss
from flowsr_jax.models.sr3.network import init, predict_noise
from flowsr_jax.models.sr3.sample import noise_shapes, sample, views
from flowsr_jax.models.sr3.weights import WEIGHTS, infer_schedule, infer_sr3, sr3_rules
from flowsr_jax.nets import attention
from flowsr_jax.nets.conv import Compute
from flowsr_jax.nets.layers import GroupNorm
from flowsr_jax.nets.orthogonal import orthogonal
from flowsr_jax.nets.unet import UNet, UNetConfig, init_unet, plan
from flowsr_jax.nets.unet_blocks import ResidualBlock, down_conv

UNET = UNetConfig(
    channels=8,
    multipliers=(1, 2),
    res_blocks=1,
    attn_res=(8,),
    image_size=16,
    norm_groups=4,
    dropout=0.0,
)
TINY = SR3Config(scale=2, unet=UNET, schedule=ScheduleConfig(steps=40, end=0.4))
PUBLISHED = {
    "sr3_16_128": 97_807_491,
    "sr3_64_512": 155_334_339,
    "ddpm_16_128": 26_451_587,
    "sr3_uncond_128": 97_805_763,
    "ddpm_uncond_128": 26_449_859,
}


@pytest.fixture(scope="module")
def tiny():
    return init(TINY, jax.random.key(0))


@pytest.fixture(scope="module")
def lr():
    return jax.random.uniform(jax.random.key(1), (2, 8, 8, 3))


# Compiled fast rather than for speed.
FAST = {"xla_backend_optimization_level": 0}


@functools.partial(jax.jit, static_argnames=("config", "capture"), compiler_options=FAST)
def apply(params, x, level, config, cond=None, capture=False, **options):
    """The network's output; with `capture` (output, {layer: its output})."""
    more = {"capture_intermediates": True, "mutable": ["intermediates"]} if capture else {}
    found = UNet(config).apply({"params": params}, x, level, cond, **options, **more)
    if not capture:
        return found
    out, state = found
    return out, {k: v["__call__"][0] for k, v in state["intermediates"].items() if k != "__call__"}


def changed(params, **fields):
    """The same arrays with another configuration (fields of SR3Config or UNetConfig)."""
    config = params.config
    outer = {f.name for f in dataclasses.fields(config)}
    inner = {k: v for k, v in fields.items() if k not in outer}
    config = dataclasses.replace(config, unet=dataclasses.replace(config.unet, **inner))
    return Params(params.tree, dataclasses.replace(config, **fields_of(fields, outer)))


def fields_of(fields, names):
    return {k: v for k, v in fields.items() if k in names}


def test_samplers_share_one_program_and_are_reproducible(tiny, lr, monkeypatch):
    chex.clear_trace_counter()
    once = chex.assert_max_traces(sampling._draw.__wrapped__, 1)
    monkeypatch.setattr(sampling, "_draw", jax.jit(once, static_argnames=sampling.STATIC))
    key = jax.random.key(2)
    first = sample(tiny, lr, key)
    assert first.shape == (2, 16, 16, 3) and first.dtype == jnp.float32
    assert float(first.min()) >= 0 and float(first.max()) <= 1
    results = {"ancestral 40": first}
    for name, steps in (("ancestral", 7), ("ddim", 7), ("dpmpp2m", 7), ("dpmpp2m", 40)):
        results[f"{name} {steps}"] = sample(tiny, lr, key, sampler=name, steps=steps)
    sample(tiny, lr, key, sampler="ddim", eta=0.5, temperature=0.8, clip="none")
    sample(tiny, lr, key, schedule=ScheduleConfig("cosine", 11))
    images = list(results.values())
    assert all(not np.allclose(a, b) for i, a in enumerate(images) for b in images[:i])
    np.testing.assert_array_equal(first, sample(tiny, lr, key))
    assert not np.array_equal(first, sample(tiny, lr, jax.random.key(3)))
    # Nothing but noise tells equal conditions apart.  Two rows of a batch may be rounded in
    # another order; 40 steps of a network, each rounding by some 1e-6, carry that on.
    still = sample(tiny, lr[:1].repeat(2, 0), key, temperature=0.0)
    np.testing.assert_allclose(still[0], still[1], atol=2e-4)


def test_sample_can_be_differentiated(tiny, lr):
    key, t = jax.random.key(4), jnp.float32(0.7)
    direction = np.random.default_rng(0).standard_normal(lr.shape).astype("f")

    def loss(params, lr, t):
        out = sample(params, lr, key, steps=3, temperature=t, clip="none")
        return jnp.mean(jnp.square(out))

    grads = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(tiny, lr, t)
    assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(grads))
    # Central differences of the program that serves all lengths.
    pairs = [
        (jax.tree.map(functools.partial(jnp.multiply, 1 + s), tiny), lr + s * direction, t + s)
        for s in (-1e-2, 1e-2)
    ]
    for at, along in enumerate((tiny, direction, jnp.float32(1))):
        ends = [[tiny, lr, t] for _ in pairs]
        for end, moved in zip(ends, pairs, strict=True):
            end[at] = moved[at]
        want = (float(loss(*ends[1])) - float(loss(*ends[0]))) / 2e-2
        slope = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, grads[at], along)))
        np.testing.assert_allclose(slope, want, rtol=0.02, atol=1e-4)


def test_given_noise_batches_and_trajectories(tiny, lr):
    x_T, *noises = np.random.default_rng(0).standard_normal((5, 2, 16, 16, 3), np.float32)
    noises = np.stack(noises)
    run = functools.partial(sample, tiny, steps=5, trajectory=5)
    states = run(lr, x_T=x_T, noises=noises)
    assert states.shape == (5, 2, 16, 16, 3)
    swapped = run(lr[::-1], x_T=x_T[::-1], noises=noises[:, ::-1])
    np.testing.assert_allclose(swapped[:, ::-1], states, atol=1e-5)
    doubled = run(lr, x_T=2 * x_T, noises=2 * noises)
    np.testing.assert_allclose(run(lr, x_T=x_T, noises=noises, temperature=2.0), doubled, atol=1e-5)
    # The same draws as N samples of one image.
    many = sample(
        tiny,
        lr[:1],
        steps=5,
        num_samples=2,
        x_T=x_T[:, None],
        noises=noises[:, :, None],
        trajectory=5,
    )
    assert many.shape == (5, 2, 1, 16, 16, 3)
    both = run(lr[:1].repeat(2, 0), x_T=x_T, noises=noises)
    np.testing.assert_allclose(many[:, :, 0], both, atol=1e-5)


def test_any_size_any_sampler_and_noise_by_place():
    """A size to pad, predictor-corrector, dynamic clipping, all noise from one array."""
    deep = dataclasses.replace(UNET, multipliers=(1, 1, 1), attn_res=(), mid_attention=False)
    config = dataclasses.replace(TINY, scale=1, unet=deep)
    params = init(config, jax.random.key(0))
    lr = jax.random.uniform(jax.random.key(1), (1, 7, 10, 3))
    (shape,) = noise_shapes(config, lr.shape, sampler="pc", steps=3)
    assert shape == lr.shape
    noise = [jax.random.normal(jax.random.key(2), shape)]
    options = {"noise": noise, "sampler": "pc", "steps": 4, "clip": "dynamic"}
    image = flowsr_jax.sample(params, lr, None, **options)
    assert image.shape == (1, 7, 10, 3) and bool(jnp.all(jnp.isfinite(image)))
    assert not np.allclose(image, flowsr_jax.sample(params, lr, None, **options, snr=0.3))
    assert not np.allclose(image, flowsr_jax.sample(params, lr, None, **options, percentile=0.5))


def test_seeded_noise_agrees_between_windows():
    """The noise of a window is the window of the noise: what tiles need."""
    seed = jax.random.normal(jax.random.key(0), (1, 64, 64, 3))
    draw, part = chain.noise_from_seed(seed), chain.noise_from_seed(seed[:, 8:40, 16:32])
    np.testing.assert_array_equal(draw(5)[:, 8:40, 16:32], part(5))
    draws = np.stack([draw(0), draw(1), draw(0, 0), draw(0, 1)]).reshape(4, -1)
    correlation = np.corrcoef(np.concatenate([draws, np.reshape(seed, (1, -1))]))
    assert np.max(np.abs(correlation - np.eye(5))) < 0.05  # 5 standard errors
    assert abs(draws.mean()) < 0.03 and abs(draws.std() - 1) < 0.02
    tails = np.mean(np.abs(draws) > 1.959964)
    assert abs(tails - 0.05) < 0.006


BAD = {
    "sampler": ({"sampler": "dpm"}, "'ancestral', 'ddim', 'dpmpp2m', 'pc', 'langevin'"),
    "steps": ({"steps": 0}, "steps = 0 must be at least 1"),
    "too many steps": ({"steps": 41}, "steps = 41 must lie between 1 and 40"),
    "option": ({"etta": 0.5}, "did you mean 'eta'"),
    "type": ({"eta": "half"}, "sample.eta must be float"),
    "x_T": ({"x_T": np.zeros((2, 8, 8, 3))}, r"x_T must have the shape \(2, 16, 16, 3\)"),
    "noises": ({"steps": 5, "noises": np.zeros((3, 2, 16, 16, 3))}, r"\(4, 2, 16, 16, 3\)"),
    "key": ({"key": None, "x_T": np.zeros((2, 16, 16, 3))}, "give a key, or noises"),
    "no key": ({"key": None}, "give a key, or x_T, noises"),
    "trajectory": ({"steps": 3, "trajectory": 4}, "between 0 and 3"),
    "zero level": ({"schedule": ScheduleConfig("jsd", 10)}, "starts at gamma = 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_sample_options(name, tiny, lr):
    options, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        sample(tiny, lr, **{"key": jax.random.key(0), **options})


def test_a_schedule_that_keeps_signal_warns(tiny, lr):
    with pytest.warns(ScheduleWarning, match="set end = 0.7"):
        sample(tiny, lr, jax.random.key(2), schedule=ScheduleConfig(steps=20))
    with pytest.warns(ScheduleWarning):
        jax.eval_shape(lambda k: init(changed_config(steps=20), k), jax.random.key(0))


def changed_config(**fields):
    return dataclasses.replace(TINY, schedule=ScheduleConfig(**fields))


def test_predict_noise_and_its_bad_inputs(tiny, lr):
    cond = condition(TINY, lr)
    noisy = jax.random.normal(jax.random.key(0), cond.shape)
    level = jnp.array([0.9, 0.3])
    out = predict_noise(tiny, noisy, level, cond)
    c, s = (np.asarray(v)[:, None, None, None] for v in (level, jnp.sqrt(1 - level**2)))
    got = predict_noise(changed(tiny, prediction="v"), noisy, level, cond)
    np.testing.assert_allclose(got, s * noisy + c * out, rtol=1e-4, atol=1e-4)
    for arguments, message in (
        ((noisy[0], level, cond), r"noisy must be \[B,H,W,3\]"),
        ((noisy[:, :15], level, cond[:, :15]), "multiples of 2, got 15x16"),
        ((noisy, level, None), "condition must have the shape"),
        ((noisy, level[:1], cond), r"level must be \[B\] = \(2,\)"),
        ((noisy, jnp.array([5, 90]), cond), r"sqrt\(gamma\) in \(0, 1\]"),
    ):
        with pytest.raises(ValueError, match=message):
            predict_noise(tiny, *arguments)
    with pytest.raises(ValueError, match=r"timesteps 0\.\.39, got \[0\.9"):
        predict_noise(changed(tiny, conditioning="time"), noisy, level, cond)


def test_the_condition_is_the_clipped_bicubic_enlargement():
    lr = np.zeros((1, 8, 8, 3), np.float32)
    lr[:, :, 4:] = 1  # bicubic overshoots at the edge
    cond = np.asarray(condition(TINY, jnp.asarray(lr)))
    want = flowsr_jax.imresize(lr, 2)
    assert want.max() > 1.01 and cond.max() == 1 and cond.min() == -1
    np.testing.assert_allclose(cond, 2 * want.clip(0, 1) - 1, atol=1e-6)


def test_levels_are_drawn_as_published():
    count, config = 20_000, changed_config(steps=40, start=1e-3, end=0.3)
    gamma = gammas(config.schedule)
    edges = level_edges(config.schedule)
    paper = np.asarray(draw_levels(config, jax.random.key(0), count)) ** 2
    # Uniform over steps, and uniform in gamma inside each.
    share, _ = np.histogram(paper, bins=np.append(1.0, gamma)[::-1])
    np.testing.assert_allclose(share / count, 1 / 40, atol=5 * np.sqrt(1 / 40 / count))
    wide = np.argmax(-np.diff(np.append(1.0, gamma)))
    inside = paper[(paper < edges[wide] ** 2) & (paper > edges[wide + 1] ** 2)]
    place = (inside - edges[wide + 1] ** 2) / (edges[wide] ** 2 - edges[wide + 1] ** 2)
    np.testing.assert_allclose([place.mean(), place.std()], [1 / 2, 12**-0.5], atol=0.06)
    steps = set()
    for seed in range(12):
        public = np.asarray(draw_levels(config, jax.random.key(seed), 64, "public"))
        t = np.searchsorted(-edges, -public.mean())
        steps.add(t)
        assert np.all((public <= edges[t - 1] + 1e-6) & (public >= edges[t] - 1e-6))
        assert len(np.unique(public)) > 32
    assert len(steps) > 4
    timed = dataclasses.replace(config, unet=dataclasses.replace(UNET, conditioning="time"))
    t = np.asarray(draw_levels(timed, jax.random.key(0), count))
    assert t.dtype == np.int32 and t.min() == 0 and t.max() == 39


@pytest.fixture(scope="module")
def example(lr):
    hr = jax.random.uniform(jax.random.key(7), (2, 16, 16, 3), minval=-1)
    noise = jax.random.normal(jax.random.key(8), hr.shape)
    return hr, condition(TINY, lr), noise, jnp.array([0.95, 0.2])


def test_loss_options(tiny, example):
    x0, cond, noise, level = example
    run = jax.jit(
        functools.partial(denoising_loss, tiny),
        static_argnames=("norm", "reduction", "weighting"),
        compiler_options=FAST,
    )
    out = predict_noise(tiny, process.q_sample(x0, noise, level), level, cond)
    error = np.asarray(out - noise)
    l1, metrics = run(*example)
    np.testing.assert_allclose(l1, np.abs(error).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["mse"], np.square(error).mean(), rtol=1e-5)
    mask = np.zeros((2, 16, 16, 1), np.float32)
    mask[:, :4] = 1
    weighted, _ = run(
        *example, norm="l2", reduction="sum", weighting="min_snr", min_snr=2.0, mask=mask
    )
    snr = np.asarray(level**2 / (1 - level**2))
    want = (np.minimum(snr, 2) / snr)[:, None, None, None] * np.square(error) * mask
    np.testing.assert_allclose(weighted, want.sum(), rtol=1e-4)
    for options, message in (
        ({"norm": "l3"}, "'l1', 'l2'"),
        ({"reduction": "max"}, "'mean', 'sum'"),
        ({"weighting": "snr"}, "did you mean 'min_snr'"),
        ({"dream": -1.0}, "dream = -1.0"),
    ):
        with pytest.raises(ConfigError, match=message):
            denoising_loss(tiny, *example, **options)
    batch = {"hr": (x0 + 1) / 2, "lr": jnp.full((2, 8, 8, 3), 0.5)}
    with pytest.raises(ConfigError, match="'paper', 'public'"):
        eps_loss(tiny, {}, batch, jax.random.key(0), levels="papers")


def test_dream_moves_the_noise_towards_the_networks_error(tiny, example):
    x0, cond, noise, level = example
    own = predict_noise(tiny, process.q_sample(x0, noise, level), level, cond)
    sigma = process.per_example(jnp.sqrt(1 - level**2), x0)
    moved = noise + sigma**1.5 * (noise - own)
    want = predict_noise(tiny, process.q_sample(x0, moved, level), level, cond) - moved
    run = jax.jit(functools.partial(denoising_loss, tiny, dream=1.5), compiler_options=FAST)
    loss, _ = run(*example)
    np.testing.assert_allclose(loss, jnp.mean(jnp.abs(want)), rtol=1e-5)


def test_training_learns(tiny, lr):
    """A few Adam steps on one pair, with dropout: the loss falls, its gradients are finite."""
    import optax

    params = changed(tiny, dropout=0.1)
    batch = {"hr": flowsr_jax.imresize(lr, 2).clip(0, 1), "lr": lr}
    optimizer = optax.flatten(optax.adam(3e-3))

    @functools.partial(jax.jit, compiler_options=FAST)
    def step(params, state, key):
        (loss, (_, metrics)), grads = jax.value_and_grad(
            lambda p: eps_loss(p, {}, batch, key, norm="l2"), has_aux=True
        )(params)
        updates, state = optimizer.update(grads, state)
        return jax.tree.map(jnp.add, params, updates), state, (loss, metrics)

    state, losses = optimizer.init(params), []
    for i in range(30):
        params, state, (loss, metrics) = step(params, state, jax.random.key(i))
        losses.append(float(loss))
        np.testing.assert_allclose(loss, metrics["mse"], rtol=1e-5)
    print("loss, mean of ten:", np.mean(losses[:10]), "->", np.mean(losses[-10:]))
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])


def test_forms_of_evaluation_agree(tiny, example):
    """Strided convolutions, rematerialised blocks, the hoisted condition, bfloat16."""
    _, cond, x, level = example
    params = tiny["unet"]

    def grads(function, *arguments):
        total = lambda *arguments: jnp.sum(jnp.sin(function(*arguments)))  # noqa: E731
        return jax.jit(jax.value_and_grad(total, (0, 1)), compiler_options=FAST)(*arguments)

    def same(got, want):
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)

    w = params["downs.2"]["w"]
    h = jax.random.normal(jax.random.key(0), (2, 16, 16, 8))
    forms = [
        grads(functools.partial(down_conv, compute=Compute(conv=conv)), h, w)
        for conv in ("xla", "gemm", "auto")
    ]
    same(forms[1], forms[0])
    same(forms[2], forms[0])
    blocks = []
    for compute in (Compute(), Compute(memory="remat")):
        kind = nn.remat(ResidualBlock) if compute.memory == "remat" else ResidualBlock
        block = kind(plan(UNET)["downs.3"], dataclasses.replace(UNET, compute=compute))
        run = lambda p, h, block=block: block.apply({"params": p}, h, jnp.ones((2, 8)))  # noqa: E731
        blocks.append(grads(run, params["downs.3"], h[:, ::2, ::2]))
    same(*blocks)
    out = apply(params, x, level, UNET, cond)
    prepared = UNet(UNET).apply({"params": params}, cond, method="prepare")
    np.testing.assert_allclose(apply(params, x, level, UNET, prepared=prepared), out, atol=1e-5)
    half = dataclasses.replace(UNET, compute=Compute(dtype="bfloat16"))
    short = apply(params, x, level, half, cond)
    assert short.dtype == np.float32
    assert 1e-6 < np.abs(short - out).max() / np.abs(out).max() < 0.05
    total = lambda p: jnp.sum(UNet(half).apply({"params": p}, x, level, cond))  # noqa: E731
    short_grads = jax.eval_shape(jax.grad(total), params)
    assert all(g.dtype == np.float32 for g in jax.tree.leaves(short_grads))


def test_the_papers_block_style(example):
    """BigGAN blocks resample inside; every residual sum is scaled by 1/sqrt 2."""
    _, cond, x, level = example
    config = dataclasses.replace(UNET, block="biggan", init="zero_last", affine=True)
    params = init_unet(jax.random.key(0), config)
    assert params["downs.2"]["skip"]["w"].shape == (1, 1, 8, 8)
    out, kept = apply(params, x, level, config, cond, capture=True)
    np.testing.assert_array_equal(out, np.zeros_like(x))
    # With zero last convolutions a block is its shortcut, scaled.
    np.testing.assert_allclose(kept["downs.1"], kept["downs.0"] / np.sqrt(2), atol=1e-6)
    pooled = kept["downs.1"].reshape(2, 8, 2, 8, 2, 8).mean((2, 4))
    want = pooled @ params["downs.2"]["skip"]["w"][0, 0] / np.sqrt(2)
    np.testing.assert_allclose(kept["downs.2"], want, atol=1e-5)
    np.testing.assert_allclose(kept["mid.0"], kept["downs.3"] / 2, atol=1e-6)
    with pytest.raises(ConfigError, match="no official form"):
        sr3_rules(SR3Config(unet=config))


def test_dropout_and_extra_embedding(tiny, example):
    _, cond, x, level = example
    config = dataclasses.replace(UNET, dropout=0.5)

    def run(key, extra):
        return apply(tiny["unet"], x, level, config, cond, key=key, embedding=extra)

    none = jnp.zeros((2, 8))
    draws = [run(jax.random.key(i), none) for i in (0, 1, 0)]
    np.testing.assert_array_equal(draws[0], draws[2])
    assert not np.allclose(draws[0], draws[1])
    assert not np.allclose(run(jax.random.key(0), none + 1), draws[0])


def test_attention_in_blocks_is_the_same_sum(tiny, monkeypatch):
    p = tiny["unet"]["mid.0"]["attn"]
    x = jax.random.normal(jax.random.key(0), (2, 6, 7, 16))

    def run():  # a new function each time: the sizes are read while tracing
        mix = attention.SelfAttention(4, heads=2)
        total = lambda p, x: jnp.sum(jnp.sin(mix.apply({"params": p}, x)))  # noqa: E731
        return jax.jit(jax.value_and_grad(total, (0, 1)), compiler_options=FAST)(p, x)

    whole = run()
    monkeypatch.setattr(attention, "ALL_AT_ONCE", 10)
    monkeypatch.setattr(attention, "BLOCK", 16)
    for a, b in zip(jax.tree.leaves(run()), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_attention_heads():
    """Each head attends with its own contiguous channels of q, k and v."""
    c, eye = 8, jnp.eye(8)[None, None]
    keys = jax.random.split(jax.random.key(0), 2)
    w = jax.random.normal(keys[0], (1, 1, c, 3 * c))
    norm = {"scale": jnp.ones(c), "bias": jnp.zeros(c)}
    p = {"norm": norm, "qkv": {"w": w}, "out": {"w": eye, "b": jnp.zeros(c)}}
    x = jax.random.normal(keys[1], (1, 3, 4, c))
    q, k, v = np.split(np.asarray(GroupNorm(2).apply({"params": norm}, x) @ w[0, 0]), 3, axis=-1)
    parts = []
    for head in (slice(0, 4), slice(4, 8)):
        a, b, m = (t.reshape(12, c)[:, head] for t in (q, k, v))
        weights = np.exp(a @ b.T / np.sqrt(4))
        parts.append(weights / weights.sum(1, keepdims=True) @ m)
    got = attention.SelfAttention(2, heads=2).apply({"params": p}, x)
    np.testing.assert_allclose(got.reshape(12, c), np.concatenate(parts, 1), rtol=1e-4, atol=1e-5)


def test_orthogonal_initial_values():
    for shape in ((3, 3, 4, 8), (3, 3, 2, 64), (8, 32)):
        w = np.asarray(orthogonal(jax.random.key(0), shape)).reshape(-1, shape[-1])
        gram = w.T @ w if w.shape[0] >= w.shape[1] else w @ w.T
        np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-5)
        traced = jax.jit(orthogonal, static_argnums=1)(jax.random.key(0), shape)
        np.testing.assert_allclose(traced.reshape(w.shape), w, atol=1e-5)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configurations(name, shared):
    """Key lists with shapes of the public configurations; no array is made."""
    lines = (shared / f"spec/keys/{name}.txt").read_text().splitlines()
    table = [line.split(" | ") for line in lines if not line.startswith("#")]
    keys = [key for key, *_ in table]
    state = {
        key: np.broadcast_to(np.float32(0), tuple(int(n) for n in shape.split("x")))
        for key, shape, *_ in table
    }
    assert WEIGHTS.recognise(state) and not WEIGHTS.recognise({"conv_first.weight": 0})
    del state["betas"]  # zeros are no schedule
    config = infer_sr3(state)
    unet = config.unet
    assert config.timed == name.startswith("ddpm")
    assert (unet.cond_channels == 0) == ("uncond" in name) and unet.image_channels == 3
    assert unet.norm_groups == (16 if "512" in name else 32)
    assert unet.attn_res == (() if "512" in name else (16,))
    assert unet.image_size == (512 if "512" in name else 128)
    assert unet.dropout == (0.0 if "512" in name else 0.2)
    rules = sr3_rules(config)
    assert [k for rule in rules for k in rule.keys] == [
        k for k in keys if k.startswith("denoise_fn.") and not k.endswith("inv_freq")
    ]
    expected = jax.eval_shape(lambda k: init_unet(k, unet), jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(expected)) == PUBLISHED[name]
    for rule in rules:
        leaf = expected
        for part in rule.path[1:]:
            leaf = leaf[part]
        blank = np.broadcast_to(np.float32(0), leaf.shape)
        assert rule.write(blank)[rule.keys[0]].shape == state[rule.keys[0]].shape
    constants = WEIGHTS.constants(dataclasses.replace(config, schedule=ScheduleConfig()))
    assert list(constants) == [k for k in keys if k not in {k for r in rules for k in r.keys}]
    assert [c.shape for c in constants.values()] == [
        ((32,) if k.endswith("inv_freq") else (2000,)) for k in constants
    ]


def test_schedules_and_misfits_of_files():
    for schedule in (
        ScheduleConfig(),
        ScheduleConfig("quad", 50, 1e-4, 0.3),
        ScheduleConfig("warmup50", 30, 1e-4, 0.5),
        ScheduleConfig("cosine", 25),
        ScheduleConfig("given", 3, betas=(0.5, 0.25, 0.75)),
    ):
        stored = {"betas": WEIGHTS.constants(SR3Config(schedule=schedule))["betas"]}
        assert infer_schedule(stored) == schedule
    state = {"denoise_fn.noise_level_mlp.1.weight": np.zeros((32, 8), np.float32)}
    with pytest.raises(ValueError, match="family 'sr3': denoise_fn.downs.0.weight is missing"):
        WEIGHTS(state)
    with pytest.raises(ConfigError, match="did you mean 'norm_groups'"):
        WEIGHTS(state, norm_group=8)


def test_the_family_is_registered_and_saved(tiny, lr, tmp_path):
    family = get_family("sr3")
    flowsr_jax.save(tiny, tmp_path)
    loaded = flowsr_jax.load(tmp_path)
    assert loaded.config == TINY and from_dict(SR3Config, to_dict(TINY)) == TINY
    key = jax.random.key(2)
    np.testing.assert_array_equal(
        flowsr_jax.sample(loaded, lr, key), flowsr_jax.sample(tiny, lr, key)
    )
    assert [v.name for v in views(TINY, "eps")] == ["2M, 20 steps", "ancestral, 40 steps"]
    shape = jax.eval_shape(family.views(TINY, "eps")[0].sample, tiny, lr, key).shape
    assert shape == (2, 16, 16, 3)
    with pytest.raises(TypeError, match="divide by 255"):
        flowsr_jax.sample(tiny, (lr * 255).astype(jnp.uint8), key)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"norm_groups": 3}, r"norm_groups = 3 must divide every channel count; not \[8, 16"),
        ({"channels": 7}, "channels = 7 must be even"),
        ({"multipliers": ()}, "must be 1 to 16 numbers"),
        ({"dropout": 1.0}, "dropout = 1.0"),
        ({"block": "bigan"}, "did you mean 'biggan'"),
        ({"conditioning": "gamma"}, "'level', 'time'"),
    ],
)
def test_bad_configs(fields, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(UNET, **fields)


def test_bad_model_configs():
    with pytest.raises(ConfigError, match="did you mean 'eps'"):
        SR3Config(prediction="ep")
    with pytest.raises(ConfigError, match="cond_channels = 4 must be 0 or image_channels = 3"):
        SR3Config(unet=dataclasses.replace(UNET, cond_channels=4))
    assert plan(UNET)["ups.0"] == ("block", 32, 16, True)
