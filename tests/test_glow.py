"""Glow's own: configurations, initialisation, the border, names of variables."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flowsr_jax
from flowsr_jax.config import ConfigError
from flowsr_jax.models.glow import GlowConfig
from flowsr_jax.models.glow.losses import init_from_data, nll_loss
from flowsr_jax.models.glow.network import init
from flowsr_jax.models.glow.sample import bits_per_dim
from flowsr_jax.models.glow.weights import is_glow
from flowsr_jax.models.importer import state_dict
from flowsr_jax.nets.conv import PLAIN
from flowsr_jax.nets.glow_net import bordered_conv

SMALL = {"levels": 2, "steps": 1, "hidden": 4, "size": 8}


@pytest.fixture(scope="module")
def conditional():
    return init(GlowConfig(**SMALL, classes=10, permutation="shuffle"), jax.random.key(0))


def images(*shape):
    return jax.random.uniform(jax.random.key(1), shape)


def test_batches_without_labels_are_refused(conditional):
    with pytest.raises(ValueError, match="give label"):
        nll_loss(conditional, {}, {"hr": images(1, 8, 8, 3)}, jax.random.key(0))


@pytest.mark.parametrize(
    "values",
    [
        {"coupling": "afine"},
        {"permutation": "invconv"},
        {"levels": 0},
        {"n_bits": 9},
        {"size": 30},
        {"classes": -1},
    ],
    ids=lambda v: next(iter(v)),
)
def test_bad_configurations(values):
    with pytest.raises(ConfigError, match=next(iter(values))):
        GlowConfig(**values)


def test_initial_bits_of_five_bit_images():
    """After data-dependent initialisation a level is Gaussian: bits near the data's own."""
    params = init(GlowConfig(**SMALL, n_bits=5, coupling="additive"), jax.random.key(0))
    hr = jnp.rint(255 * images(16, 8, 8, 3)) / 255
    params = jax.jit(init_from_data)(params, {"hr": hr}, jax.random.key(1))
    bits = bits_per_dim(params, hr, key=jax.random.key(2))
    # Uniform noise of 32 levels is 5 bits; as a Gaussian log2(sqrt(2 pi e / 12)) = 0.25 more.
    np.testing.assert_allclose(jnp.mean(bits), 5.25, atol=0.05)


def test_the_border_channel_is_a_ring_of_ones():
    x, kernel = images(2, 3, 5, 2), images(3, 3, 3, 4)
    ring = jnp.pad(jnp.zeros((2, 3, 5, 1)), ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1.0)
    padded = jnp.concatenate([jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), ring], axis=-1)
    want = jax.lax.conv_general_dilated(
        padded, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision="highest",
    )  # fmt: skip
    np.testing.assert_allclose(bordered_conv(kernel, x, PLAIN), want, atol=1e-5)


CONFIGS = [
    GlowConfig(**SMALL, classes=3, permutation="shuffle"),
    GlowConfig(**{**SMALL, "steps": 2}, permutation="conv1x1_plu", learn_top=False, n_bits=5),
    GlowConfig(**{**SMALL, "levels": 1}, permutation="reverse", coupling="additive", channels=1),
    GlowConfig(**SMALL, classes=3, class_weight=0.0),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.permutation)
def test_variables_of_tensorflow_return(config, tmp_path):
    params = init(config, jax.random.key(0))
    variables = state_dict(params)
    assert is_glow(variables)
    # What else a checkpoint holds.
    extra = {"Variable": np.int64(3), "Variable_1": np.zeros(2), "Variable_2": np.zeros(2)}
    extra["model/0/0/f1/l_1/W/ExponentialMovingAverage"] = np.zeros((3, 3, 7, 4))
    for key in [k for k in variables if k.endswith("indices")]:
        assert variables[key].dtype == np.int32
        extra[f"{key}_inverse"] = np.argsort(variables[key])
    np.savez(tmp_path / "glow.npz", **variables, **extra)
    with pytest.warns(UserWarning, match=f"{len(extra)} unused tensors"):
        back = flowsr_jax.from_torch(tmp_path / "glow.npz", n_bits=config.n_bits, size=config.size)
    assert back.config == config
    assert jax.tree.structure(back) == jax.tree.structure(params)
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(params), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_variables_that_do_not_fit(conditional):
    variables = state_dict(conditional)
    order = "model/0/0/shuffle/indices"
    for wrong in (np.zeros(12, np.int32), np.arange(12.0)):
        with pytest.raises(ValueError, match=f"{order} must hold each of 0 to 11 once"):
            flowsr_jax.from_torch({**variables, order: wrong})
    cut = {k: v for k, v in variables.items() if k != "model/prior/p/b"}
    with pytest.raises(ValueError, match="1 missing.*model/prior/p/b"):
        flowsr_jax.from_torch(cut)
    with pytest.raises(ConfigError, match="no released form"):
        state_dict(init(GlowConfig(**SMALL, border=False), jax.random.key(0)))
