"""What makes SRFlow cheaper changes no number: each lever against the plain form."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowsr_jax.models import get_family
from flowsr_jax.models.base import Params
from flowsr_jax.models.rrdb.config import RRDBConfig
from flowsr_jax.models.srflow.config import SRFlowConfig
from flowsr_jax.models.srflow.losses import nll_loss
from flowsr_jax.models.srflow.network import condition
from flowsr_jax.nets.conv import Compute, conv2d
from flowsr_jax.nets.upsampled import Upsampled, conv_nearest, conv_parts, dense, nearest

PLAIN = {"hoist": False, "subpixel": False, "conv": "xla"}
LEVERS = {
    "hoist": {"subpixel": False},
    "subpixel": {"hoist": False},
    "both": {},
    "both, matrix products": {"conv": "gemm", "unroll": True},
    "remat": {"memory": "remat"},
    "reversible": {"memory": "reversible"},
    "reversible, plain": {"memory": "reversible", "hoist": False, "subpixel": False},
}


@pytest.mark.parametrize("conv", ["xla", "gemm"])
@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8])
def test_a_convolution_of_enlarged_features_at_the_small_size(factor, conv):
    rng = np.random.default_rng(factor)
    x = jnp.asarray(rng.standard_normal((2, 3, 5, 4)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((3, 3, 4, 6)), jnp.float32)
    weight = rng.standard_normal((2, 3 * factor, 5 * factor, 6)).astype(np.float32)

    def gradients(convolve):
        loss = lambda x, k: jnp.sum(weight * jnp.tanh(convolve(x, k)))  # noqa: E731
        return jax.jit(jax.value_and_grad(loss, (0, 1)))(x, kernel)

    plain = gradients(lambda x, k: conv2d(nearest(x, factor), k, None, Compute(conv="xla")))
    found = gradients(lambda x, k: conv_nearest(x, k, factor, Compute(conv=conv)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-4), found, plain)


def test_the_parts_of_a_conditioning_are_its_channels():
    rng = np.random.default_rng(0)
    parts = tuple(
        Upsampled(jnp.asarray(rng.standard_normal((1, 8 // f, 4 // f, c)), jnp.float32), f)
        for f, c in ((1, 3), (4, 2), (2, 5))
    )
    kernel = jnp.asarray(rng.standard_normal((3, 3, 10, 7)), jnp.float32)
    assert dense(parts).shape == (1, 8, 4, 10) and parts[1].shape == (1, 8, 4, 2)
    np.testing.assert_allclose(
        conv_parts(parts, kernel, Compute()), conv2d(dense(parts), kernel), atol=1e-5
    )


@functools.cache
def weights(scale):
    encoder = RRDBConfig(scale=scale, nf=6, gc=4, nb=2)
    config = SRFlowConfig(encoder, (2, 2), transition_steps=0, hidden=8, stacked_blocks=(0, 1))
    leaves, tree = jax.tree.flatten(get_family("srflow").init(config, jax.random.key(0)).tree)
    # Networks of zeros would hide what the conditioning does.
    rng = np.random.default_rng(0)
    moved = [x + 0.02 * rng.standard_normal(x.shape, np.float32) for x in leaves]
    return jax.tree.unflatten(tree, moved)


@functools.cache
def results(scale, **compute):
    """Numbers of one small SRFlow with these levers."""
    of_flow = Compute(**compute)
    memory = "store" if of_flow.memory == "store" else "remat"
    of_encoder = dataclasses.replace(of_flow, memory=memory)
    encoder = RRDBConfig(scale=scale, nf=6, gc=4, nb=2, compute=of_encoder)
    config = SRFlowConfig(
        encoder, (2, 2), transition_steps=0, hidden=8, stacked_blocks=(0, 1), compute=of_flow
    )
    family, params = get_family("srflow"), Params(weights(scale), config)
    lr = jax.random.uniform(jax.random.key(1), (2, 4, 6, 3))
    hr = jax.image.resize(lr, (2, 4 * scale, 6 * scale, 3), "cubic")

    @jax.jit
    def run(params):
        loss = lambda p: nll_loss(p, {}, {"hr": hr, "lr": lr}, jax.random.key(3))[0]  # noqa: E731
        value, gradients = jax.value_and_grad(loss)(params)
        samples = family.sample(params, lr, jax.random.key(4), num_samples=2)
        return {"loss": value, "gradients": gradients.tree, "samples": samples}

    return run(params), jax.eval_shape(condition, params, lr)


@pytest.mark.parametrize(("lever", "scale"), [*((lever, 4) for lever in LEVERS), ("both", 8)])
def test_levers_change_no_number(lever, scale):
    plain, _ = results(scale, **PLAIN)
    found, _ = results(scale, **LEVERS[lever])
    assert float(jnp.std(found["samples"])) > 1e-3
    for name, value in found.items():
        pairs = zip(jax.tree.leaves(value), jax.tree.leaves(plain[name]), strict=True)
        norm = np.linalg.norm
        error = max(norm(a - b) / max(norm(b), 1e-6) for a, b in pairs)
        print(f"{lever} x{scale} {name}: largest relative error {error:.1e}")
        assert error < (1e-4 if name == "gradients" else 1e-5), name


def test_the_small_size_is_taken_where_it_saves():
    _, cond = results(4)
    assert [part.factor for part in cond["levels"][0]] == [1, 2]
    assert cond["levels"][1].ndim == 4
    _, cond = results(8)
    assert [[part.factor for part in level] for level in cond["levels"]] == [[1, 4], [1, 2]]
    _, cond = results(4, **PLAIN)
    assert all(level.ndim == 4 for level in cond["levels"])
