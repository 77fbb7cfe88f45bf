"""Models as Flax modules: init, apply, bind, tabulate, and inside other people's modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import chex
import flax.linen as nn
import frozen_cases
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import flowsr_jax
from flowsr_jax import models
from flowsr_jax.bijectors import ActNorm, Chain, Conv1x1
from flowsr_jax.bijectors.module import Flow
from flowsr_jax.models import get_family
from flowsr_jax.models.glow import GlowConfig
from flowsr_jax.models.srflow import SRFlowConfig

KEY = jax.random.key(0)
RRDB = {"nf": 4, "gc": 2, "nb": 2}
GLOW = GlowConfig(levels=1, steps=2, hidden=4, size=4, channels=2)
SHAPES = {"glow": (8, 8), "realnvp": (8, 8), "nice": (4, 4)}


def example(case):
    """Arguments of a model's `__call__`, as shapes."""
    name, _, _, side = frozen_cases.CASES[case]
    config = frozen_cases.make_config(case)
    array = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)  # noqa: E731
    if name == "sr3":
        x = array(2, 16, 16, 3)
        return x, array(2), x if config.unet.cond_channels else None
    lr = array(2, side, side, 3)
    if name == "rrdb":
        return (lr,)
    hr = array(2, config.scale * side, config.scale * side, 3) if name in ("srflow", "irn") else lr
    if case in ("glow_classes", "nice"):
        hr = array(2, side, side, 1)
    label = (jax.ShapeDtypeStruct((2,), jnp.int32),) if case == "glow_classes" else ()
    return (hr, lr) if name == "srflow" else (hr, *label)


@pytest.mark.parametrize("case", frozen_cases.CASES)
def test_a_module_has_the_parameters_of_its_family(case):
    params = frozen_cases.abstract_params(case)
    model, variables = flowsr_jax.module(params)
    assert type(model) is getattr(flowsr_jax, type(model).__name__)
    assert hash(model) == hash(type(model)(params.config))
    made = jax.eval_shape(model.init, KEY, *example(case))
    chex.assert_trees_all_equal_shapes_and_dtypes(made["params"], variables["params"])


def test_names_of_models():
    assert set(models.MODULES) <= set(models.families())
    assert set(models.MODULES.values()) <= set(dir(flowsr_jax))
    with pytest.raises(AttributeError, match="SRFlw"):
        flowsr_jax.SRFlw  # noqa: B018


@pytest.fixture(scope="module")
def srflow():
    encoder = models.get_family("rrdb").config_class(scale=2, head="subpixel", **RRDB)
    config = SRFlowConfig(encoder, steps=(1,), transition_steps=1, hidden=4, stacked_blocks=(0,))
    return get_family("srflow").init(config, KEY)


def test_apply_bind_and_tabulate(srflow):
    lr = jax.random.uniform(KEY, (1, 4, 4, 3))
    hr = jax.random.uniform(jax.random.key(1), (1, 8, 8, 3))
    model, variables = flowsr_jax.module(srflow)
    run = jax.jit(lambda v: model.apply(v, hr, lr, method="encode"))
    latents, log_prob = run(variables)
    chex.assert_trees_all_close((latents, log_prob), flowsr_jax.encode(srflow, hr, lr), rtol=1e-5)
    bound = model.bind(variables)
    np.testing.assert_allclose(jax.jit(lambda hr, lr: bound(hr, lr))(hr, lr), log_prob, rtol=1e-5)
    image = jax.jit(lambda z: bound.decode(z, lr))(latents)
    np.testing.assert_allclose(image, hr, atol=1e-4)
    rrdb, plain = flowsr_jax.RRDB(srflow.config.encoder), {"width": 160, "force_terminal": False}
    table = nn.tabulate(rrdb, KEY, console_kwargs=plain)(lr)
    assert "encoder/trunk_conv" in table and "float32[3,3,4,4]" in table


def test_parameters_of_another_network_are_refused(srflow):
    model, variables = flowsr_jax.module(srflow)
    encoder = variables["params"]["encoder"]
    wrong = {**encoder, "trunk_conv": {**encoder["trunk_conv"], "w": jnp.zeros((3, 3, 4, 5))}}
    variables = {"params": {**variables["params"], "encoder": wrong}}
    with pytest.raises(ValueError, match=r"encoder/trunk_conv/w has the shape \(3, 3, 4, 5\)"):
        model.apply(variables, jnp.zeros((1, 4, 4, 3)), method="condition")


class VAE(nn.Module):
    """Images [B,64] with a Glow as the prior of the latent [B,4,4,2]."""

    @nn.compact
    def __call__(self, x, key):
        mean, logs = jnp.split(nn.Dense(64)(x), 2, axis=-1)
        noise = jax.random.normal(key, mean.shape)
        z = mean + jnp.exp(logs) * noise
        prior = flowsr_jax.Glow(GLOW, name="prior")(z.reshape(-1, 4, 4, 2))
        image = nn.Dense(64)(z)
        posterior = -jnp.sum(logs + 0.5 * noise**2, axis=-1)
        rebuilt = -0.5 * jnp.sum((image - x) ** 2, axis=-1)
        return -jnp.mean(rebuilt + prior - posterior)


def test_a_prior_inside_an_own_model_learns():
    x = jnp.sin(jnp.arange(8 * 64.0).reshape(8, 64))
    vae, optimizer = VAE(), optax.adam(1e-2)
    params = jax.jit(vae.init)(KEY, x, KEY)["params"]
    assert set(params["prior"]) == {"flow", "prior"}

    @jax.jit
    def step(params, state, key):
        loss = lambda p: vae.apply({"params": p}, x, key)  # noqa: E731
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, value, grads

    state, losses = optimizer.init(params), []
    for _ in range(10):
        params, state, value, grads = step(params, state, KEY)
        losses.append(float(value))
    assert losses[-1] < losses[0] - 10
    assert all(np.any(g) for g in jax.tree.leaves(grads["prior"]["flow"]["multiscale"]["level1"]))


def test_a_model_trains_in_an_nnx_loop():
    """RRDB, of random initial values."""
    lr = jax.random.uniform(KEY, (2, 4, 4, 3))
    hr = jnp.repeat(jnp.repeat(lr, 2, axis=1), 2, axis=2)
    config = get_family("rrdb").config_class(scale=2, head="subpixel", **RRDB)
    model = nnx.bridge.ToNNX(flowsr_jax.RRDB(config), rngs=nnx.Rngs(0)).lazy_init(lr)
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        loss = lambda model: jnp.mean(jnp.abs(model(lr) - hr))  # noqa: E731
        value, grads = nnx.value_and_grad(loss)(model)
        optimizer.update(model, grads)
        return value

    losses = [float(step(model, optimizer)) for _ in range(10)]
    assert losses[-1] < 0.8 * losses[0]


def test_any_bijector_is_a_module():
    bijector = Chain((("actnorm", ActNorm()), ("conv1x1", Conv1x1())))
    flow, x = Flow(bijector, (4,)), jax.random.normal(KEY, (3, 4))
    variables = flow.init(KEY, x)
    want = bijector.init(KEY, (4,))
    chex.assert_trees_all_equal_shapes_and_dtypes(variables["params"]["flow"], want)
    y, logdet = flow.apply(variables, x)
    back, undone = flow.apply(variables, y, method="inverse")
    np.testing.assert_allclose(back, x, atol=1e-5)
    np.testing.assert_allclose(undone, -logdet, atol=1e-5)
    (y, _), new = flow.apply(variables, x, method="init_from_data", mutable=["params"])
    np.testing.assert_allclose(flow.apply(new, x)[0], y, atol=1e-5)
    actnorm = new["params"]["flow"]["actnorm"]
    np.testing.assert_allclose(actnorm["bias"], -jnp.mean(x, axis=0), atol=1e-6)


def test_the_section_of_the_readme_runs():
    text = (Path(__file__).parents[1] / "README.md").read_text()
    section = text[text.index("## For Flax users") :]
    code = section[section.index("```python") + len("```python") : section.index("\n```\n")]
    assert 10 <= len(code.strip().splitlines()) <= 22
    names = {"flowsr_jax": flowsr_jax, "jax": jax, "nn": nn, "Any": Any}
    exec(code, names)
    assert np.isfinite(names["log_prob"]).all()
    trained = names["mine"]["params"]["rrdb"]["encoder"]
    image = names["Sharpened"](names["model"].config.encoder)
    assert jax.eval_shape(image.apply, names["mine"], names["lr"]).shape == names["hr"].shape
    assert trained is names["params"]["encoder"]
