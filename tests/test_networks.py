"""Networks of bijectors: stock Flax modules, nnx modules, and bijectors as modules."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from flowsr_jax.bijectors import (
    ActNorm,
    Affine,
    Chain,
    Coupling,
    Flow,
    Injector,
    RationalQuadratic,
    Reverse,
    ScaleForm,
    Scan,
)
from flowsr_jax.math.gaussian import standard_normal_log_prob
from flowsr_jax.nets.coupling_net import CouplingNet
from flowsr_jax.nets.from_nnx import FromNNX
from flowsr_jax.nets.mlp import MLP
from flowsr_jax.nets.upsampled import Upsampled, dense
from flowsr_jax.testing import check_bijector, moved

pytestmark = pytest.mark.usefixtures("quick_compile")
BOUNDED = Affine(ScaleForm("tanh", clamp=2.0))


class Stock(nn.Module):
    """A user's network of images: stock layers, no conditioning."""

    features: int = 0
    width: int = 4

    @nn.compact
    def __call__(self, x):
        x = nn.gelu(nn.Conv(self.width, (3, 3))(x))
        return nn.Conv(self.features, (3, 3))(nn.LayerNorm()(x))


class Conditional(nn.Module):
    """A user's network of vectors that joins cond to x."""

    features: int = 0
    cond_channels: int = 3

    @nn.compact
    def __call__(self, x, cond=None):
        x = cond if x is None else jnp.concatenate([x, cond], axis=-1)
        return nn.Dense(self.features)(nn.tanh(nn.Dense(5)(x)))


class WithNNX(nnx.Module):
    """The same in nnx; with cond_channels, which is None for none."""

    def __init__(self, ci, co, *, width, cond_channels=0, rngs):
        self.inside = nnx.Linear(ci + cond_channels, width, rngs=rngs)
        self.out = nnx.Linear(width, co, rngs=rngs)

    def __call__(self, x, cond=None):
        x = x if cond is None else jnp.concatenate([x, cond], axis=-1)
        return self.out(nnx.tanh(self.inside(x)))


NNX = FromNNX(WithNNX, (("width", 5),))
COND_NNX = FromNNX(WithNNX, (("width", 5), ("cond_channels", 3)), cond_channels=3)


def _step(coupling):
    return Chain((("actnorm", ActNorm()), ("reverse", Reverse()), ("coupling", coupling)))


@pytest.mark.parametrize(
    ("bijector", "shape", "cond"),
    [
        (Coupling(Stock(), BOUNDED), (2, 2, 4), None),
        (Scan(_step(Coupling(Conditional(), BOUNDED)), 2, memory="reversible"), (4,), (2, 3)),
        (Coupling(Conditional(), RationalQuadratic(3)), (4,), (2, 3)),
        (Injector(Conditional(), BOUNDED), (4,), (2, 3)),
        (Coupling(NNX, BOUNDED), (5,), None),
        (Scan(_step(Coupling(COND_NNX, BOUNDED)), 2, memory="reversible"), (4,), (2, 3)),
    ],
    ids=["linen", "linen_reversible", "linen_spline", "linen_injector", "nnx", "nnx_reversible"],
)
def test_own_networks_hold_the_invariants(bijector, shape, cond):
    cond = None if cond is None else jax.random.normal(jax.random.key(3), cond)
    check_bijector(bijector, shape, cond=cond)


@pytest.mark.parametrize("net", [Conditional(), COND_NNX], ids=["linen", "nnx"])
def test_reversible_gradients_are_those_of_plain_autodiff(net):
    scan = Scan(_step(Coupling(net, BOUNDED)), 3)
    params = moved(scan.init(jax.random.key(0), (4,)))
    x, cond = jax.random.normal(jax.random.key(1), (2, 4)), jnp.ones((2, 3))

    def gradients(memory):
        def loss(params, cond):
            y, logdet = dataclasses.replace(scan, memory=memory).forward(params, x, cond)
            return jnp.sum(jnp.sin(y)) + jnp.sum(logdet)

        return jax.jit(jax.grad(loss, (0, 1)))(params, cond)

    plain, saving = gradients("store"), gradients("reversible")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-4), plain, saving)
    assert float(jnp.max(jnp.abs(plain[1]))) > 1e-3  # cond matters


def test_cond_is_one_array_unless_the_network_takes_parts():
    parts = (Upsampled(jnp.ones((1, 1, 1, 2)), 2), Upsampled(jnp.zeros((1, 2, 2, 1)), 1))
    x = jnp.zeros((1, 2, 2, 4))
    seen = []

    class Recorder(nn.Module):
        features: int = 0
        takes_parts: bool = False

        def __call__(self, x, cond=None):
            seen.append(cond)
            return jnp.zeros((*x.shape[:-1], self.features))

    Coupling(Recorder()).forward({"net": {}}, x, parts)
    Coupling(Recorder(takes_parts=True)).forward({"net": {}}, x, parts)
    np.testing.assert_array_equal(seen[0], dense(parts))
    assert seen[1] is parts


class WithStatistics(nn.Module):
    features: int = 0

    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=True)(nn.Dense(self.features)(x))


class NNXWithStatistics(nnx.Module):
    def __init__(self, ci, co, *, rngs):
        self.norm, self.out = nnx.BatchNorm(ci, rngs=rngs), nnx.Linear(ci, co, rngs=rngs)

    def __call__(self, x):
        return self.out(self.norm(x))


def test_what_is_no_network_is_refused():
    class Featureless(nn.Module):
        def __call__(self, x):
            return x

    for net in (Featureless(), WithNNX, object()):
        with pytest.raises(TypeError, match="a network is a flax.linen module with a field `feat"):
            Coupling(net)
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="WithStatistics holds batch_stats"):
        Coupling(WithStatistics()).init(key, (4,))
    with pytest.raises(ValueError, match="NNXWithStatistics holds BatchStat"):
        Coupling(FromNNX(NNXWithStatistics)).init(key, (4,))


class Model(nn.Module):
    """Builds its flow where it runs."""

    options: tuple = ()

    @nn.compact
    def __call__(self, x):
        net = MLP(4, 1, None, **dict(self.options))
        return Flow(Coupling(net, BOUNDED), (4,), name="prior")(x)


def test_a_network_made_inside_a_running_module_needs_no_parent():
    x, key = jnp.ones((2, 4)), jax.random.key(0)
    with pytest.raises(ValueError, match="MLP belongs to the Flax module.*parent=None"):
        Model().init(key, x)
    model = Model((("parent", None),))
    variables = model.init(key, x)
    assert set(variables["params"]["prior"]["flow"]["net"]) == {"layer0", "layer1"}
    y, logdet = model.apply(variables, x)
    assert y.shape == (2, 4) and logdet.shape == (2,)


def test_a_flow_is_a_module():
    bijector = Scan(_step(Coupling(CouplingNet(4, 2), BOUNDED)), 2)
    flow, x = Flow(bijector, (2, 2, 4)), jax.random.normal(jax.random.key(1), (3, 2, 2, 4))
    cond = jnp.ones((3, 2, 2, 2))
    variables = flow.init(jax.random.key(0), x, cond)
    wanted = jax.eval_shape(lambda: bijector.init(jax.random.key(0), (2, 2, 4)))
    assert jax.tree.map(jnp.shape, variables["params"]["flow"]) == jax.tree.map(jnp.shape, wanted)
    (y, logdet), new = flow.apply(variables, x, cond, method="init_from_data", mutable=["params"])
    again, logdet_again = flow.apply(new, x, cond)
    np.testing.assert_allclose(again, y, atol=1e-5)
    np.testing.assert_allclose(logdet_again, logdet, atol=1e-4)
    back, _ = flow.apply(new, y, cond, method="inverse")
    np.testing.assert_allclose(back, x, atol=1e-5)
    assert "flow" in flow.tabulate(jax.random.key(0), x, cond, console_kwargs={"width": 200})


class Autoencoder(nn.Module):
    """A variational autoencoder with a flow as its prior."""

    @nn.compact
    def __call__(self, x, key):
        mean, logs = jnp.split(nn.Dense(4)(nn.tanh(nn.Dense(8)(x))), 2, axis=-1)
        noise = jax.random.normal(key, mean.shape)
        net = MLP(8, 1, None, parent=None)
        z = mean + jnp.exp(logs) * noise
        prior = Scan(_step(Coupling(net, BOUNDED)), 2)
        latent, logdet = Flow(prior, (2,), name="prior")(z)
        error = jnp.sum(jnp.square(x - nn.Dense(x.shape[-1])(nn.tanh(nn.Dense(8)(z)))), axis=-1)
        entropy = jnp.sum(logs, axis=-1)
        return jnp.mean(error - entropy - logdet - standard_normal_log_prob(latent))


def test_a_flow_is_the_prior_of_an_autoencoder():
    x = jax.random.normal(jax.random.key(1), (64, 2)) @ jnp.ones((2, 6))
    model, optimizer = Autoencoder(), optax.adam(1e-2)
    variables = model.init(jax.random.key(0), x, jax.random.key(2))

    @jax.jit
    def step(variables, state, key):
        loss, grads = jax.value_and_grad(model.apply)(variables, x, key)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(variables, updates), state, loss

    state, losses, start = optimizer.init(variables), [], variables
    for key in jax.random.split(jax.random.key(3), 30):
        variables, state, loss = step(variables, state, key)
        losses.append(float(loss))
    assert losses[-1] < 0.8 * losses[0]
    moved_by = jax.tree.map(
        lambda a, b: float(jnp.max(jnp.abs(a - b))),
        variables["params"]["prior"], start["params"]["prior"],
    )  # fmt: skip
    assert min(jax.tree.leaves(moved_by)) > 0
