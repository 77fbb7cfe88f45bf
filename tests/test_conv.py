"""The two forms of a convolution are the same sum, and so are their gradients."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowsr_jax.nets.attention import SelfAttention
from flowsr_jax.nets.conv import PLAIN, Compute, _kernel_gradient, conv2d
from flowsr_jax.nets.coupling_net import CouplingNet
from flowsr_jax.nets.layers import Dense, init_params
from flowsr_jax.nets.unet_blocks import down_conv


@pytest.mark.parametrize("shape", [(1, 5, 7, 3, 8), (2, 6, 4, 9, 2), (3, 1, 1, 4, 4)])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_gemm_equals_xla_with_gradients(shape, size):
    b, h, w, ci, co = shape
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((b, h, w, ci)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((size, size, ci, co)), jnp.float32)
    bias = jnp.asarray(rng.standard_normal(co), jnp.float32)
    weight = jnp.asarray(rng.standard_normal((b, h, w, co)), jnp.float32)

    def run(compute):
        def loss(x, kernel, bias):
            return jnp.sum(weight * jnp.tanh(conv2d(x, kernel, bias, compute)))

        return jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(x, kernel, bias)

    plain, plain_grads = run(PLAIN)
    for compute in (Compute(conv="gemm"), Compute()):
        value, grads = run(compute)
        np.testing.assert_allclose(value, plain, rtol=1e-5)
        for a, b in zip(grads, plain_grads, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)


def test_gemm_inside_a_scan_and_under_vmap():
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.standard_normal((2, 6, 6, 4)), jnp.float32)
    kernels = jnp.asarray(0.2 * rng.standard_normal((3, 3, 3, 4, 4)), jnp.float32)

    def run(compute):
        def loss(kernels):
            body = lambda z, k: (jnp.tanh(conv2d(z, k, None, compute)), None)  # noqa: E731
            return jnp.sum(jnp.square(jax.lax.scan(body, x, kernels)[0]))

        return jax.jit(jax.grad(loss))(kernels)

    np.testing.assert_allclose(run(Compute(conv="gemm")), run(PLAIN), atol=1e-4)
    many = jax.vmap(lambda k: conv2d(x, k, None, Compute(conv="gemm")))(kernels)
    for i in range(3):
        np.testing.assert_allclose(many[i], conv2d(x, kernels[i], None, PLAIN), atol=1e-5)


@pytest.mark.parametrize("conv", ["xla", "gemm", "auto"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_bfloat16_has_float32_outputs_and_gradients(conv, size):
    rng = np.random.default_rng(2)
    x = jnp.asarray(rng.standard_normal((2, 6, 6, 4)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((size, size, 4, 5)), jnp.float32)

    def loss(x, kernel, compute):
        y = conv2d(x, kernel, None, compute, ((1, 0), (0, 1)) if size == 2 else None)
        assert y.dtype == jnp.float32 and y.shape == (2, 6, 6, 5)
        return jnp.sum(jnp.tanh(y))

    half = jax.grad(loss, (0, 1))(x, kernel, Compute(dtype="bfloat16", conv=conv))
    full = jax.grad(loss, (0, 1))(x, kernel, PLAIN)
    for a, b in zip(half, full, strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, atol=0.05 * float(jnp.max(jnp.abs(b))))


def test_a_zero_gradient_gives_a_zero_kernel_gradient():
    # The CPU compiler got a product of several contracted axes with constant zeros wrong.
    zeros, padding = jnp.zeros((2, 8, 8, 45)), ((1, 1), (1, 1))
    norm = jax.jit(lambda x, k: jnp.sum(_kernel_gradient(padding, x, zeros, k) ** 2))
    assert float(norm(jnp.ones((2, 8, 8, 35)), jnp.ones((3, 3, 35, 45)))) == 0.0


def products(jaxpr):
    """(dtype of both operands, precisions) of every convolution and product of a program."""
    found = set()
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in ("conv_general_dilated", "dot_general"):
            dtypes = tuple(v.aval.dtype.name for v in eqn.invars[:2])
            found.add((dtypes, tuple(p.name for p in eqn.params["precision"])))
        for inner in jax.core.jaxprs_in_params(eqn.params):
            found |= products(inner)
    return found


@pytest.mark.parametrize("conv", ["xla", "gemm"])
@pytest.mark.parametrize("dtype", ["bfloat16", "tensorfloat32"])
def test_the_backward_pass_multiplies_as_the_forward_pass(dtype, conv):
    compute = Compute(dtype=dtype, conv=conv)
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)  # noqa: E731
    attention = {
        "norm": {"scale": jnp.ones(8), "bias": jnp.zeros(8)},
        "qkv": {"w": draw(1, 1, 8, 24) / 8},
        "out": {"w": draw(1, 1, 8, 8), "b": jnp.zeros(8)},
    }
    level = {"w": draw(8, 8), "b": jnp.zeros(8)}

    coupling = init_params(CouplingNet(8, features=8), jax.random.key(0), jnp.zeros((1, 6, 6, 8)))
    coupling = jax.tree.map(lambda x: x + 0.1, coupling)  # its last layer is zeros

    def loss(compute, x, kernel, attention, level, coupling):
        y = down_conv(conv2d(x, kernel, None, compute), kernel, compute)
        mix = SelfAttention(2, compute=compute)
        y = mix.apply({"params": attention}, y.astype(compute.operands))
        z = CouplingNet(8, compute=compute, features=8).apply({"params": coupling}, x)
        y = Dense(8, compute=compute).apply({"params": level}, y)
        return jnp.mean(y**2) + jnp.mean((z + 1) ** 2)

    given = draw(2, 6, 6, 8), draw(3, 3, 8, 8), attention, level, coupling
    run = lambda compute: jax.grad(functools.partial(loss, compute), range(5))  # noqa: E731
    found = products(jax.make_jaxpr(run(compute))(*given).jaxpr)
    if dtype == "bfloat16":
        assert {dtypes for dtypes, _ in found} == {("bfloat16", "bfloat16")}
    else:
        assert found == {(("float32", "float32"), ("HIGH", "HIGH"))}
    half, full = run(compute)(*given), run(PLAIN)(*given)
    for a, b in zip(jax.tree.leaves(half), jax.tree.leaves(full), strict=True):
        assert float(jnp.linalg.norm(a - b)) < 0.03 * float(jnp.linalg.norm(b))
