"""Invariants of every bijector in the registry, and agreement with golden arrays."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bijector_cases import CASES

from flowsr_jax import bijectors
from flowsr_jax.bijectors import (
    ActNorm,
    Affine,
    Chain,
    Conv1x1,
    Conv1x1PLU,
    Coupling,
    Invert,
    Reverse,
    ScaleForm,
    Scan,
    Shuffle,
    Squeeze,
)

every_case = pytest.mark.parametrize("case", CASES, ids=str)


@functools.cache
def setup(case):
    """(params, x, cond) of a batch of two."""
    key = jax.random.key(7)
    params = case.params(key)
    x = jnp.asarray(np.random.default_rng(2).standard_normal((2, *case.shape), np.float32))
    cond = None if case.cond is None else case.cond(jax.random.fold_in(key, 3))
    return params, x, cond


# One program per case for all tests, because compiling takes nearly all of their time.
@functools.cache
def programs(case):
    """(forward, inverse) under jit."""
    return jax.jit(case.bijector.forward), jax.jit(case.bijector.inverse)


def forward(case, *args):
    return programs(case)[0](*args)


def inverse(case, *args):
    return programs(case)[1](*args)


def flatten(tree):
    """Concatenate a pytree of [B, ...] arrays to [B, D]."""
    return jnp.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(tree)], 1)


def unflatten(flat, tree):
    """Undo `flatten`: [B, D] to arrays of the shapes of `tree`."""
    leaves, structure = jax.tree.flatten(tree)
    ends = np.cumsum([leaf[0].size for leaf in leaves])[:-1]
    parts = jnp.split(flat, ends, axis=1)
    return jax.tree.unflatten(
        structure, [p.reshape(-1, *leaf.shape[1:]) for p, leaf in zip(parts, leaves, strict=True)]
    )


def test_registry_covers_the_library():
    def used(bijector):
        yield type(bijector)
        for field in dataclasses.fields(bijector):
            value = getattr(bijector, field.name)
            for item in value if isinstance(value, tuple) else (value,):
                inner = item[1] if isinstance(item, tuple) else item
                if isinstance(inner, bijectors.Bijector):
                    yield from used(inner)

    public = {getattr(bijectors, name) for name in bijectors.__all__}
    public = {b for b in public if isinstance(b, type) and issubclass(b, bijectors.Bijector)}
    missing = public - {bijectors.Bijector} - {t for case in CASES for t in used(case.bijector)}
    assert not missing, f"add cases for {missing}"


@every_case
def test_round_trip_and_logdets_cancel(case):
    params, x, cond = setup(case)
    y, logdet = forward(case, params, x, cond)
    back, inverse_logdet = inverse(case, params, y, cond)
    np.testing.assert_allclose(back, x, atol=2e-5)
    np.testing.assert_allclose(logdet + inverse_logdet, 0.0, atol=2e-4)
    assert logdet.shape == (2,) and logdet.dtype == jnp.float32
    assert inverse_logdet.shape == (2,) and inverse_logdet.dtype == jnp.float32


@every_case
def test_logdet_is_the_jacobian_in_both_directions(case):
    params, x, cond = setup(case)
    y, logdet = forward(case, params, x, cond)
    logdets = {"forward": logdet, "inverse": inverse(case, params, y, cond)[1]}

    @jax.jit
    @jax.vmap
    def jacobians(x, y, cond):
        """Those of one example, which is a batch of one."""
        one = jax.tree.map(lambda c: c[None], cond)

        def of(method, at):
            at = jax.tree.map(lambda leaf: leaf[None], at)
            run = lambda flat: flatten(method(params, unflatten(flat[None], at), one)[0])[0]  # noqa: E731
            return jax.jacrev(run)(flatten(at)[0])

        return {
            "forward": of(case.bijector.forward, x),
            "inverse": of(case.bijector.inverse, y),
        }

    for direction, found in jacobians(x, y, cond).items():
        expected = np.linalg.slogdet(np.asarray(found, np.float64))[1]
        limit = 2e-4 * max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(logdets[direction], expected, atol=limit, err_msg=direction)


@every_case
def test_jit_equals_no_jit_and_prepared_equals_plain(case):
    params, x, cond = setup(case)

    @jax.jit
    def prepared(params, x, y, cond):
        b = case.bijector
        ready = b.prepare(params, cond), b.prepare(params, cond, inverse=True)
        return b.forward(params, x, cond, ready[0]), b.inverse(params, y, cond, ready[1])

    plain = case.bijector.forward(params, x, cond)
    back = case.bijector.inverse(params, plain[0], cond)
    jitted = forward(case, params, x, cond), inverse(case, params, plain[0], cond)
    for other in (jitted, prepared(params, x, plain[0], cond)):
        for a, b in zip(jax.tree.leaves((plain, back)), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5)


@every_case
def test_gradients_are_finite(case):
    params, x, cond = setup(case)
    floats = jax.tree.map(lambda p: p.dtype == jnp.float32, params)

    def loss(trained, x):
        merged = jax.tree.map(lambda f, t, p: t if f else p, floats, trained, params)
        y, logdet = case.bijector.forward(merged, x, cond)
        return jnp.sum(jnp.square(flatten(y))) - jnp.sum(logdet)

    trained = jax.tree.map(lambda f, p: p if f else jnp.zeros(()), floats, params)
    grads = jax.jit(jax.grad(loss, (0, 1)))(trained, x)
    assert all(bool(jnp.all(jnp.isfinite(g))) for g in jax.tree.leaves(grads))


@every_case
def test_batch_of_one_and_independence_of_examples(case):
    params, x, cond = setup(case)
    y, logdet = forward(case, params, x, cond)
    cond1 = jax.tree.map(lambda c: c[:1], cond)
    y1, logdet1 = forward(case, params, x[:1], cond1)
    assert logdet1.shape == (1,)
    np.testing.assert_allclose(logdet1[0], logdet[0], atol=1e-4)
    np.testing.assert_allclose(flatten(y1)[0], flatten(y)[0], atol=1e-5)


@every_case
def test_data_dependent_initialisation_keeps_the_structure(case):
    params, x, cond = setup(case)
    new, y, logdet = jax.jit(case.bijector.init_from_data)(params, x, cond)
    assert jax.tree.structure(new) == jax.tree.structure(params)
    again, logdet_again = forward(case, new, x, cond)
    np.testing.assert_allclose(flatten(again), flatten(y), atol=1e-4)
    np.testing.assert_allclose(logdet, logdet_again, atol=1e-3)


@pytest.mark.parametrize("case", [c for c in CASES if c.bad_shape], ids=str)
def test_wrong_shape_is_rejected_with_a_message(case):
    params, _, cond = setup(case)
    with pytest.raises(ValueError, match=r"\d"):
        case.bijector.forward(params, jnp.zeros((2, *case.bad_shape)), cond)


def test_vmap_over_the_input_shares_the_preparation():
    case = next(c for c in CASES if c.name == "multiscale")
    params, x, cond = setup(case)
    y, _ = case.bijector.forward(params, x, cond)
    ready = case.bijector.prepare(params, cond, inverse=True)
    stack = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.5 * leaf, -leaf]), y)
    many = jax.vmap(lambda z: case.bijector.inverse(params, z, cond, ready)[0])(stack)
    for n in range(3):
        one, _ = case.bijector.inverse(params, jax.tree.map(lambda s, n=n: s[n], stack), cond)
        np.testing.assert_allclose(many[n], one, atol=1e-5)


def test_scan_equals_a_loop_over_its_steps():
    case = next(c for c in CASES if c.name == "scan")
    params, x, cond = setup(case)
    y, logdet = case.bijector.forward(params, x, cond)
    z, total = x, 0.0
    for k in range(case.bijector.length):
        z, step = case.bijector.step.forward(case.bijector.step_params(params, k), z, cond)
        total = total + step
    np.testing.assert_allclose(y, z, atol=1e-5)
    np.testing.assert_allclose(logdet, total, atol=1e-4)


def test_actnorm_initialisation_whitens():
    x = 3.0 + 2.0 * jax.random.normal(jax.random.key(0), (8, 5, 5, 4))
    for factor in (1.0, 3.0):
        b = ActNorm(factor)
        _, y, _ = b.init_from_data(b.init(None, (5, 5, 4)), x)
        np.testing.assert_allclose(jnp.mean(y, (0, 1, 2)), 0.0, atol=1e-5)
        np.testing.assert_allclose(jnp.mean(y**2, (0, 1, 2)), 1.0, atol=1e-5)


@dataclasses.dataclass(frozen=True)
class _GoldenNet:
    """h(z1) = 2 tanh(z1 A + B): the network behind the golden couplings."""

    def init(self, key, ci, co):
        return {}

    def prepare(self, params, cond):
        return None

    def apply(self, params, x, prepared):
        product = jnp.matmul(x, params["A"], precision=jax.lax.Precision.HIGHEST)
        return 2.0 * jnp.tanh(product + params["B"])


GOLDEN_COUPLINGS = {
    "additive": Affine(scale=None),
    "glow_sigmoid2_cross": Affine(ScaleForm("sigmoid2"), "cross", True),
    "srflow_sigmoid2_eps_cross": Affine(ScaleForm("sigmoid2", eps=1e-4), "cross", True),
    "realnvp_exp_split": Affine(ScaleForm("exp"), "half", False),
    "realnvp_tanh_pre_split": Affine(ScaleForm("tanh", clamp=0.8), "half", True),
    "freia_atan_clamp2_post_split": Affine(ScaleForm("atan", clamp=2.0), "half", False),
    "irn_clamp1_post_split": Affine(ScaleForm("sigmoid", clamp=1.0), "half", False),
    "tanh_clamp2_post_split": Affine(ScaleForm("tanh", clamp=2.0), "half", False),
}


@pytest.fixture(scope="module")
def golden():
    with np.load("tests/data/bijectors.npz") as data:
        return dict(data)


def agree(name, bijector, params, golden, prefix, x="x", y="y"):
    out, logdet = bijector.forward(params, jnp.asarray(golden[f"{prefix}/{x}"]))
    back, inverse_logdet = bijector.inverse(params, jnp.asarray(golden[f"{prefix}/{y}"]))
    errors = {
        "y": np.max(np.abs(out - golden[f"{prefix}/{y}"])),
        "x": np.max(np.abs(back - golden[f"{prefix}/{x}"])),
        "logdet": np.max(np.abs(logdet - golden[f"{prefix}/logdet"])),
        "-logdet": np.max(np.abs(inverse_logdet + golden[f"{prefix}/logdet"])),
    }
    print(f"{name:34s}", " ".join(f"{k} {v:.1e}" for k, v in errors.items()))
    assert max(errors.values()) < 2e-5, errors


def test_golden_arrays(golden):
    orders = {"channel_major": "y_glow", "space_to_depth": "y_space_to_depth"}
    orders["realnvp"] = "y_realnvp_ordered"
    for order, y in orders.items():
        agree(f"squeeze {order}", Squeeze(order=order), {}, golden, "squeeze", y=y)
    params = {"bias": golden["actnorm/b"], "logs": golden["actnorm/logs"]}
    agree("actnorm", ActNorm(3.0), params, golden, "actnorm")
    # Glow stores W for z @ W; ours is y_o = sum_i W[o, i] x_i.
    agree(
        "conv1x1 dense", Conv1x1(), {"weight": golden["conv1x1_dense/W"].T}, golden, "conv1x1_dense"
    )
    agree("reverse", Reverse(), {}, golden, "reverse")
    agree(
        "shuffle", Shuffle(), {"indices": jnp.asarray(golden["shuffle/indices"])}, golden, "shuffle"
    )
    net_params = {"A": golden["coupling_net/A"], "B": golden["coupling_net/B"]}
    for name, affine in GOLDEN_COUPLINGS.items():
        params = {"net": net_params}
        if affine.scale is None:
            params = {"net": {"A": net_params["A"][:, :4], "B": net_params["B"][:4]}}
        coupling = Coupling(_GoldenNet(), affine)
        agree(f"coupling {name}", coupling, params, golden, f"coupling_{name}")


def test_golden_plu(golden):
    params = {
        "p": golden["conv1x1_plu/P"],
        "l": np.tril(golden["conv1x1_plu/L"], -1),
        "u": golden["conv1x1_plu/U"],
        "sign_s": golden["conv1x1_plu/sign_S"],
        "log_s": golden["conv1x1_plu/log_S"],
    }
    params = jax.tree.map(jnp.asarray, params)
    agree("conv1x1 PLU", Conv1x1PLU(), params, golden, "conv1x1_plu")


def test_golden_chain(golden):
    prefix = "chain_squeeze_actnorm_conv_reverse_unsqueeze"
    chain = Chain(
        (
            ("squeeze", Squeeze()),
            ("actnorm", ActNorm(3.0)),
            ("conv1x1", Conv1x1()),
            ("reverse", Reverse()),
            ("unsqueeze", Invert(Squeeze())),
        )
    )
    params = {
        "actnorm": {"bias": golden[f"{prefix}/b"], "logs": golden[f"{prefix}/logs"]},
        "conv1x1": {"weight": golden[f"{prefix}/W"].T},
    }
    agree("chain", chain, jax.tree.map(jnp.asarray, params), golden, prefix)


def test_scan_of_parameterless_steps_runs():
    scan = Scan(Reverse(), 3)
    x = jnp.arange(8.0).reshape(1, 1, 1, 8)
    np.testing.assert_array_equal(scan.forward({}, x)[0], x[..., ::-1])
