"""Agreement of RealNVP with reference arrays.  Run with -s to see the largest error of each."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_tools import Table

from flowsr_jax.bijectors import (
    Affine,
    BatchNorm,
    CheckerboardCoupling,
    Coupling,
    Logit,
    ScaleForm,
    Swap,
    Within,
)
from flowsr_jax.bijectors.checkerboard import checkerboard
from flowsr_jax.math.gaussian import standard_normal_log_prob
from flowsr_jax.models.base import Params
from flowsr_jax.models.realnvp import RealNVPConfig
from flowsr_jax.models.realnvp.losses import penalty
from flowsr_jax.models.realnvp.network import (
    build_flow,
    forward_train,
    move_statistics,
    split_statistics,
)
from flowsr_jax.models.realnvp.sample import decode, encode
from flowsr_jax.models.unconditional import dequantize, pixels, to_bits
from flowsr_jax.nets.conv import PLAIN, conv2d
from flowsr_jax.nets.realnvp_net import WeightNormConv

pytestmark = pytest.mark.usefixtures("as_users_compile")


@pytest.fixture(scope="module")
def layers(shared):
    with np.load(shared / "golden/realnvp_layers.npz") as data:
        return dict(data)


class _GoldenNet(nn.Module):
    """conv3x3, ReLU, conv1x1; then [t, 0.7 tanh(s)].  `mask`: the last channel is not read."""

    mask: bool
    features: int = 0

    def __call__(self, x):
        params = self.variables["params"]
        x = x[..., :-1] if self.mask else x
        h = jax.nn.relu(conv2d(x, params["W1"], params["b1"], PLAIN))
        t, s = jnp.split(conv2d(h, params["W2"], params["b2"], PLAIN), 2, axis=-1)
        return jnp.concatenate([t, params["scale"] * jnp.tanh(s)], axis=-1)


class _MaskedNet(_GoldenNet):
    """The same network of all channels, for channel couplings: the others are zero."""

    last: bool = False

    def __call__(self, x):
        n = x.shape[-1]
        pad = [(0, 0)] * 3 + [(n, 0) if self.last else (0, n)]
        t, s = jnp.split(super().__call__(jnp.pad(x, pad)), 2, axis=-1)
        changed = slice(0, n) if self.last else slice(n, None)
        return jnp.concatenate([t[..., changed], s[..., changed]], axis=-1)


def _golden_coupling(name, affine):
    if name.startswith("checker"):
        return CheckerboardCoupling(_GoldenNet(True), affine, name.split("_")[1])
    coupling = Coupling(_MaskedNet(False, last=name.endswith("last")), affine)
    return Within(Swap(), coupling) if name.endswith("last") else coupling


def test_couplings(layers):
    table = Table("realnvp_layers: couplings")
    prefix = "coupling_params/"
    net = {k.removeprefix(prefix): v for k, v in layers.items() if k.startswith(prefix)}
    params = {"net": jax.tree.map(jnp.asarray, net)}
    for name in ("checker_odd", "checker_even", "channel_first", "channel_last"):
        for order in ("pre", "post"):
            affine = Affine(ScaleForm("exp"), "half", shift_first=order == "pre")
            bijector, key = _golden_coupling(name, affine), f"coupling_{name}_{order}"
            y, logdet = bijector.forward(params, jnp.asarray(layers[f"{key}/x"]))
            table.check(f"{key}/y", y, layers[f"{key}/y"], 1e-5)
            table.check(f"{key}/logdet", logdet, layers[f"{key}/logdet"], 1e-5)
            x, back = bijector.inverse(params, jnp.asarray(layers[f"{key}/y"]))
            table.check(f"{key}/x", x, layers[f"{key}/x"], 1e-5)
            table.check(f"{key}/-logdet", -back, layers[f"{key}/logdet"], 1e-5)
    for sites in ("odd", "even"):
        mask = checkerboard(6, 8, sites)[..., 0]
        table.check(f"masks/{sites}_is_1", mask, layers[f"masks/{sites}_is_1"], 0.0)
    table.finish()


def test_logit(layers):
    table = Table("realnvp_layers: logit")
    for name, width in (("logit_paper", 0.95), ("logit_code", 0.9)):
        image = dequantize(jnp.asarray(layers[f"{name}/x"], jnp.float32) / 255, layers[f"{name}/u"])
        x, inside = pixels().forward({}, image)
        y, logdet = Logit(0.05, width).forward({}, x)
        # The paper's p comes close to 1, where a float32 image holds few digits of 1 - p.
        limit = 5e-5 if name == "logit_paper" else 1e-5
        table.check(f"{name}/y", y, layers[f"{name}/y"], limit)
        table.check(f"{name}/logdet", logdet, layers[f"{name}/logdet"], 1e-5)
        bits = to_bits(standard_normal_log_prob(y) + logdet + inside, y[0].size)
        want = layers[f"{name}/bits_if_identity_flow"]
        table.check(f"{name}/bits_if_identity_flow", bits, want, 1e-5)
    table.finish()


def test_batch_normalisation(layers):
    table = Table("realnvp_layers: batch normalisation, weight normalisation")
    x = jnp.asarray(layers["batchnorm/x"])
    moving = {k: jnp.asarray(layers[f"batchnorm/running_{k}"]) for k in ("mean", "var")}
    norm = BatchNorm(eps=float(layers["batchnorm/eps"]))
    used, y, logdet = norm.forward_train(moving, x)
    table.check("batchnorm/y_train", y, layers["batchnorm/y_train"], 1e-5)
    table.check("batchnorm/logdet_train", logdet, layers["batchnorm/logdet_train"], 1e-5)
    config = RealNVPConfig(momentum=float(layers["batchnorm/decay"]))
    for k, v in move_statistics(config, moving, used).items():
        table.check(f"batchnorm/new_running_{k}", v, layers[f"batchnorm/new_running_{k}"], 1e-5)
    y, logdet = norm.forward(moving, x)
    table.check("batchnorm/y_eval", y, layers["batchnorm/y_eval"], 1e-5)
    table.check("batchnorm/logdet_eval", logdet, layers["batchnorm/logdet_eval"], 1e-5)
    back, logdet = norm.inverse(moving, y)
    table.check("batchnorm/x_from_y_eval", back, layers["batchnorm/x_from_y_eval"], 1e-5)
    want = layers["batchnorm/logdet_inverse_eval"]
    table.check("batchnorm/logdet_inverse_eval", logdet, want, 1e-5)

    key = "batchnorm_masked_train"
    np.testing.assert_array_equal(layers[f"{key}/mask"], checkerboard(6, 8, "even")[..., 0])
    used, y, logdet = BatchNorm(sites="odd").forward_train(None, jnp.asarray(layers[f"{key}/x"]))
    table.check(f"{key}/y", y, layers[f"{key}/y"], 1e-5)
    table.check(f"{key}/logdet", logdet, layers[f"{key}/logdet"], 1e-5)
    for k, v in used.items():
        table.check(f"{key}/{k}", v, layers[f"{key}/{k}"], 1e-5)

    names = {"weights": "w", "magnitude": "magnitude", "biases": "b"}
    p = {ours: jnp.asarray(layers[f"weightnorm_conv/{k}"]) for k, ours in names.items()}
    conv = WeightNormConv(p["b"].shape[0], p["w"].shape[0], compute=PLAIN)
    y = conv.apply({"params": p}, jnp.asarray(layers["weightnorm_conv/x"]))
    table.check("weightnorm_conv/y", y, layers["weightnorm_conv/y"], 1e-5)
    table.finish()


def _paths(tree, path=()):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _paths(value, (*path, name))
        else:
            yield (*path, name)


LEAVES = {"w": "weights", "b": "biases"}


def official(path):
    """Released names of the K blocks (or one) of a leaf of the flow."""
    scale = max(p for p in path if p.startswith("scale_"))
    coupling = next(p for p in path if p.startswith("coupling_"))
    inside = path[path.index(coupling) + 1 :]
    root = f"model/{scale}/{coupling}"
    if inside[0] == "bn_out":
        return [f"{root}/bn_out/{inside[1]}"]
    inside = tuple(LEAVES.get(p, p) for p in inside[2:])  # after coupling, net
    if inside[0] in ("bn_in", "rescaling_scale", "scale"):
        return ["/".join((root, *inside))]
    if inside[:2] == ("blocks", "skip"):
        return [f"{root}/resnet/skip_0/{inside[2]}"]
    if inside[0] == "blocks":
        return ["/".join((root, "resnet/block_0", *inside[1:]))]
    return ["/".join((root, "resnet", *inside))]


def from_official(golden, tree, prefix="w/"):
    """(a tree of the same paths from golden arrays, the names that were used)."""
    out, used = {}, set()
    for path in _paths(tree):
        (name,) = official(path)
        value = jnp.asarray(golden[prefix + name])
        node = out
        for p in path[:-1]:
            node = node.setdefault(p, {})
        node[path[-1]] = value[None] if "blocks" in path else value
        used.add(prefix + name)
    return out, used


def test_model(shared):
    with np.load(shared / "golden/realnvp_model.npz") as data:
        golden = dict(data)
    config = RealNVPConfig(
        scales=int(golden["n_scale"]),
        dim=int(golden["base_dim"]),
        blocks=int(golden["residual_blocks"]),
        channels=2,
        size=8,
        width=0.0,  # the arrays have no logit
    )
    shapes = jax.eval_shape(lambda k: build_flow(config).init(k, (8, 8, 2)), jax.random.key(0))
    tree, used = from_official(golden, shapes)
    assert used == {k for k in golden if k.startswith("w/")}
    got = jax.tree.map(jnp.shape, tree)
    assert got == jax.tree.map(jnp.shape, shapes)
    weights, moving = split_statistics(tree)
    params = Params({"flow": weights, "statistics": moving}, config)

    table = Table("realnvp_model")
    x = pixels().inverse({}, jnp.asarray(golden["x"]))[0]
    inside = np.float64(x[0].size * np.log(255 / 256))

    def flow_logdet(z, log_prob):
        return np.asarray(log_prob - standard_normal_log_prob(z), np.float64) - inside

    (z,), log_prob = encode(params, x)
    table.check("y_eval", z, golden["y_eval"], 1e-5)
    table.check("logdet_eval", flow_logdet(z, log_prob), golden["logdet_eval"], 1e-5)
    z, log_prob, batch = jax.jit(forward_train)(params, x)
    table.check("y_train", z, golden["y_train"], 1e-5)
    table.check("logdet_train", flow_logdet(z, log_prob), golden["logdet_train"], 1e-5)
    moved = move_statistics(config, moving, batch)
    for path in _paths(moved):
        (name,), leaf = official(path), moved
        for p in path:
            leaf = leaf[p]
        leaf = leaf[0] if "blocks" in path else leaf
        table.check(f"moving_after/{name}", leaf, golden[f"moving_after/{name}"], 1e-5)
        used.add(f"moving_after/{name}")
    assert {k for k in golden if k.startswith("moving_after/")} <= used
    back = decode(params, [golden["z"]])
    table.check("x_from_z", pixels().forward({}, back)[0], golden["x_from_z"], 1e-5)
    logdet = flow_logdet(jnp.asarray(golden["z"]), encode(params, back)[1])
    table.check("logdet_inverse_z", -logdet, golden["logdet_inverse_z"], 1e-5)
    norms = ("magnitude", "rescaling_scale")
    want = sum(np.sum(v**2) for k, v in golden.items() if k.startswith("w/") and k.endswith(norms))
    table.check("L2 penalty of section 5", penalty(params["flow"]), want, 1e-5)
    table.finish()
