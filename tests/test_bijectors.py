"""Invariants of every bijector in the registry, and agreement with golden arrays."""

from __future__ import annotations

import dataclasses
import functools
import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bijector_cases import CASES

from flowsr_jax import bijectors
from flowsr_jax.bijectors import (
    ActNorm,
    Additive,
    Affine,
    BorderedSplit,
    Chain,
    Conv1x1,
    Conv1x1PLU,
    ConvDown,
    Coupling,
    Flatten,
    Invert,
    MultiScale,
    RationalQuadratic,
    Reverse,
    ScaleForm,
    Scan,
    Shuffle,
    Split,
    Squeeze,
)
from flowsr_jax.nets.mlp import MLP
from flowsr_jax.testing import Invariants, check_bijector

every_case = pytest.mark.parametrize("case", CASES, ids=str)


# One program per case for all tests, because compiling takes nearly all of their time.
@functools.cache
def checks(case):
    """The invariants of a case, with a batch of two."""
    key = jax.random.key(7)
    cond = None if case.cond is None else case.cond(jax.random.fold_in(key, 3))
    return Invariants(case.bijector, case.shape, cond=cond, params=case.params(key))


def setup(case):
    """(params, x, cond) of a batch of two."""
    found = checks(case)
    return found.params, found.x, found.cond


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
    public = {b for b in public if not inspect.isabstract(b)}
    missing = public - {t for case in CASES for t in used(case.bijector)}
    assert not missing, f"add cases for {missing}"


@every_case
def test_round_trip_and_logdets_cancel(case):
    checks(case).round_trip()


@every_case
def test_logdet_is_the_jacobian_in_both_directions(case):
    checks(case).jacobian()


@every_case
def test_jit_equals_no_jit_and_prepared_equals_plain(case):
    checks(case).jit_and_prepare()


@every_case
def test_gradients_are_finite(case):
    checks(case).gradients()


@every_case
def test_batch_of_one_and_independence_of_examples(case):
    checks(case).independence()


@every_case
def test_data_dependent_initialisation_keeps_the_structure(case):
    checks(case).data_init()


@every_case
def test_output_shape_is_the_shape_of_the_output(case):
    checks(case).announced_shape()


def test_the_inverse_of_a_bijector_knows_its_shapes():
    assert Invert(Flatten((2, 3, 4))).output_shape((24,)) == (2, 3, 4)
    params = Invert(ActNorm()).init(jax.random.key(0), (2, 3))
    assert params["bias"].shape == (3,)
    with pytest.raises(ValueError, match="ConvDown has parameters and changes the shape"):
        Invert(ConvDown(2)).init(jax.random.key(0), (2, 2, 12))


@every_case
def test_parts_and_scales_report_what_forward_does(case):
    checks(case).layers()


@every_case
def test_float32_stays_float32_under_x64(case):
    x = jax.ShapeDtypeStruct((2, *case.shape), jnp.float32)
    cond = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), setup(case)[2])
    b = case.bijector

    def everything(key, x, cond):
        params = b.init(key, case.shape)
        y, logdet = b.forward(params, x, cond)
        ready = b.prepare(params, cond), b.prepare(params, cond, inverse=True)
        back = b.inverse(params, y, cond, ready[1])
        learnt = b.init_from_data(params, x, cond), b.forward_train(params, x, cond)
        return params, y, logdet, ready, back, learnt, b.scales(params, x, cond)

    key = jax.eval_shape(jax.random.key, 0)
    with jax.enable_x64(True):
        found = jax.tree_util.tree_leaves_with_path(jax.eval_shape(everything, key, x, cond))
    wide = {jax.tree_util.keystr(path): leaf for path, leaf in found if leaf.dtype.itemsize == 8}
    assert not wide, wide


REFUSED = {
    "names": (
        lambda: Chain((("a", Reverse()), ("a", Reverse()))),
        "two bijectors have the name 'a'",
    ),
    "empty chain": (lambda: Chain(()), "at least one bijector"),
    "no step": (lambda: Scan(Reverse(), 0), r"length must be an integer of at least 1, got 0"),
    "squeeze 0": (lambda: Squeeze(0), "factor must be an integer of at least 1, got 0"),
    "squeeze -2": (lambda: Squeeze(-2), "factor must be .* got -2"),
    "squeeze 1.5": (lambda: Squeeze(1.5), "factor must be .* got 1.5"),
    "conv_down 0": (lambda: ConvDown(0), "factor must be"),
    "passed 0": (lambda: Coupling(MLP(), passed=0), "passed must be"),
    "ratio": (lambda: Split(1.0), "ratio = 1.0 must be between 0 and 1"),
    "splits": (lambda: MultiScale((Squeeze(),), (Split(),)), "Split cannot be entry 0 of splits"),
    "no split": (
        lambda: MultiScale((Squeeze(), Squeeze()), (Reverse(), None)),
        "Reverse cannot be entry 0 of splits: it gives no latent",
    ),
    "bins": (lambda: RationalQuadratic(1), "bins = 1 must be 2 to 256"),
    "shares": (lambda: RationalQuadratic(8, smallest=0.2), "smallest = 0.2 must be in"),
    "bordered": (lambda: BorderedSplit(cond_channels=3), "no conditional prior"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_at_construction(name):
    make, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        make()


def test_a_bijector_or_a_map_without_its_methods_cannot_be_constructed():
    @dataclasses.dataclass(frozen=True)
    class OneWay(bijectors.Bijector):
        def forward(self, params, x, cond=None, prepared=None):
            return x, jnp.zeros(len(x))

    with pytest.raises(TypeError, match="OneWay.*inverse"):
        OneWay()
    with pytest.raises(TypeError, match="outputs"):
        type("Map", (bijectors.Elementwise,), {"__call__": lambda self, z, raw: (z, None)})()


class _SharesNothing(nn.Module):
    """x @ w plus the sum of cond; nothing is prepared for K steps together."""

    features: int = 0

    @nn.compact
    def __call__(self, x, cond=None, prepared=None):
        w = self.param("w", nn.initializers.ones, (x.shape[-1], self.features))
        return x @ w + jnp.sum(self.prepare(cond) if prepared is None else prepared)

    def prepare(self, cond):
        return jnp.zeros(()) if cond is None else cond

    def prepare_stacked(self, cond):
        return None


def test_cond_reaches_a_network_that_prepares_nothing_inside_a_scan():
    one, many = (
        f(Coupling(_SharesNothing(), Additive())) for f in (lambda b: b, lambda b: Scan(b, 1))
    )
    x, cond = jnp.ones((1, 2)), jnp.full((1, 2), 5.0)
    params = one.init(jax.random.key(0), (2,))
    expected, _ = one.forward(params, x, cond)
    for memory in ("store", "remat", "reversible"):
        scan = dataclasses.replace(many, memory=memory)
        stacked = jax.tree.map(lambda p: p[None], params)
        np.testing.assert_array_equal(scan.forward(stacked, x, cond)[0], expected)
        ready = scan.prepare(stacked, cond)
        np.testing.assert_array_equal(scan.forward(stacked, x, cond, ready)[0], expected)


def test_an_inverted_actnorm_whitens():
    x = 3.0 + 2.0 * jax.random.normal(jax.random.key(0), (8, 5, 4))
    for b in (Invert(ActNorm()), Invert(Scan(Chain((("actnorm", ActNorm(3.0)),)), 2))):
        params, y, _ = b.init_from_data(b.init(jax.random.key(0), (5, 4)), x)
        np.testing.assert_allclose(b.forward(params, x)[0], y, atol=1e-5)
        np.testing.assert_allclose(jnp.mean(y, (0, 1)), 0.0, atol=1e-5)
        np.testing.assert_allclose(jnp.mean(y**2, (0, 1)), 1.0, atol=1e-4)


def test_a_spline_of_zeros_is_the_identity_and_tails_are_linear():
    spline = RationalQuadratic(5, bound=2.0)
    z = jnp.linspace(-4.0, 4.0, 33).reshape(1, 33, 1)
    y, logs = spline(z, jnp.zeros((1, 33, spline.outputs(1))))
    np.testing.assert_allclose(y, z, atol=1e-6)
    np.testing.assert_allclose(logs, 0.0, atol=1e-5)
    raw = jnp.broadcast_to(jax.random.normal(jax.random.key(0), (spline.outputs(1),)), (1, 33, 14))
    y, logs = spline(z, raw)
    outside = jnp.abs(z) >= 2.0
    np.testing.assert_array_equal(y[outside], z[outside])
    assert bool(jnp.all(jnp.diff(y[0, :, 0]) > 0)) and float(jnp.max(jnp.abs(logs))) > 0.1


@pytest.mark.parametrize("case", [c for c in CASES if c.bad_shape], ids=str)
def test_wrong_shape_is_rejected_with_a_message(case):
    checks(case).rejects(case.bad_shape)


@dataclasses.dataclass(frozen=True)
class Faulty(bijectors.Bijector):
    """y = 2 x with one fault."""

    fault: str = ""

    def prepare(self, params, cond=None, inverse=False):
        return jnp.float32(3.0 if self.fault == "prepare" else 2.0)

    def output_shape(self, shape):
        return (*shape, 1) if self.fault == "output_shape" else shape

    def init(self, key, shape):
        return {"unused": jnp.zeros(1)}

    def init_from_data(self, params, x, cond=None, inverse=False):
        params = {} if self.fault == "structure" else params
        return params, *(self.inverse if inverse else self.forward)(params, x, cond)

    def forward(self, params, x, cond=None, prepared=None):
        factor = jnp.float32(2.0) if prepared is None else prepared
        if self.fault == "batch of one":
            factor = factor * jax.nn.softplus(jnp.mean(x))
        logdet = jnp.full(x.shape[0], x[0].size * jnp.log(factor))
        if self.fault == "Jacobian":
            logdet = logdet + 0.01
        if self.fault == "logdet of forward":
            logdet = logdet[0]
        y = factor * x
        if self.fault == "gradients":
            y = y + jnp.sqrt(jnp.sum(params["unused"] * 0.0)) * 0.0
        return y, logdet

    def inverse(self, params, y, cond=None, prepared=None):
        factor = jnp.float32(2.0) if prepared is None else prepared
        logdet = -jnp.full(y.shape[0], y[0].size * jnp.log(factor))
        if self.fault == "Jacobian":
            logdet = logdet - 0.01
        if self.fault == "sum of the logdets":
            logdet = -logdet
        return y / factor + (0.001 if self.fault == "round trip" else 0.0), logdet

    def scales(self, params, x, cond=None):
        return None if self.fault == "scales" else jnp.full(x.shape, 2.0)


def test_check_bijector_passes_and_finds_mistakes():
    check_bijector(Faulty(), (2, 3))
    with pytest.raises(AssertionError, match="not rejected"):
        check_bijector(Faulty(), (2, 3), bad_shape=(1, 3))
    faults = ("round trip", "sum of the logdets", "logdet of forward", "Jacobian", "scales")
    for fault in (*faults, "prepare", "gradients", "structure", "output_shape"):
        with pytest.raises(AssertionError, match=fault):
            check_bijector(Faulty(fault), (2, 3))
    mixing = Invariants(Faulty("batch of one"), (2, 3))
    with pytest.raises(AssertionError, match="batch of one"):
        mixing.independence()


def test_mlp_names_a_cond_that_does_not_fit():
    coupling = Coupling(MLP(4, 1, None, cond_channels=3))
    params = coupling.init(jax.random.key(0), (2,))
    for cond in (None, jnp.zeros((5, 2))):
        with pytest.raises(ValueError, match=r"cond must be \[B, ..., 3\]"):
            coupling.forward(params, jnp.zeros((5, 2)), cond)


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


class _GoldenNet(nn.Module):
    """h(z1) = 2 tanh(z1 A + B): the network behind the golden couplings."""

    features: int = 0

    def __call__(self, x):
        params = self.variables["params"]
        product = jnp.matmul(x, params["A"], precision=jax.lax.Precision.HIGHEST)
        return 2.0 * jnp.tanh(product + params["B"])


GOLDEN_COUPLINGS = {
    "additive": Additive(),
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
        if affine == Additive():
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
