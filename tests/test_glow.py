"""Glow's own: labels, sizes, configurations, initialisation, names of variables."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowsr_jax.config import ConfigError
from flowsr_jax.models.glow import GlowConfig
from flowsr_jax.models.glow.family import bits_per_dim, encode, init_from_data, nll_loss, sample
from flowsr_jax.models.glow.model import init
from flowsr_jax.models.glow.tf_map import from_tf, tf_rules
from flowsr_jax.nets.conv import PLAIN
from flowsr_jax.nets.glow_net import bordered_conv

SMALL = {"levels": 2, "steps": 1, "hidden": 4, "size": 8}


@pytest.fixture(scope="module")
def conditional():
    return init(GlowConfig(**SMALL, classes=10, permutation="shuffle"), jax.random.key(0))


def images(*shape):
    return jax.random.uniform(jax.random.key(1), shape)


@pytest.mark.parametrize(
    "label, message",
    [
        (10, r"label = 10 is out of range: 0 to 9"),
        (np.array([3, -1]), r"label = -1 is out of range"),
        (np.array([1, 2, 3]), r"one per image, \[2\], got shape \(3,\)"),
        (0.5, "label must be an integer"),
        (None, "class-conditional: give label, 0 to 9"),
    ],
)
def test_labels_are_checked(conditional, label, message):
    x = images(2, 8, 8, 3)
    with pytest.raises((ValueError, TypeError), match=message):
        encode(conditional, x, label=label)
    with pytest.raises((ValueError, TypeError), match=message):
        sample(conditional, None, jax.random.key(0), shape=(2, 8, 8, 3), label=label)


def test_a_label_needs_classes():
    params = init(GlowConfig(**SMALL), jax.random.key(0))
    with pytest.raises(ValueError, match="no classes"):
        sample(params, None, jax.random.key(0), label=1)


def test_labels_say_how_many_images(conditional):
    key, label = jax.random.key(0), np.array([0, 1, 2])
    drawn = jax.eval_shape(lambda params: sample(params, None, key, label=label), conditional)
    assert drawn.shape == (3, 8, 8, 3)


def test_batches_without_labels_are_refused(conditional):
    with pytest.raises(ValueError, match="give label"):
        nll_loss(conditional, {}, {"hr": images(1, 8, 8, 3)}, jax.random.key(0))


@pytest.mark.parametrize(
    "shape, message",
    [
        ((1, 10, 8, 3), r"multiples of 4, got 10x8; take 8x8, or 12x8"),
        ((1, 2, 8, 3), r"multiples of 4, got 2x8; take 4x8$"),
        ((1, 8, 8, 1), "3 channels"),
    ],
)
def test_sizes_that_cannot_be_squeezed(conditional, shape, message):
    with pytest.raises(ValueError, match=message):
        encode(conditional, images(*shape), label=0)
    with pytest.raises(ValueError, match=message):
        sample(conditional, None, jax.random.key(0), shape=shape, label=0)


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


@pytest.mark.parametrize("permutation", ["shuffle", "conv1x1_plu"])
def test_variables_of_tensorflow_return(permutation):
    config = GlowConfig(**SMALL, classes=3, permutation=permutation)
    params = init(config, jax.random.key(0))
    variables = {}
    for rule in tf_rules(config):
        leaf = params.tree
        for name in rule.path:
            leaf = leaf[name]
        variables |= rule.write(leaf)
    if permutation == "shuffle":  # integers in a checkpoint, with their inverses
        for key in [k for k in variables if k.endswith("indices")]:
            variables[key] = variables[key].astype(np.int32)
            variables[f"{key}_inverse"] = np.argsort(variables[key])
    back = from_tf(config, variables)
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(params), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    del variables["model/prior/p/W"]
    with pytest.raises(ValueError, match="model/prior/p/W"):
        from_tf(config, variables)
