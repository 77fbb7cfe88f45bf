"""A network of couplings chosen by name in a config, and remembered by saved folders."""

from __future__ import annotations

import functools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import flowsr_jax
from flowsr_jax.config import ConfigError, from_dict, to_dict
from flowsr_jax.models import get_family
from flowsr_jax.models.importer import state_dict
from flowsr_jax.nets.choice import NETWORKS
from flowsr_jax.nets.from_nnx import FromNNX


class Small(nn.Module):
    """Stock layers; the last one begins with zeros, so that a coupling begins as a constant."""

    features: int = 0
    width: int = 4

    @nn.compact
    def __call__(self, x, cond=None):
        x = cond if x is None else x if cond is None else jnp.concatenate([x, cond], axis=-1)
        x = nn.gelu(nn.Conv(self.width, (3, 3))(x))
        return nn.Conv(self.features, (3, 3), kernel_init=nn.initializers.zeros)(x)


class Conditioned(Small):
    cond_channels: int = 0


class NNX(nnx.Module):
    def __init__(self, ci, co, *, width=3, rngs):
        self.inside = nnx.Conv(ci, width, (1, 1), rngs=rngs)
        self.out = nnx.Conv(width, co, (1, 1), rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.tanh(self.inside(x)))


ENCODER = {"scale": 2, "nf": 4, "gc": 2, "nb": 1}
FLOW = {"steps": (1, 1), "transition_steps": 1, "stacked_blocks": (0,)}
# {family: (config, network, its options)}
CASES = {
    "srflow": ({"encoder": ENCODER, **FLOW}, Conditioned, {"width": 3}),
    "glow": ({"levels": 1, "steps": 1, "size": 4, "channels": 3}, Small, {}),
    "irn": ({"scale": 2, "blocks": (1,)}, functools.partial(FromNNX, NNX), {}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_chosen_network_is_remembered(name, tmp_path):
    values, network, options = CASES[name]
    family = get_family(name)
    with NETWORKS.using("mine", network):
        chosen = {"name": "mine", "options": options}
        config = from_dict(family.config_class, {**values, "network": chosen})
        assert from_dict(family.config_class, json.loads(json.dumps(to_dict(config)))) == config
        params = family.init(config, jax.random.key(0))
        names = str(jax.tree_util.tree_structure(dict(params.tree)))
        assert ("'Conv_0'" if name != "irn" else "'inside'") in names
        flowsr_jax.save(params, tmp_path)
        again = flowsr_jax.load(tmp_path)
        assert again.config == config
        hr = jax.random.uniform(jax.random.key(1), (1, 8, 8, 3))
        lr = [hr[:, ::2, ::2]] if name == "srflow" else []
        latents, _ = flowsr_jax.encode(again, hr, *lr)
        np.testing.assert_allclose(flowsr_jax.decode(again, latents, *lr), hr, atol=1e-4)
        with pytest.raises(ConfigError, match="network"):
            state_dict(params)
    with pytest.raises(ValueError, match="unknown network 'mine'"):
        flowsr_jax.load(tmp_path)


def test_what_cannot_be_chosen():
    with pytest.raises(ConfigError, match="unknown network 'mine'"):
        flowsr_jax.NetworkConfig("mine")
    with (
        NETWORKS.using("mine", Small),
        pytest.raises(ConfigError, match="network: .*unexpected keyword argument 'wdith'"),
    ):
        flowsr_jax.NetworkConfig("mine", {"wdith": 3})
