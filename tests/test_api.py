"""The public verbs on a tiny SRFlow: purity, shapes, and one clear error per bad input."""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from virtual_devices import virtual_devices

import flowsr_jax
from flowsr_jax.config import ConfigError, from_dict, to_dict
from flowsr_jax.models import get_family
from flowsr_jax.models.rrdb.config import RRDBConfig
from flowsr_jax.models.srflow import SRFlowConfig
from flowsr_jax.models.srflow import sample as srflow_sample
from flowsr_jax.models.srflow.losses import add_noise, nll_loss
from flowsr_jax.nets.conv import Compute

TINY = SRFlowConfig(
    encoder=RRDBConfig(nf=6, gc=4, nb=2),
    steps=(1, 2, 1),
    hidden=6,
    stacked_blocks=(0, 1),
)
OURS = dataclasses.replace(
    TINY,
    encoder=RRDBConfig(nf=6, gc=4, nb=2, head="subpixel", residual=True),
    steps=(0, 2),
    splits=(1,),
    shift_by_encoder=True,
    condition_on_estimate=True,
    scale_form="tanh",
)


def make(config, seed=0):
    """Parameters with every leaf but the 1x1s moved, so that no layer is the identity."""
    params = jax.jit(get_family(config.family).init, static_argnums=0)(config, jax.random.key(seed))
    rng = np.random.default_rng(seed)

    def move(path, p):
        rotation = path[-1].key == "weight"
        return p if rotation else p + 0.05 * rng.standard_normal(p.shape, np.float32)

    return jax.tree_util.tree_map_with_path(move, params)


@pytest.fixture(scope="module")
def tiny():
    return make(TINY)


@pytest.fixture(scope="module")
def pair():
    hr = jax.random.uniform(jax.random.key(5), (2, 32, 24, 3))
    return hr, jnp.clip(flowsr_jax.imresize(hr, 0.25), 0, 1)


@pytest.mark.parametrize("scale", [2, 4, 8, pytest.param(16, marks=pytest.mark.slow)])
@pytest.mark.parametrize("ours", [False, True])
def test_round_trip_at_every_scale(scale, ours):
    levels = int(math.log2(scale)) + 1
    base = OURS if ours else TINY
    config = dataclasses.replace(
        base,
        encoder=dataclasses.replace(base.encoder, scale=scale),
        steps=(1,) * levels,
        splits=None,
    )
    params = make(config)
    lr = jax.random.uniform(jax.random.key(1), (1, 4, 2, 3))
    hr = jax.random.uniform(jax.random.key(2), (1, 4 * scale, 2 * scale, 3))
    latents, log_prob = flowsr_jax.encode(params, hr, lr)
    assert log_prob.shape == (1,) and log_prob.dtype == jnp.float32
    assert sum(z.size for z in latents) == hr.size
    np.testing.assert_allclose(flowsr_jax.decode(params, latents, lr), hr, atol=2e-4)
    shapes = get_family("srflow").latent_shapes(config, lr.shape)
    assert [z.shape for z in latents] == shapes


def test_sample_shapes_keys_and_temperature(tiny, pair):
    _, lr = pair
    key = jax.random.key(0)
    one = flowsr_jax.sample(tiny, lr, key)
    assert one.shape == (2, 32, 24, 3) and one.dtype == jnp.float32
    np.testing.assert_array_equal(one, flowsr_jax.sample(tiny, lr, key))
    assert not np.array_equal(one, flowsr_jax.sample(tiny, lr, jax.random.key(1)))
    many = flowsr_jax.sample(tiny, lr, key, temperature=0.5, num_samples=3)
    assert many.shape == (3, 2, 32, 24, 3)
    assert float(jnp.std(many, axis=0).mean()) > 1e-3
    first = flowsr_jax.sample(tiny, lr, key, temperature=0.5, num_samples=1)[0]
    same = flowsr_jax.sample(tiny, lr, key, temperature=0.5)
    np.testing.assert_allclose(first, same, atol=1e-6)
    cold = flowsr_jax.sample(tiny, lr, key, temperature=0.0, num_samples=2)
    np.testing.assert_array_equal(cold[0], cold[1])
    zeros = [jnp.zeros(s) for s in get_family("srflow").latent_shapes(TINY, lr.shape)]
    np.testing.assert_allclose(cold[0], flowsr_jax.decode(tiny, zeros, lr), atol=1e-5)


@pytest.fixture
def at_most(monkeypatch):
    """A function of n: SRFlow's sampler may be traced n times from now on."""

    def limit(n):
        chex.clear_trace_counter()
        counted = chex.assert_max_traces(srflow_sample._sample.__wrapped__, n)
        monkeypatch.setattr(srflow_sample, "_sample", jax.jit(counted, static_argnums=(6, 7)))

    return limit


def test_temperature_is_traced_once(tiny, pair, at_most):
    _, lr = pair
    at_most(1)
    types = (0.1, 0, None, np.float64(0.2), np.int8(1), jnp.float32(0.3), jnp.bfloat16(0.5))
    for temperature in types:
        flowsr_jax.sample(tiny, lr, jax.random.key(0), temperature=temperature, num_samples=5)
    with pytest.raises(AssertionError, match="traced > 1 times"):
        flowsr_jax.sample(tiny, lr, jax.random.key(0), num_samples=4)


def test_jit_vmap_and_grad(tiny, pair):
    hr, lr = pair
    key = jax.random.key(3)
    plain = flowsr_jax.sample(tiny, lr, key, temperature=0.7)
    jitted = jax.jit(lambda p, x, k, t: flowsr_jax.sample(p, x, k, temperature=t))
    np.testing.assert_allclose(jitted(tiny, lr, key, 0.7), plain, atol=1e-5)
    keys = jax.random.split(key, 3)
    mapped = jax.vmap(lambda k: flowsr_jax.sample(tiny, lr, k, temperature=0.7))(keys)
    np.testing.assert_allclose(
        mapped[1], flowsr_jax.sample(tiny, lr, keys[1], temperature=0.7), atol=1e-5
    )
    grads = jax.grad(lambda p: jnp.mean(flowsr_jax.bits_per_dim(p, hr, lr)))(tiny)
    assert grads.config == tiny.config
    assert all(bool(jnp.all(jnp.isfinite(g))) for g in jax.tree.leaves(grads))
    image_grad = jax.grad(lambda x: jnp.sum(flowsr_jax.encode(tiny, x, lr)[1]))(hr)
    assert image_grad.shape == hr.shape and float(jnp.max(jnp.abs(image_grad))) > 0


def test_bits_per_dim_counts_all_channels_of_8_bit_images(tiny, pair):
    hr, lr = pair
    _, log_prob = flowsr_jax.encode(tiny, hr, lr)
    dims = 32 * 24 * 3
    want = -np.asarray(log_prob) / (math.log(2) * dims) + math.log2(255)
    np.testing.assert_allclose(flowsr_jax.bits_per_dim(tiny, hr, lr), want, rtol=1e-6)
    noisy = flowsr_jax.bits_per_dim(tiny, hr, lr, jax.random.key(0))
    assert noisy.shape == (2,) and not np.allclose(noisy, want, rtol=1e-7)
    batch = {"hr": hr, "lr": lr}
    bits, (_, metrics) = nll_loss(tiny, {}, batch, None, noise="none")
    np.testing.assert_allclose(bits, want.mean(), rtol=1e-5)
    official, _ = nll_loss(tiny, {}, batch, None, noise="none", units="official")
    np.testing.assert_allclose(official, metrics["nll_srflow"], rtol=1e-6)
    np.testing.assert_allclose(official / 3 + math.log2(255), bits, rtol=1e-5)


def test_training_noise():
    hr = jnp.full((4, 64, 64, 3), 0.5)
    key = jax.random.key(0)
    np.testing.assert_array_equal(add_noise(key, hr, "none"), hr)
    gaussian = add_noise(key, hr) - hr
    np.testing.assert_allclose(jnp.std(gaussian) * 255, 4 / math.sqrt(3), rtol=0.02)
    uniform = add_noise(key, hr, "uniform", quant=32.0) - hr
    assert float(jnp.max(jnp.abs(uniform))) <= 1 / 64 + 1e-6
    with pytest.raises(ConfigError, match="gaussian"):
        add_noise(key, hr, "gausian")


def test_temperature_zero_is_the_encoder_where_the_flow_is_shifted_by_it(pair):
    _, lr = pair
    config = dataclasses.replace(OURS, scale_form="sigmoid2")
    params = get_family("srflow").init(config, jax.random.key(0))
    sr = flowsr_jax.sample(params, lr, jax.random.key(0), temperature=0.0)
    encoder = get_family("srflow").views(config, "l1")[0].sample(params, lr, None)
    np.testing.assert_allclose(sr, encoder, atol=1e-5)


def test_save_and_load(tiny, pair, tmp_path):
    hr, lr = pair
    flowsr_jax.save(tiny, tmp_path / "model")
    loaded = flowsr_jax.load(tmp_path / "model")
    assert loaded.config == tiny.config
    for a, b in zip(jax.tree.leaves(tiny), jax.tree.leaves(loaded), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(
        flowsr_jax.encode(loaded, hr, lr)[1], flowsr_jax.encode(tiny, hr, lr)[1]
    )


def test_bfloat16_networks_keep_the_flow_invertible(pair):
    hr, lr = pair
    compute = Compute(dtype="bfloat16")
    config = dataclasses.replace(
        TINY, compute=compute, encoder=dataclasses.replace(TINY.encoder, compute=compute)
    )
    params = make(config)
    latents, log_prob = flowsr_jax.encode(params, hr, lr)
    assert log_prob.dtype == jnp.float32 and all(z.dtype == jnp.float32 for z in latents)
    np.testing.assert_allclose(flowsr_jax.decode(params, latents, lr), hr, atol=1e-3)
    exact = flowsr_jax.encode(make(TINY), hr, lr)[1]
    np.testing.assert_allclose(log_prob, exact, rtol=0.05)
    assert not np.allclose(log_prob, exact, rtol=1e-6)


def test_invertibility_report_names_the_layer_at_fault(tiny, pair):
    _, lr = pair
    report = flowsr_jax.check_invertibility(tiny, lr)
    assert report.ok and report.fault is None and report.image_round_trip < 1e-3
    names = [layer.name for layer in report.layers]
    assert "multiscale.level2.steps[1].coupling" in names and "multiscale.level1.split" in names
    # A nearly singular 1x1 convolution in the second step of level 2.
    weight = tiny["flow"]["multiscale"]["level2"]["flow"]["steps"]["conv1x1"]["weight"]
    bad = weight.at[1, 0].set(weight[1, 1] + 1e-7)
    flow = jax.tree.map(lambda x: x, tiny["flow"])
    flow["multiscale"]["level2"]["flow"]["steps"]["conv1x1"]["weight"] = bad
    report = flowsr_jax.check_invertibility(tiny.replace(flow=flow), lr)
    assert report.fault.name == "multiscale.level2.steps[1].conv1x1"
    assert report.fault.condition > 1e5
    assert "level2.steps[1].conv1x1" in str(report)


def test_non_finite_samples_are_counted(tiny, pair):
    _, lr = pair
    flow = jax.tree.map(lambda x: x, tiny["flow"])
    logs = flow["multiscale"]["level1"]["flow"]["transition"]["actnorm"]["logs"]
    flow["multiscale"]["level1"]["flow"]["transition"]["actnorm"]["logs"] = logs - 120.0
    with pytest.warns(flowsr_jax.NonFiniteWarning, match=r"\d+ of 4608 sampled values"):
        flowsr_jax.sample(tiny.replace(flow=flow), lr, jax.random.key(0))


BAD_INPUTS = {
    "rank": (
        lambda lr: {"lr": lr[0]},
        ValueError,
        r"lr must be \[B, H, W, 3\].*lr\[None\]|x\[None\]",
    ),
    "channels": (lambda lr: {"lr": lr[..., :1]}, ValueError, "3 channels"),
    "channels first": (
        lambda lr: {"lr": lr.transpose(0, 3, 1, 2)},
        ValueError,
        "channels come last",
    ),
    "uint8": (lambda lr: {"lr": (lr * 255).astype(jnp.uint8)}, TypeError, "divide by 255"),
    "range 0..255": (lambda lr: {"lr": lr * 255}, ValueError, "0..255"),
    "range -1..1": (lambda lr: {"lr": 2 * lr - 1}, ValueError, r"\[-1, 1\]"),
    "NaN": (lambda lr: {"lr": lr.at[0].set(jnp.nan)}, ValueError, "non-finite"),
    "empty": (lambda lr: {"lr": lr[:0]}, ValueError, "empty"),
    "odd size": (lambda lr: {"lr": lr[:, :7]}, ValueError, "multiples of 2, got 7x6"),
    "list": (lambda lr: {"lr": [[0.0]]}, TypeError, "array"),
    "key": (lambda lr: {"key": 0}, TypeError, "PRNG key"),
    "temperature < 0": (lambda lr: {"temperature": -1.0}, ValueError, ">= 0"),
    "temperature NaN": (lambda lr: {"temperature": float("nan")}, ValueError, "finite"),
    "temperature array": (lambda lr: {"temperature": jnp.ones(2)}, ValueError, "one number"),
    "num_samples": (lambda lr: {"num_samples": 0}, ValueError, "num_samples"),
    "params": (lambda lr: {"params": {"a": 1}}, TypeError, "Params"),
}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_bad_sample_inputs(name, tiny, pair, at_most):
    change, error, message = BAD_INPUTS[name]
    kwargs = {"params": tiny, "lr": pair[1], "key": jax.random.key(0)} | change(pair[1])
    at_most(0)  # nothing is compiled
    with pytest.raises(error, match=message) as caught:
        flowsr_jax.sample(**kwargs)
    print(f"{name}: {caught.value}")


def test_bad_pairs_and_latents(tiny, pair):
    hr, lr = pair
    with pytest.raises(ValueError, match=r"4 times lr.*\(2, 32, 24, 3\)"):
        flowsr_jax.encode(tiny, hr[:, :28], lr)
    with pytest.raises(TypeError, match="divide by 255"):
        flowsr_jax.bits_per_dim(tiny, (hr * 255).astype(jnp.uint8), lr)
    latents, _ = flowsr_jax.encode(tiny, hr, lr)
    with pytest.raises(ValueError, match="finest level first"):
        flowsr_jax.decode(tiny, latents[::-1], lr)
    with pytest.raises(ValueError, match="finest level first"):
        flowsr_jax.decode(tiny, latents[:1], lr)


def test_verbs_that_a_family_lacks(pair):
    hr, lr = pair
    params = get_family("rrdb").init(RRDBConfig(nf=4, gc=2, nb=1), jax.random.key(0))
    assert flowsr_jax.sample(params, lr, jax.random.key(0)).shape == hr.shape
    with pytest.raises(ValueError, match="'rrdb' has no 'encode'; it has: sample"):
        flowsr_jax.encode(params, hr, lr)
    with pytest.raises(ValueError, match="unknown model family 'srflo'; did you mean 'srflow'"):
        get_family("srflo")
    with pytest.raises(ValueError, match="no known family"):
        flowsr_jax.from_torch({"conv.weight": np.zeros((1, 1, 3, 3))})


def test_configs_are_checked():
    with pytest.raises(ConfigError, match="did you mean 'hidden'"):
        from_dict(SRFlowConfig, {"hiden": 3}, "config.model")
    with pytest.raises(ConfigError, match="hidden must be int"):
        from_dict(SRFlowConfig, {"hidden": "3"}, "config.model")
    with pytest.raises(ConfigError, match="stacked_blocks"):
        from_dict(SRFlowConfig, {"stacked_blocks": [1, 40]}, "config.model")
    with pytest.raises(ConfigError, match="levels"):
        from_dict(SRFlowConfig, {"steps": [1, 1, 1, 1]}, "config.model")
    assert from_dict(SRFlowConfig, to_dict(OURS)) == OURS
    assert hash(OURS) == hash(from_dict(SRFlowConfig, to_dict(OURS)))


def test_missing_and_misshapen_official_weights():
    with pytest.raises(ValueError, match="'rrdb'.*missing"):
        state = {"conv_first.weight": np.zeros((4, 3, 3, 3)), "trunk_conv.weight": np.zeros(1)}
        state["conv_last.weight"] = np.zeros((3, 4, 3, 3))
        state["RRDB_trunk.0.RDB1.conv1.weight"] = np.zeros((2, 4, 3, 3))
        state["upconv1.weight"] = state["upconv2.weight"] = np.zeros((4, 4, 3, 3))
        flowsr_jax.from_torch(state)


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
import flowsr_jax
from test_api import TINY, make
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P
params = make(TINY)
lr = jax.random.uniform(jax.random.key(1), (8, 4, 4, 3))
hr = jax.random.uniform(jax.random.key(2), (8, 16, 16, 3))
mesh = Mesh(np.array(jax.devices()), ("data",), axis_types=(AxisType.Auto,))
put = lambda x: jax.device_put(x, NamedSharding(mesh, P("data")))
assert len(jax.devices()) == 8
key = jax.random.key(0)
a, b = flowsr_jax.sample(params, lr, key), flowsr_jax.sample(params, put(lr), key)
np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
a, b = flowsr_jax.encode(params, hr, lr)[1], flowsr_jax.encode(params, put(hr), put(lr))[1]
np.testing.assert_allclose(a, b, rtol=1e-5)
from flowsr_jax.models.srflow.losses import init_from_data
init = jax.jit(lambda p, b: init_from_data(p, b, None, noise="none"))
a, b = init(params, {"hr": hr, "lr": lr}), init(params, {"hr": put(hr), "lr": put(lr)})
for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
    np.testing.assert_allclose(x, y, atol=1e-4)
print("sharded ok")
"""


def test_sharded_arrays_give_the_same_picture():
    result = subprocess.run(
        [sys.executable, "-c", SHARDED],
        env={**os.environ, **virtual_devices(8), "PYTHONPATH": os.pathsep.join([".", "tests"])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "sharded ok" in result.stdout, result.stderr[-2000:]
