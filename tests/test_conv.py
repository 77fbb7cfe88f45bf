"""The two forms of a convolution are the same sum, and so are their gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowsr_jax.nets.conv import PLAIN, Compute, _kernel_gradient, conv2d


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
@pytest.mark.parametrize("size", [1, 3])
def test_bfloat16_has_float32_outputs_and_gradients(conv, size):
    rng = np.random.default_rng(2)
    x = jnp.asarray(rng.standard_normal((2, 6, 6, 4)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((size, size, 4, 5)), jnp.float32)

    def loss(x, kernel, compute):
        y = conv2d(x, kernel, None, compute)
        assert y.dtype == jnp.float32
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
