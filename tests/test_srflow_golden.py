"""Agreement of SRFlow with the arrays of the official code, through the public calls.

Run with -s to see the largest error of every array.
"""

from __future__ import annotations

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from golden_tools import Table, full_size_weights

import flowsr_jax
from flowsr_jax.bijectors.invertibility import elementary_layers
from flowsr_jax.models.rrdb.network import apply as rrdb_apply
from flowsr_jax.models.srflow.losses import init_from_data, nll_loss
from flowsr_jax.models.srflow.network import build_flow, condition
from flowsr_jax.models.srflow.weights import srflow_rules
from flowsr_jax.nets.layers import half_size
from flowsr_jax.nets.rrdb import RRDBEncoder
from flowsr_jax.nets.upsampled import dense

pytestmark = pytest.mark.usefixtures("as_users_compile")

LN2 = math.log(2.0)


@pytest.fixture(scope="module")
def x4(shared):
    params = flowsr_jax.from_torch(shared / "golden/srflow_x4.pth", stacked_blocks=(0, 2))
    with np.load(shared / "golden/srflow_x4.npz") as data:
        return params, dict(data)


@pytest.fixture(scope="module")
def x8(shared):
    with np.load(shared / "golden/srflow_x8.npz") as data:
        golden = dict(data)
    prefix = "weights/"
    weights = {k.removeprefix(prefix): v for k, v in golden.items() if k.startswith(prefix)}
    return flowsr_jax.from_torch(weights, stacked_blocks=(0, 1)), golden


def latent_list(golden, name):
    return [golden[f"{name}/{i}"] for i in range(sum(k.startswith(f"{name}/") for k in golden))]


def log_normal(z):
    z = np.asarray(z, np.float64)
    return (-0.5 * (z**2 + math.log(2 * math.pi))).reshape(len(z), -1).sum(1)


def check_encoder(table, params, golden, limit):
    config = params.config.encoder

    @jax.jit
    def run(params, lr):
        encoder = RRDBEncoder(config).bind({"params": params["encoder"]})
        feature, kept = encoder.trunk(lr, keep=tuple(range(config.nb)))
        ups = encoder.upsampled_features(feature, config.scale)
        image = encoder.head(ups, lr)
        return feature, kept, ups, image, condition(params, lr)

    feature, kept, ups, image, cond = run(params, jnp.asarray(golden["lr"]))
    got = {"rrdb/last_lr_fea": feature, "rrdb/out": image}
    got["rrdb/fea_up0"] = half_size(feature)
    got |= {f"rrdb/fea_up{f}": ups[f] for f in ups if f > 1}
    got |= {f"rrdb/block_{i}": block for i, block in enumerate(kept)}
    for i, level in enumerate(cond["levels"]):
        got[f"cond/level{i + 1}"] = dense(level) if isinstance(level, tuple) else level
    wanted = [k for k in golden if k.startswith(("rrdb/", "cond/"))]
    for name in wanted:
        table.check(name, got[name], golden[name], limit)
    return cond


def check_flow(table, params, golden, limit, nll_limit):
    hr, lr = jnp.asarray(golden["hr"]), jnp.asarray(golden["lr"])
    pixels = hr.shape[1] * hr.shape[2]
    latents, log_prob = flowsr_jax.encode(params, hr, lr)
    eps = latent_list(golden, "eps")
    assert len(latents) == len(eps)
    for i, (got, want) in enumerate(zip(latents, eps, strict=True)):
        table.check(f"eps/{i}", got, want, limit)
    log_prob = np.asarray(log_prob, np.float64)
    final = log_normal(latents[-1])
    table.check("logp_z", final, golden["logp_z"], 1e-5)
    table.check("logdet", log_prob - final, golden["logdet"], 1e-5)
    table.check("nll", -log_prob / (LN2 * pixels), golden["nll"], nll_limit, absolute=True)
    noisy = hr + (golden["noise_u"] - 0.5) / 32.0
    noisy_latents, noisy_log_prob = flowsr_jax.encode(params, noisy, lr)
    constant = -math.log(32.0) * pixels
    noisy_logdet = np.asarray(noisy_log_prob) - log_normal(noisy_latents[-1]) + constant
    table.check("logdet_noise", noisy_logdet, golden["logdet_noise"], 1e-5)
    noisy_nll = -(np.asarray(noisy_log_prob, np.float64) + constant) / (LN2 * pixels)
    table.check("nll_noise", noisy_nll, golden["nll_noise"], nll_limit, absolute=True)
    for name, z in {
        "decode/recon": latents,
        "decode/t0": [jnp.zeros_like(z) for z in latents],
        "decode/given": latent_list(golden, "given_eps"),
    }.items():
        image = flowsr_jax.decode(params, z, lr)
        table.check(name, image, golden[name], limit)
        _, back = flowsr_jax.encode(params, image, lr)
        # The official logdet of decode leaves out the last latent's own density.
        logdet = log_normal(z[-1]) - np.asarray(back, np.float64)
        table.check(f"{name}_logdet", logdet, golden[f"{name}_logdet"], 2e-5)
    zero = flowsr_jax.sample(params, lr, jax.random.key(0), temperature=0.0)
    table.check("sample at temperature 0", zero, golden["decode/t0"], limit)
    table.check("round trip of hr", flowsr_jax.decode(params, latents, lr), hr, limit)


def check_layers(table, params, golden, cond, limit):
    """Flow tensor and running official logdet after every layer."""
    x, logdet, n = jnp.asarray(golden["hr"]), np.zeros(len(golden["hr"])), 0
    flow = build_flow(params.config)
    layers = list(elementary_layers(flow["multiscale"], params["flow"]["multiscale"], cond))
    groups: list[list] = []
    for layer in layers:
        start = layer[0].endswith((".squeeze", ".split", ".actnorm"))
        if start:
            groups.append([])
        groups[-1].append(layer)
    for group in groups:
        for name, bijector, p, c in group:
            x, step = jax.jit(bijector.forward)(p, x, c)
            logdet = logdet + np.asarray(step, np.float64)
            if name.endswith(".split"):
                x, eps = x
                logdet = logdet + log_normal(eps)
        table.check(f"h/layer{n:02d}", x, golden[f"h/layer{n:02d}"], limit)
        if np.any(golden[f"logdet_after/layer{n:02d}"]):
            table.check(
                f"logdet_after/layer{n:02d}", logdet, golden[f"logdet_after/layer{n:02d}"], 1e-5
            )
        last = group[-1][0].split(".")[0]
        following = groups[n + 1][0][0].split(".")[0] if n + 1 < len(groups) else None
        if following != last:
            table.check(f"h/{last}_end", x, golden[f"h/{last}_end"], limit)
            name = f"logdet_after/{last}_end"
            table.check(name, logdet, golden[name], 1e-5)
        n += 1
    assert f"h/layer{n:02d}" not in golden


def official_gradient(rules, grads, key, shape):
    """The gradient of one official tensor, from the gradient tree."""
    parts = []
    for rule in rules:
        if key not in rule.keys:
            continue
        leaf = grads.tree
        for name in rule.path:
            leaf = leaf[name]
        leaf = np.asarray(leaf)
        leaf = leaf[rule.keys.index(key)] if rule.stacked else leaf
        parts.append(leaf.transpose(3, 2, 0, 1) if rule.kind == "conv" else leaf)
    return (
        np.concatenate(parts, axis=1).reshape(shape) if len(parts) > 1 else parts[0].reshape(shape)
    )


def check_gradients(table, params, golden):
    batch = {"hr": jnp.asarray(golden["hr"]), "lr": jnp.asarray(golden["lr"])}

    @jax.jit
    def gradient(params):
        return jax.grad(lambda p: nll_loss(p, {}, batch, None, units="official", noise="none")[0])(
            params
        )

    grads = gradient(params)
    rules = srflow_rules(params.config)
    names = [k for k in golden if k.startswith("grad/")]
    assert names
    for name in names:
        got = official_gradient(rules, grads, name.removeprefix("grad/"), golden[name].shape)
        table.check(name, got, golden[name], 1e-4)


@pytest.mark.parametrize("which", ["x4", pytest.param("x8", marks=pytest.mark.slow)])
def test_small_nets_agree(which, request):
    params, golden = request.getfixturevalue(which)
    table = Table(f"srflow_{which}")
    cond = check_encoder(table, params, golden, 1e-5)
    check_flow(table, params, golden, 1e-5, 1e-4)
    check_layers(table, params, golden, cond, 1e-5)
    check_gradients(table, params, golden)
    table.finish()


def test_inferred_configuration(x4, x8):
    params, _ = x4
    assert params.config.steps == (2, 2, 2) and params.config.split_levels == (1,)
    assert params.config.scale == 4 and params.config.encoder.nb == 3
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 518_723
    params, _ = x8
    assert params.config.steps == (1, 1, 1, 1) and params.config.split_levels == (1, 2)
    assert params.config.scale == 8
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 413_691


def test_actnorm_initialisation(x4, shared):
    params, _ = x4
    with np.load(shared / "golden/srflow_actnorm_init.npz") as data:
        golden = dict(data)

    def reset(path, leaf):
        inside = any("actnorm" in str(getattr(k, "key", "")) for k in path)
        return jnp.zeros_like(leaf) if inside else leaf

    blank = jax.tree_util.tree_map_with_path(reset, params)
    batch = {"hr": jnp.asarray(golden["hr"]), "lr": jnp.asarray(golden["lr"])}
    initial = jax.jit(lambda p, b: init_from_data(p, b, None, noise="none"))(blank, batch)
    table = Table("srflow_actnorm_init")
    rules = srflow_rules(params.config)
    for name in (k for k in golden if k.startswith("init/")):
        got = official_gradient(rules, initial, name.removeprefix("init/"), golden[name].shape)
        table.check(name, got, golden[name], 1e-5, absolute=True)
    latents, log_prob = flowsr_jax.encode(initial, batch["hr"], batch["lr"])
    for i, z in enumerate(latents):
        table.check(f"eps/{i}", z, golden[f"eps/{i}"], 1e-4)
    pixels = golden["hr"].shape[1] * golden["hr"].shape[2]
    nll = -np.asarray(log_prob) / (LN2 * pixels)
    table.check("nll", nll, golden["nll"], 1e-4, absolute=True)
    logdet = np.asarray(log_prob, np.float64) - log_normal(latents[-1])
    table.check("logdet", logdet, golden["logdet"], 1e-5)
    table.finish()


def test_official_training_steps(x4, shared):
    params, golden = x4
    with open(shared / "golden/srflow_train_steps.json") as file:
        facts = json.load(file)
    batch = {"hr": jnp.asarray(golden["hr"]), "lr": jnp.asarray(golden["lr"])}
    optimizer = optax.adam(facts["lr"], *facts["betas_in_effect"], eps=facts["adam_eps"])

    @jax.jit
    def step(params, state):
        loss, grads = jax.value_and_grad(
            lambda p: nll_loss(p, {}, batch, None, units="official", noise="none")[0]
        )(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    state, losses, start = optimizer.init(params), [], params
    for _ in facts["loss"]:
        params, state, loss = step(params, state)
        losses.append(float(loss))
    table = Table("srflow_train_steps")
    table.check("loss", losses, facts["loss"], 1e-4, absolute=True)
    first = ("encoder", "conv_first", "w")
    moved = max(
        float(jnp.max(jnp.abs(a - b))) for a, b in [(_at(params, first), _at(start, first))]
    )
    want = facts["max_abs_change_RRDB.conv_first.weight_after_all_steps"]
    table.check("max change of RRDB.conv_first.weight", moved, want, 1e-2)
    table.finish()


def _at(params, path):
    node = params.tree
    for name in path:
        node = node[name]
    return node


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SRFlow_DF2K_4X", "SRFlow_DF2K_8X", "SRFlow_CelebA_8X"])
def test_full_size_nets_agree(name, shared):
    with np.load(shared / f"golden/srflow_full_{name}.npz") as data:
        golden = dict(data)
    weights = full_size_weights((shared / f"spec/keys/{name}.txt").read_text())
    params = flowsr_jax.from_torch(weights)
    table = Table(f"srflow_full_{name}")
    check_encoder(table, params, golden, 1e-3)
    check_flow(table, params, golden, 1e-3, 1e-3)
    table.finish()


def test_rrdb_checkpoint_is_a_model_of_its_own(x4):
    _, golden = x4
    rng = np.random.default_rng(0)
    params = flowsr_jax.from_torch(_rrdb_state(rng))
    assert params.config.family == "rrdb"
    lr = jnp.asarray(golden["lr"])
    sr = flowsr_jax.sample(params, lr, jax.random.key(0))
    assert sr.shape == (2, 32, 40, 3)
    np.testing.assert_allclose(sr, rrdb_apply(params["encoder"], lr, params.config), atol=1e-5)


def _rrdb_state(rng, nf=8, gc=4):
    def conv(co, ci):
        return rng.standard_normal((co, ci, 3, 3)).astype("f") * 0.1, np.zeros(co, "f")

    state = {}

    def add(name, co, ci):
        state[f"{name}.weight"], state[f"{name}.bias"] = conv(co, ci)

    add("conv_first", nf, 3)
    for j in (1, 2, 3):
        for c in range(5):
            out = nf if c == 4 else gc
            add(f"RRDB_trunk.0.RDB{j}.conv{c + 1}", out, nf + c * gc)
    for name in ("trunk_conv", "upconv1", "upconv2", "HRconv"):
        add(name, nf, nf)
    add("conv_last", 3, nf)
    return state
