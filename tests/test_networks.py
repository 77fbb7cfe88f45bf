"""Networks of bijectors: stock Flax modules and nnx modules."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
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
from flowsr_jax.nets.from_nnx import FromNNX
from flowsr_jax.nets.mlp import MLP
from flowsr_jax.nets.upsampled import Upsampled, dense
from flowsr_jax.testing import check_bijector, moved

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
