"""Agreement of SR3 and DDPM with the arrays of the public code, through public calls.

Run with -s to see the largest error of every array.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from golden_tools import Table

import flowsr_jax
from flowsr_jax.diffusion import process
from flowsr_jax.diffusion.schedules import (
    BUFFERS,
    ScheduleConfig,
    buffers,
    gammas,
    trailing_grid,
    trailing_timesteps,
)
from flowsr_jax.io.torch_file import read_weights
from flowsr_jax.models import Params
from flowsr_jax.models.importer import state_dict
from flowsr_jax.models.sr3.losses import denoising_loss
from flowsr_jax.models.sr3.network import gamma_of, predict_noise
from flowsr_jax.models.sr3.sample import sample
from flowsr_jax.models.sr3.weights import sr3_rules
from flowsr_jax.nets.embedding import sinusoidal
from flowsr_jax.nets.unet import UNet

pytestmark = [
    pytest.mark.usefixtures("as_users_compile"),
    pytest.mark.filterwarnings("ignore::flowsr_jax.diffusion.schedules.ScheduleWarning"),
]
NETWORK, CHAIN, GRADIENT = 2e-5, 5e-4, 1e-5
GIVEN = {"norm_groups": 8, "image_size": 32, "scale": 1}


def schedule_of(facts):
    return ScheduleConfig(
        facts["schedule"], facts["n_timestep"], facts["linear_start"], facts["linear_end"]
    )


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    params: Params
    golden: dict
    train: ScheduleConfig
    chain: ScheduleConfig

    @property
    def timed(self):
        return self.params.config.timed

    @property
    def call_level(self):
        return self.golden["call_t" if self.timed else "call_noise_level"]

    def level(self, schedule, t):
        """What the network is told at the 0-based step t of a schedule, [B]."""
        value = t if self.timed else np.sqrt(gammas(schedule)[t])
        return np.full(2, value, np.int32 if self.timed else np.float32)


@pytest.fixture(scope="module", params=["sr3", "ddpm"])
def case(request, shared):
    with np.load(shared / f"golden/{request.param}_small.npz") as data:
        golden = dict(data)
    facts = json.loads(str(golden.pop("config_json")))
    weights = {k.removeprefix("w/"): v for k, v in golden.items() if k.startswith("w/")}
    train = schedule_of(facts["sched_train"])
    params = flowsr_jax.from_torch(weights, **GIVEN, schedule=train)
    return Case(request.param, params, golden, train, schedule_of(facts["sched_chain"]))


OPTIMIZER = optax.flatten(optax.adam(1e-3))


# One program, compiled fast rather than for speed: compilation is most of the time here.
@functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
def step(params, state, arrays, level):
    """An Adam step on the L1 loss; ((l1, l2, activations), gradients), parameters, state."""
    hr, cond, noise = (arrays[k] for k in ("hr", "cond", "noise"))

    def loss(params):
        l1, _ = denoising_loss(params, hr, cond, noise, level, norm="l1")
        l2, _ = denoising_loss(params, hr, cond, noise, level, norm="l2")
        _, state = UNet(params.config.unet).apply(
            {"params": params["unet"]}, x, level, cond,
            capture_intermediates=True, mutable=["intermediates"],
        )  # fmt: skip
        return l1, (l1, l2, state["intermediates"])

    x = process.q_sample(hr, noise, jnp.sqrt(gamma_of(params.config, level)))
    (_, seen), grads = jax.value_and_grad(loss, has_aux=True)(params)
    updates, state = OPTIMIZER.update(grads, state)
    return (seen, grads), jax.tree.map(jnp.add, params, updates), state


def official_gradient(rules, grads, key):
    """The gradient of one official tensor, in its layout."""
    (rule,) = [rule for rule in rules if rule.keys == (key,)]
    leaf = grads.tree
    for name in rule.path:
        leaf = leaf[name]
    return rule.write(leaf)[key]


def test_network_losses_and_gradients_agree(case):
    golden, params, table = case.golden, case.params, Table(f"{case.name}_small")
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert count == {"sr3": 432_675, "ddpm": 263_091}[case.name]
    level = jnp.asarray(case.call_level)
    signal = np.sqrt(gammas(case.train)[case.call_level]) if case.timed else case.call_level
    noisy = process.q_sample(golden["hr"], golden["noise"], np.float32(signal))
    table.check("q_sample", noisy, golden["q_sample"], 1e-6, absolute=True)
    eps = predict_noise(params, golden["q_sample"], level, golden["cond"])
    table.check("eps", eps, golden["eps"], NETWORK, absolute=True)
    arrays = {k: golden[k] for k in ("hr", "cond", "noise")}
    assert np.float32(golden["adam_lr"]) == np.float32(1e-3)
    state, losses, first = OPTIMIZER.init(params), [], None
    for _ in golden["adam_losses"]:
        seen, params, state = step(params, state, arrays, level)
        first = first or seen
        losses.append(seen[0][0])
    (l1, l2, layers), grads = first
    kept = {name: seen["__call__"][0] for name, seen in layers.items() if name != "__call__"}
    kept["level_embed"] = kept["level_mlp"]
    kept["pos_enc"] = sinusoidal(level, params.config.unet.channels)
    names = [k.removeprefix("act/") for k in golden if k.startswith("act/")]
    assert len(names) == 2 + 6 + 2 + 8
    for name in names:
        want = golden[f"act/{name}"]
        table.check(f"act/{name}", kept[name][: len(want)], want, 1e-4, absolute=True)
    for norm, value in (("l2", l2), ("l1", l1)):
        table.check(f"loss_{norm}", value, golden[f"loss_{norm}"], 2e-6)
        # The sum differs from the mean by the number of values, as in the public code.
        table.check(f"loss_{norm}_sum", value * noisy.size, golden[f"loss_{norm}_sum"], 2e-6)
    table.check("grad_global_norm", optax.tree.norm(grads), golden["grad_global_norm"], GRADIENT)
    rules = sr3_rules(params.config)
    for name in (k for k in golden if k.startswith("grad/")):
        got = official_gradient(rules, grads, name.removeprefix("grad/"))
        table.check(name, got, golden[name], GRADIENT, absolute=True)
    table.check("adam_losses", losses, golden["adam_losses"], 2e-5, absolute=True)
    bias = params["unet"]["final_conv"]["conv"]["b"]
    table.check("adam_final_bias_after5", bias, golden["adam_final_bias_after5"], 1e-5, True)
    table.finish()


def test_ancestral_chain_agrees(case):
    golden, table = case.golden, Table(f"{case.name}_small, chain")
    steps = case.chain.steps
    for name, got in buffers(case.chain).items():
        table.check(f"sched/{name}", got, golden[f"sched/{name}"], 1e-6)
    # The public code feeds the DDPM variant the timesteps of the chain's own schedule.
    params = case.params
    if case.timed:
        params = Params(params.tree, dataclasses.replace(params.config, schedule=case.chain))
    lr = jnp.asarray((golden["cond"] + 1) / 2)
    assert np.all(np.abs(golden["cond"]) <= 1)
    states = sample(
        params,
        lr,
        schedule=case.chain,
        x_T=golden["chain_start"],
        noises=golden["chain_noise"],
        trajectory=steps,
    )
    states = 2 * np.asarray(states) - 1
    table.check("chain_images", states, golden["chain_images"], CHAIN, absolute=True)
    assert np.max(np.abs(states[-1])) <= 1
    kept = [t for t in range(steps) if t % (1 | steps // 10) == 0]
    _, h, w, c = lr.shape
    shape = (len(lr) * (1 + len(kept)), c, h, w)
    np.testing.assert_array_equal(shape, golden["ret_continuous_shape_nchw"])
    before = {"first": (golden["chain_start"], steps - 1), "last": (golden["chain_images"][-2], 0)}
    for name, (x, t) in before.items():
        eps = predict_noise(case.params, x, case.level(case.chain, t), golden["cond"])
        table.check(f"chain_eps_{name}", eps, golden[f"chain_eps_{name}"], NETWORK, absolute=True)
    t, x = int(golden["pmean_t"]), golden["pmean_x"]
    eps = predict_noise(case.params, x, case.level(case.chain, t), golden["cond"])
    gamma = gammas(case.chain)
    x0, _ = process.predictions("eps", eps, x, np.float32(gamma[t]))
    for clip, limit in ((1, 1.0), (0, np.inf)):
        mean, variance = process.posterior(jnp.clip(x0, -limit, limit), x, gamma[t], gamma[t - 1])
        table.check(f"pmean_clip{clip}", mean, golden[f"pmean_clip{clip}"], NETWORK, absolute=True)
    table.check("plogvar", math.log(variance), golden["plogvar"], 1e-6, absolute=True)
    table.finish()


FEW = {
    "ddim_noclip": {"sampler": "ddim", "clip": "none"},
    "ddim_clip": {"sampler": "ddim", "keep_eps": True},
    "ddim_clip_rederive": {"sampler": "ddim"},
    "ddim_eta1_clip": {"sampler": "ddim", "eta": 1.0, "keep_eps": True},
    "dpmpp2m_clip": {"sampler": "dpmpp2m"},
    "ancestral_tilde_clip": {"sampler": "ancestral"},
    "ancestral_beta_noclip": {"sampler": "ancestral", "variance": "beta", "clip": "none"},
}


def test_few_step_samplers_agree(case):
    golden, table = case.golden, Table(f"{case.name}_small, six steps")
    np.testing.assert_array_equal(trailing_timesteps(case.train.steps, 6), golden["few_timesteps"])
    table.check("few_gamma", trailing_grid(case.train, 6), golden["few_gamma"], 1e-12)
    assert {k for k in golden if k.startswith("few_")} == {
        "few_timesteps",
        "few_gamma",
        *(f"few_{name}" for name in FEW),
    }
    lr = jnp.asarray((golden["cond"] + 1) / 2)
    given = {"x_T": golden["chain_start"], "noises": golden["chain_noise"], "steps": 6}
    for name, options in FEW.items():
        image = 2 * np.asarray(sample(case.params, lr, **given, **options)) - 1
        want = golden[f"few_{name}"]
        if options.get("clip") == "none":
            table.check(f"few_{name}", image, want, 1e-5)
        else:
            # Keeping the network's eps magnifies rounding errors of an untrained network.
            limit = 1e-2 if name == "ddim_clip" else CHAIN
            table.check(f"few_{name}", image, want, limit, absolute=True)
    table.finish()


def test_the_official_file_is_read(shared):
    """sr3_small.pth, with its buffers: same network, and the schedule is inferred."""
    with np.load(shared / "golden/sr3_small.npz") as data:
        golden = dict(data)
    params = flowsr_jax.from_torch(shared / "golden/sr3_small.pth", **GIVEN)
    config = params.config
    assert config.family == "sr3" and config.prediction == "eps"
    assert config.unet.multipliers == (1, 2, 3) and config.unet.res_blocks == 1
    assert config.unet.attn_res == (8,) and config.unet.cond_channels == 3
    assert config.schedule == ScheduleConfig("linear", 100, 1e-4, 0.12)
    stored = read_weights(shared / "golden/sr3_small.pth")
    table = Table("sr3_small.pth")
    for name in BUFFERS:
        table.check(name, buffers(config.schedule)[name], stored[name], 1e-6)
    eps = predict_noise(params, golden["q_sample"], golden["call_noise_level"], golden["cond"])
    table.check("eps", eps, golden["eps"], NETWORK, absolute=True)
    table.finish()
    written = state_dict(params)
    assert list(written) == list(stored)
    for name, want in stored.items():
        np.testing.assert_array_equal(written[name], want, strict=True)
