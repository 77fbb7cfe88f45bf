"""Agreement of Glow with the arrays of the official code, through the public calls.

Run with -s to see the largest error of every array.
"""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_tools import Table

from flowsr_jax.bijectors import BorderedSplit
from flowsr_jax.math.gaussian import gaussian_log_prob, standard_normal_log_prob
from flowsr_jax.models.glow import GlowConfig
from flowsr_jax.models.glow.losses import init_from_data, nll_loss, objective
from flowsr_jax.models.glow.network import build_flow, init, top_prior
from flowsr_jax.models.glow.sample import decode, encode, sample
from flowsr_jax.models.glow.weights import WEIGHTS, tf_rules
from flowsr_jax.models.unconditional import dequantize, pixels, to_uint8
from flowsr_jax.train.config import GroupConfig
from flowsr_jax.train.optimizer import make_optimizer

pytestmark = pytest.mark.usefixtures("as_users_compile")

LN2 = np.log(2.0)
METRICS = ("bits_per_dim", "bits_y", "class_error")
NO_CLASS = {"bits_y": 0.0, "class_error": 1.0}
DRAWS = ("dec", "sample")
PERMUTATIONS = ("reverse", "shuffle", "conv1x1")


def config_of(golden):
    c = json.loads(str(golden["config"]))
    conditional = c.get("ycond", False)
    return GlowConfig(
        levels=c["n_levels"],
        steps=c["depth"],
        hidden=c["width"],
        coupling=("additive", "affine")[c["coup"]],
        permutation=PERMUTATIONS[c["perm"]],
        learn_top=c["learntop"],
        classes=c["n_y"] if conditional else 0,
        class_weight=c.get("weight_y", 0.0),
        n_bits=c["bits"],
        size=c["image"][0],
    )


def read(shared, file, name):
    """(config, arrays of one configuration, its variables by TensorFlow name)."""
    with np.load(shared / f"golden/{file}.npz") as data:
        golden = {k.removeprefix(f"{name}/"): data[k] for k in data.files if k.startswith(name)}
    variables = {k.removeprefix("w/"): v for k, v in golden.items() if k.startswith("w/")}
    return config_of(golden), golden, variables


def load(config, variables):
    """Parameters of official variables, whose names and shapes must say the same as config."""
    params = WEIGHTS(
        variables, n_bits=config.n_bits, size=config.size, class_weight=config.class_weight
    )
    assert params.config == config
    return params


def official(config, tree):
    """{TensorFlow name: array} of a parameter or gradient tree."""
    out = {}
    for rule in tf_rules(config):
        leaf = tree
        for name in rule.path:
            leaf = leaf[name]
        out |= rule.write(leaf)
    return out


def batch_of(config, golden, prefix=""):
    """A training batch; official noise is already scaled to a cell."""
    batch = {
        "hr": jnp.asarray(golden[f"{prefix}x"], jnp.float32) / 255,
        "noise": jnp.asarray(golden[f"{prefix}noise"]) * 2**config.n_bits,
    }
    if f"{prefix}y" in golden:
        batch["label"] = jnp.asarray(golden[f"{prefix}y"])
    return batch


def to_float(image):
    """What the official code calls the image: centred, cells of width 1/256."""
    return pixels(shift=-0.5).forward({}, image)[0]


@jax.jit
def measure(params, image, label):
    """Everything about images in one program: levels, encode, the terms of the loss."""
    config, flow = params.config, build_flow(params.config)
    (_, shift), (_, multiscale) = flow.bijectors
    tree = params["flow"]["multiscale"]
    x, found, logdets = shift.forward({}, image)[0], {}, []
    for i in range(config.levels):
        level, split = tree[f"level{i + 1}"], multiscale.splits[i]
        x, logdet = multiscale.levels[i].forward(level["flow"], x)
        logdets.append(logdet)
        if split is not None:
            n = split.passed(x.shape[-1])
            x, z = x[..., :n], x[..., n:]
            mean, logs = split.moments(level["split"], x, z.shape[-1], None, None)
        else:
            z, prior = x, params.get("prior", {})
            mean, logs = top_prior(config).moments(prior, z.shape, {"label": label})
            mean, logs = (jnp.broadcast_to(m, z.shape) for m in (mean, logs))
        found |= {f"z{i}": z, f"mean{i}": mean, f"logs{i}": logs}
        found[f"logp{i}"] = gaussian_log_prob(z, mean, logs)
    latents, log_prob = encode(params, image, label=label)
    found |= {f"eps{i}": z for i, z in enumerate(latents)}
    return found, jnp.stack(logdets), log_prob, objective(params, image, label)


@pytest.mark.parametrize("name", ["aff_1x1", "add_rev", "aff_shuf", "cond_add_1x1"])
def test_small_models_agree(name, shared):
    config, golden, variables = read(shared, "glow_small", name)
    params = load(config, variables)
    batch = batch_of(config, golden)
    label = batch["label"] if config.classes else None
    image = dequantize(batch["hr"], batch["noise"], config.n_bits)
    table = Table(f"glow_small {name}")

    found, logdets, log_prob, terms = measure(params, image, label)
    for key, got in found.items():
        table.check(key, got, golden[key], 1e-5 if "logp" in key else 1e-4)
    limit = 1e-5 * np.abs(golden["logdet_levels"]).max() + 2e-3
    table.check("logdet_levels", logdets, golden["logdet_levels"], limit, absolute=True)
    bits = config.n_bits - (np.asarray(log_prob) / image[0].size - np.log(255 / 256)) / LN2
    table.check("bits_x from encode", bits, golden["bits_x"], 1e-5, absolute=True)
    bits_x, bits_y, error = (np.asarray(terms[k]) for k in METRICS)
    local = bits_x + config.class_weight * bits_y
    for key, got in {"bits_x": bits_x, "bits_y": bits_y, "local_loss": local}.items():
        table.check(key, got, golden[key], 1e-5, absolute=True)
    table.check("class_err", error, golden["class_err"], 0.0, absolute=True)
    means = [x.mean() for x in (local, bits_x, bits_y, error)]
    table.check("loss_mean", means, golden["loss_mean"], 1e-5, absolute=True)

    # Decoded as draws of temperature 1, together with the draws.
    given, noise = ([golden[f"{k}_eps{i}"] for i in range(config.levels)] for k in DRAWS)
    drawn = sample(
        params,
        None,
        None,
        noise=[np.concatenate(pair) for pair in zip(given, noise, strict=True)],
        temperature=np.concatenate([np.ones(2, np.float32), golden["sample_T"]]),
        label=None if label is None else jnp.tile(label, 2),
    )
    images = dict(zip(DRAWS, jnp.split(drawn, 2), strict=True))
    if config.classes:
        images["dec"] = decode(params, given, label=label)
    for key, got in images.items():
        table.check(f"{key}_float", to_float(got), golden[f"{key}_float"], 1e-4, absolute=True)
        levels = to_uint8(got, config.n_bits)
        table.check(f"{key}_x", levels, golden[f"{key}_x"], 0.0, absolute=True)
    table.finish()


def test_data_dependent_initialisation(shared):
    config, golden, variables = read(shared, "glow_small", "aff_1x1")
    after = {k.removeprefix("ddi/w/"): v for k, v in golden.items() if k.startswith("ddi/w/")}
    assert set(after) == set(variables)
    blank = {k: np.zeros_like(v) if "/actnorm_" in k else v for k, v in after.items()}
    batch = batch_of(config, golden, "ddi/")

    @jax.jit
    def run(params):
        params = init_from_data(params, batch, None)
        return params, nll_loss(params, {}, batch, None)[0]

    params, loss = run(load(config, blank))
    table = Table("glow_small aff_1x1/ddi")
    for name, got in official(config, params).items():
        table.check(name, got, after[name], 1e-6, absolute=True)
    table.check("bits_x_after", loss, golden["ddi/bits_x_after"], 1e-5, absolute=True)
    table.finish()


@pytest.mark.parametrize("name", ["aff_1x1", "cond_add_1x1"])
def test_gradients_and_adamax_steps(name, shared):
    config, golden, variables = read(shared, "glow_train", name)
    batch = batch_of(config, golden)
    betas = (float(golden["beta1"]), float(golden["beta2"]))
    rate = float(golden["lr"])
    group = GroupConfig(name="*", lr=rate, optimizer="adamax_glow", betas=betas, eps=1e-8)
    optimizer = make_optimizer(group)
    start = params = load(config, variables)
    state = optimizer.init(params)
    table = Table(f"glow_train {name}")

    @jax.jit
    def step(params, state):
        (loss, (_, metrics)), grads = jax.value_and_grad(nll_loss, has_aux=True)(
            params, {}, batch, None
        )
        updates, state = optimizer.update(grads, state, params)
        moved = jax.tree.map(lambda w, u: w - rate * u, params, updates)
        return moved, state, grads, [loss, *({**NO_CLASS, **metrics}[k] for k in METRICS)]

    for t in range(3):
        key = f"loss_after_step{t}" if t else "loss"
        params, state, grads, losses = step(params, state)
        table.check(key, losses, golden[key], 1e-5, absolute=True)
        if t == 0:
            first = official(config, grads)
            for key in (k for k in golden if k.startswith("grad/")):
                table.check(key, first[key.removeprefix("grad/")], golden[key], 1e-4)
        before, moved = official(config, start), official(config, params)
        for key in (k for k in golden if k.startswith(f"w_step{t + 1}/")):
            tf = key.split("/", 1)[1]
            # Where the gradient is rounding noise, so is the direction of the step.
            size = np.abs(golden[f"grad/{tf}"])
            clear = size > 1e-3 * size.max()
            got, want = (np.where(clear, w - before[tf], 0) for w in (moved[tf], golden[key]))
            table.check(key, got, want, 1e-6, absolute=True)
    table.finish()


def test_gaussian_of_the_bijector_arrays(shared):
    with np.load(shared / "golden/bijectors.npz") as data:
        golden = {k: data[k] for k in data.files if k.startswith("gaussian_diag/")}
    z, mean, logs, eps = (
        jnp.asarray(golden[f"gaussian_diag/{k}"]) for k in ("z", "mean", "logs", "eps")
    )
    table = Table("bijectors gaussian_diag")
    logp = gaussian_log_prob(z, mean, logs)
    table.check("logp", logp, golden["gaussian_diag/logp"], 1e-5)

    class Given(BorderedSplit):
        def moments(self, params, z1, channels, cond, prepared):
            return mean, logs

    (_, got), logdet = Given().forward({}, jnp.concatenate([z, z], axis=-1))
    table.check("eps of a split", got, eps, 1e-5)
    whole = standard_normal_log_prob(got) + logdet
    table.check("logp of a split", whole, golden["gaussian_diag/logp"], 1e-5)
    (back, _) = Given().inverse({}, (z, eps))
    table.check("z of a split", back[..., z.shape[-1] :], z, 1e-5)
    table.finish()


@pytest.mark.parametrize("name", ["glow_cifar10", "glow_cifar10_ycond"])
def test_full_size_variables(name, shared):
    listed = {}
    for line in (shared / f"spec/keys/{name}.txt").read_text().splitlines():
        if not line.startswith("#"):
            key, shape = line.split()[:2]
            listed[key] = tuple(int(n) for n in shape.strip("()").split(",") if n)
    config = GlowConfig()
    if "ycond" in name:
        config = GlowConfig(coupling="additive", classes=10, n_bits=5)
    shapes = jax.eval_shape(lambda key: init(config, key), jax.random.key(0))
    blank = jax.tree.map(lambda s: np.broadcast_to(np.int8(0), s.shape), shapes)
    assert {k: v.shape for k, v in official(config, blank).items()} == listed
    assert sum(leaf.size for leaf in jax.tree.leaves(blank)) == sum(
        int(np.prod(s)) for s in listed.values()
    )
