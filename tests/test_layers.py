"""The layers of the networks: leaves, arithmetic, gradients, initial values, stacked blocks."""

from __future__ import annotations

import math

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowsr_jax.nets import layers
from flowsr_jax.nets.conv import PLAIN, Compute, conv2d, matmul

HALF = Compute(dtype="bfloat16", conv="xla")


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


X = draw(0, 2, 4, 4, 4)
W, B, LOGS = draw(1, 3, 3, 4, 6), draw(2, 6), 0.1 * draw(3, 6)

# {name: (layer, its parameters, the same as a function of parameters and x)}
CASES = {
    "conv": (
        lambda c: layers.Conv(6, compute=c),
        {"w": W, "b": B},
        lambda p, x, c: conv2d(x, p["w"], p["b"], c),
    ),
    "conv 1x1 without bias": (
        lambda c: layers.Conv(6, 1, use_bias=False, compute=c),
        {"w": W[:1, :1]},
        lambda p, x, c: conv2d(x, p["w"], None, c),
    ),
    "zero conv": (
        lambda c: layers.ZeroConv(6, c),
        {"w": W, "b": B, "logs": LOGS},
        lambda p, x, c: conv2d(x, p["w"], p["b"], c) * jnp.exp(3.0 * p["logs"]),
    ),
    "dense": (
        lambda c: layers.Dense(6, compute=c),
        {"w": W[0, 0], "b": B},
        lambda p, x, c: (
            matmul(x.astype(c.operands), p["w"].astype(c.operands), c.precision) + p["b"]
        ),
    ),
    "channel affine": (
        lambda c: layers.ChannelAffine(3.0),
        {"bias": B[:4], "logs": LOGS[:4]},
        lambda p, x, c: (x + p["bias"]) * jnp.exp(3.0 * p["logs"]),
    ),
}


@pytest.mark.parametrize("compute", [PLAIN, HALF], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", CASES)
def test_a_layer_is_the_function_of_its_leaves(name, compute):
    make, params, function = CASES[name]
    layer = make(compute)
    shapes = jax.eval_shape(layer.init, jax.random.key(0), X)["params"]
    chex.assert_trees_all_equal_shapes_and_dtypes(shapes, params)

    def text(f):
        return str(jax.make_jaxpr(jax.value_and_grad(lambda p: jnp.sum(f(p, X) ** 2)))(params))

    as_layer = text(lambda p, x: layer.apply({"params": p}, x))
    assert as_layer == text(lambda p, x: function(p, x, compute))


def test_bfloat16_leaves_biases_and_sums_in_float32():
    params = CASES["conv"][1]
    got = layers.Conv(6, compute=HALF).apply({"params": params}, X)
    assert got.dtype == jnp.float32
    # What would be lost: flax's own layer adds the bias up in bfloat16.
    stock = nn.Conv(6, (3, 3), dtype=jnp.bfloat16).apply({"params": {"kernel": W, "bias": B}}, X)
    assert stock.dtype == jnp.bfloat16
    half = lambda v: np.asarray(v.astype(jnp.bfloat16), np.float32)  # noqa: E731
    exact = conv2d(jnp.asarray(half(X)), jnp.asarray(half(W)), B, PLAIN)
    np.testing.assert_allclose(got, exact, atol=1e-5)
    assert np.abs(np.asarray(stock, np.float32) - exact).max() > 1e-3


def test_group_norm_is_that_of_numpy():
    x = np.asarray(draw(5, 2, 3, 3, 6)) + 2.0
    scale, bias = np.asarray(draw(6, 6)), np.asarray(draw(7, 6))
    got = layers.GroupNorm(2).apply({"params": {"scale": scale, "bias": bias}}, x)
    grouped = x.reshape(2, 9, 2, 3)
    mean, std = (f(grouped, axis=(1, 3), keepdims=True) for f in (np.mean, np.std))
    want = ((grouped - mean) / np.sqrt(std**2 + 1e-5)).reshape(x.shape) * scale + bias
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("logscale", [1.0, 3.0])
def test_channel_affine_learns_from_data_only_where_params_are_mutable(logscale):
    layer, x = layers.ChannelAffine(logscale), 3.0 * X + 1.0
    params = layer.init(jax.random.key(0), x)["params"]
    np.testing.assert_array_equal(layer.apply({"params": params}, x), x)
    y, new = layer.apply({"params": params}, x, mutable=["params"])
    np.testing.assert_allclose(np.mean(y, axis=(0, 1, 2)), 0.0, atol=1e-5)
    np.testing.assert_allclose(np.std(y, axis=(0, 1, 2)), 1.0, atol=1e-4)
    np.testing.assert_array_equal(layer.apply(new, x), y)


def test_leaky_relu_has_both_derivatives_at_zero():
    x = jnp.array([-1.0, 0.0, 2.0])
    for strict, at_zero in ((False, 1.0), (True, 0.2)):
        f = lambda x, strict=strict: jnp.sum(layers.leaky_relu(x, strict))  # noqa: E731
        np.testing.assert_allclose(layers.leaky_relu(x, strict), [-0.2, 0.0, 2.0], rtol=1e-6)
        np.testing.assert_allclose(jax.grad(f)(x), [0.2, at_zero, 1.0], rtol=1e-6)


def test_pixel_shuffle_and_half_size_are_inverse_on_constant_cells():
    x = draw(8, 1, 2, 3, 2)
    cells = jnp.repeat(x, 4, axis=-1)
    large = layers.pixel_shuffle(cells, 2)
    assert large.shape == (1, 4, 6, 2)
    np.testing.assert_allclose(layers.half_size(large), x, rtol=1e-6)
    ramp = jnp.arange(4.0).reshape(1, 1, 1, 4)
    assert layers.pixel_shuffle(ramp, 2)[0, :, :, 0].tolist() == [[0, 1], [2, 3]]


def test_initial_values_have_the_named_spread():
    key, shape = jax.random.key(0), (3, 3, 64, 32)
    fan_in = 9 * 64
    assert np.std(layers.kaiming(0.1)(key, shape)) == pytest.approx(
        0.1 * math.sqrt(2 / fan_in), rel=0.05
    )
    assert np.std(layers.normal(0.05)(key, shape)) == pytest.approx(0.05, rel=0.05)
    drawn = layers.torch_default(fan_in)["kernel_init"](key, shape)
    assert np.abs(drawn).max() == pytest.approx(1 / math.sqrt(fan_in), rel=0.01)
    assert layers.normal(0.5) is layers.normal(0.5)  # layers that hold it compare equal
    assert not layers.zeros(key, shape).any() and layers.ones(key, (2,)).all()


class Block(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x):
        y = layers.Conv(self.width, compute=PLAIN, name="conv1")(x)
        y = layers.ChannelAffine(name="norm")(layers.leaky_relu(y))
        return x + layers.Conv(x.shape[-1], 1, compute=PLAIN, name="conv2")(y)


def test_init_params_draws_what_lazy_init_draws():
    block, key = Block(3), jax.random.key(5)
    x = jax.ShapeDtypeStruct(X.shape, X.dtype)
    chex.assert_trees_all_equal(
        layers.init_params(block, key, x), block.lazy_init(key, x)["params"]
    )


def test_init_params_evaluates_the_draws_alone():
    block = layers.Conv(6)  # its form is a branch by platform, which is slow to evaluate
    jaxpr = jax.make_jaxpr(lambda key: layers.init_params(block, key, X))(jax.random.key(0))
    names = {eqn.primitive.name for eqn in jaxpr.eqns}
    assert not names & {"cond", "platform_index", "conv_general_dilated", "dot_general"}
    assert "random_fold_in" in names or "jit" in names or "pjit" in names


@pytest.mark.parametrize("memory", ["store", "remat"])
def test_stacked_blocks_run_one_after_the_other(memory):
    block, key = Block(3), jax.random.key(6)
    params = layers.stacked(block, 3)(key, X.shape[1:])
    own = [jax.tree.map(lambda v, k=k: v[k], params) for k in range(3)]
    chex.assert_trees_all_equal(own[1], layers.init_params(block, jax.random.fold_in(key, 1), X))

    def loop(params):
        x, kept = X, []
        for k in range(3):
            x = block.apply({"params": jax.tree.map(lambda v, k=k: v[k], params)}, x)
            kept.append(x)
        return jnp.sum(jnp.sin(x)), jnp.stack(kept)

    def scanned(params):
        x, kept = layers.run_blocks(block, params, X, Compute(memory=memory), keep=True)
        return jnp.sum(jnp.sin(x)), kept

    want = jax.jit(jax.value_and_grad(loop, has_aux=True))(params)
    got = jax.jit(jax.value_and_grad(scanned, has_aux=True))(params)
    chex.assert_trees_all_close(got, want, atol=1e-5, rtol=1e-5)
    assert layers.run_blocks(block, params, X, PLAIN)[1] is None
