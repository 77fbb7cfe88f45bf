"""What Glow, RealNVP and NICE have in common: exact likelihoods, draws, files."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flowsr_jax
from flowsr_jax.bijectors.invertibility import InvertibilityReport
from flowsr_jax.math import gaussian
from flowsr_jax.models import glow, nice, realnvp
from flowsr_jax.models.glow.sample import FLOW as GLOW
from flowsr_jax.models.nice.network import logistic_log_prob
from flowsr_jax.models.nice.sample import FLOW as NICE
from flowsr_jax.models.realnvp.sample import FLOW as REALNVP
from flowsr_jax.models.unconditional import Unconditional, dequantize, to_uint8


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A small model of few values per image, so that its Jacobian can be taken."""

    name: str
    flow: Unconditional
    family: object
    config: object
    shape: tuple[int, ...]  # of one image; not the config's, where that is possible
    labels: tuple[int, ...] | None = None

    def images(self):
        return jax.random.randint(jax.random.key(3), (2, *self.shape), 0, 256) / 255.0

    def __str__(self):
        return self.name


CASES = [
    Case(
        "glow_affine_plu",
        GLOW,
        glow.FAMILY,
        glow.GlowConfig(
            levels=2, steps=2, hidden=4, permutation="conv1x1_plu", border=False, channels=1, size=8
        ),
        (8, 4, 1),
    ),
    Case(
        "glow_additive_shuffle_classes",
        GLOW,
        glow.FAMILY,
        glow.GlowConfig(
            levels=2,
            steps=1,
            hidden=4,
            coupling="additive",
            permutation="shuffle",
            channels=1,
            learn_top=False,
            classes=3,
            n_bits=5,
            size=8,
        ),  # fmt: skip
        (4, 8, 1),
        (2, 0),
    ),
    Case(
        "realnvp",
        REALNVP,
        realnvp.FAMILY,
        realnvp.RealNVPConfig(scales=3, dim=2, blocks=1, channels=1, size=8),
        (4, 8, 1),
    ),
    Case(
        "realnvp_two_blocks",
        REALNVP,
        realnvp.FAMILY,
        realnvp.RealNVPConfig(scales=1, dim=2, blocks=2, channels=1, size=4),
        (4, 4, 1),
    ),
    Case(
        "nice_odd_vector",
        NICE,
        nice.FAMILY,
        nice.NICEConfig(
            shape=(7,), couplings=3, layers=1, hidden=5, prior="gaussian", range="symmetric"
        ),
        (7,),
    ),
    Case(
        "nice_image",
        NICE,
        nice.FAMILY,
        nice.NICEConfig(shape=(4, 4, 1), couplings=2, layers=2, hidden=5),
        (4, 4, 1),
    ),
]
every_case = pytest.mark.parametrize("case", CASES, ids=str)


@functools.cache
def params_of(case):
    """Initial parameters, moved away from their start."""
    params = case.family.init(case.config, jax.random.key(1))
    leaves, tree = jax.tree_util.tree_flatten_with_path(params)
    rng = np.random.default_rng(2)
    moved = []
    for path, leaf in leaves:
        noise = 0.1 * rng.standard_normal(leaf.shape)
        keep = path[-1].key in ("p", "sign_s", "indices")
        moved.append(leaf if keep else jnp.asarray(leaf + noise, jnp.float32))
    return jax.tree.unflatten(tree, moved)


def label_of(case):
    return None if case.labels is None else jnp.array(case.labels)


@every_case
def test_likelihood_is_the_prior_times_the_jacobian(case):
    params, label = params_of(case), None if case.labels is None else case.labels[0]
    image = dequantize(case.images()[:1], 0.3)

    def latent(flat):
        latents, log_prob = case.flow.encode(params, flat.reshape(1, *case.shape), label=label)
        return jnp.concatenate([z.ravel() for z in latents]), (latents, log_prob)

    jacobian, (latents, log_prob) = jax.jit(jax.jacrev(latent, has_aux=True))(image.ravel())
    assert [z.shape for z in latents] == case.flow.latent_shapes(case.config, image.shape)
    prior = gaussian.standard_normal_log_prob
    if getattr(case.config, "prior", "") == "logistic":
        prior = logistic_log_prob
    expected = np.linalg.slogdet(np.asarray(jacobian, np.float64))[1]
    expected += float(sum(prior(z)[0] for z in latents))
    np.testing.assert_allclose(log_prob[0], expected, rtol=1e-4, atol=2e-3)
    np.testing.assert_allclose(case.flow.decode(params, latents, label=label), image, atol=1e-4)


@pytest.mark.parametrize("case", CASES[1::2], ids=str)
def test_a_draw_is_decoded_noise_times_temperature(case):
    params, label, flow = params_of(case), label_of(case), case.flow
    shapes = flow.latent_shapes(case.config, (2, *case.shape))
    noise = [flow.prior(case.config, jax.random.key(4), s) for s in shapes]
    temperature = jnp.array([0.0, 0.5])
    drawn = flow.sample(
        params, None, None, shape=case.shape, noise=noise, label=label, temperature=temperature
    )
    assert drawn.shape == (2, *case.shape) and drawn.dtype == jnp.float32
    scaled = [z * temperature.reshape(-1, *[1] * (z.ndim - 1)) for z in noise]
    np.testing.assert_allclose(drawn, flow.decode(params, scaled, label=label), atol=1e-5)


def test_shapes_keys_and_views():
    case = CASES[-1]
    params, sample, shape = params_of(case), case.flow.sample, (2, *case.shape)
    drawn = sample(params, None, jax.random.key(4), shape=shape)
    again = sample(params, None, jax.random.key(4), num_samples=2, temperature=1.0)
    np.testing.assert_array_equal(drawn, again)
    assert drawn.shape == shape and not np.allclose(drawn[0], drawn[1], atol=1e-3)
    assert not np.allclose(drawn, sample(params, None, jax.random.key(5), shape=shape), atol=1e-3)
    assert sample(params, None, jax.random.key(4)).shape == (1, *case.shape)
    for view in case.family.views(case.config, "nll"):
        assert view.sample(params, jnp.zeros(shape), jax.random.key(4)).shape == shape
    with pytest.raises(ValueError, match="do not agree"):
        sample(params, None, jax.random.key(4), shape=shape, num_samples=3)


@pytest.mark.parametrize("case", [CASES[1], CASES[-1]], ids=str)
def test_invertibility_reports(case):
    report = case.flow.check_invertibility(params_of(case))
    assert isinstance(report, InvertibilityReport) and report.ok, str(report)
    assert all(np.isfinite(layer.magnitude) for layer in report.layers)


@pytest.mark.parametrize("n_bits", [8, 5, 1])
def test_dequantised_images_give_back_their_levels(n_bits):
    levels = np.arange(256, dtype=np.uint8)
    step = 2 ** (8 - n_bits)
    for u in (0.0, 0.5, 1 - 2**-12):
        spread = dequantize(jnp.asarray(levels, jnp.float32) / 255, u, n_bits)
        np.testing.assert_array_equal(to_uint8(spread, n_bits), levels // step * step)
    if n_bits == 8:  # what any writer of 8-bit files does
        np.testing.assert_array_equal(jnp.rint(255 * jnp.clip(spread, 0, 1)), levels)


def test_bits_per_dim_of_the_public_formula():
    """At 8 bits the public bits_per_dim, which knows no family, is the released objective."""
    case = CASES[0]
    params, hr, key = params_of(case), case.images(), jax.random.key(6)
    bits = case.flow.bits_per_dim(params, hr, key=key)
    u = jax.random.uniform(key, hr.shape)
    _, log_prob = case.flow.encode(params, hr + (u - 0.5) / 255)
    want = gaussian.bits_per_dim(log_prob, hr[0].size)
    np.testing.assert_allclose(bits, want, atol=1e-5)
    np.testing.assert_array_equal(case.flow.log_prob(params, hr), case.flow.encode(params, hr)[1])


@every_case
def test_saved_parameters_load(case, tmp_path):
    params = params_of(case)
    flowsr_jax.save(params, tmp_path)
    loaded = flowsr_jax.load(tmp_path)
    assert loaded.config == case.config
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(a, b)
