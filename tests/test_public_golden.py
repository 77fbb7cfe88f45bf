"""Every family against the arrays of the official code, through public calls alone.

`flowsr_jax.from_torch` and one or two verbs each; the families' own golden tests look
inside.  Run with -s to see the largest error of every array.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_tools import Table

import flowsr_jax
from flowsr_jax.io.torch_file import read_weights

pytestmark = pytest.mark.usefixtures("as_users_compile")

LN2 = np.log(2.0)
SR3 = {"norm_groups": 8, "image_size": 32, "scale": 1}


def golden(shared, name):
    """(arrays, official weights) of a golden file."""
    with np.load(shared / f"golden/{name}.npz") as data:
        arrays = dict(data)
    weights = {}
    for key, value in arrays.items():
        for prefix in ("weights/", "weights_G/", "weights_R/", "w/"):
            if key.startswith(prefix):
                weights[key.removeprefix(prefix)] = value
    return arrays, weights


def srflow(shared, name, table):
    """The flow both ways; a likelihood; the deterministic image."""
    want, weights = golden(shared, name)
    source = weights or shared / f"golden/{name}.pth"
    blocks = {"srflow_x4": (0, 2), "srflow_x8": (0, 1)}[name]
    params = flowsr_jax.from_torch(source, stacked_blocks=blocks)
    hr, lr = jnp.asarray(want["hr"]), jnp.asarray(want["lr"])
    latents, log_prob = flowsr_jax.encode(params, hr, lr)
    for i, z in enumerate(latents):
        table.check(f"encode: eps/{i}", z, want[f"eps/{i}"], 1e-5)
    nll = -np.asarray(log_prob, np.float64) / (LN2 * hr.shape[1] * hr.shape[2])
    table.check("encode: nll", nll, want["nll"], 1e-4, absolute=True)
    given = [want[f"given_eps/{i}"] for i in range(len(latents))]
    table.check("decode: given", flowsr_jax.decode(params, given, lr), want["decode/given"], 1e-5)
    zero = flowsr_jax.sample(params, lr, None, temperature=0.0, noise=given)
    table.check("sample: t0", zero, want["decode/t0"], 1e-5)


def rrdb(shared, name, table):
    """SRFlow's encoder as a file of its own."""
    want, _ = golden(shared, "srflow_x4")
    state = read_weights(shared / "golden/srflow_x4.pth")
    own = {k.removeprefix("RRDB."): v for k, v in state.items() if k.startswith("RRDB.")}
    params = flowsr_jax.from_torch(own)
    assert params.config.family == "rrdb"
    sr = flowsr_jax.sample(params, jnp.asarray(want["lr"]), jax.random.key(0))
    table.check("sample: rrdb/out", sr, want["rrdb/out"], 1e-5)


def irn(shared, name, table):
    """Down and up again; z given and zero."""
    want, weights = golden(shared, name)
    file = shared / f"golden/{name}.pth"
    params = flowsr_jax.from_torch(file if file.exists() else weights)
    hr = jnp.asarray(want["hr_u8"], jnp.float32) / 255
    levels = flowsr_jax.downscale(params, hr)
    quantised = want["grey_quant" if name == "irn_color" else "lr_quant"]
    table.check("downscale: lr_quant", np.asarray(levels) / 255, quantised, 1e-6)
    if name == "irn_crm":  # the official arrays end at the LR image
        return
    up = flowsr_jax.upscale(params, levels, z=want["z_given"])
    table.check("upscale: inverse_z_given", up, want["inverse_z_given"], 1e-5)
    up = flowsr_jax.upscale(params, levels)
    table.check("upscale: inverse_z_zero", up, want["inverse_z_zero"], 1e-5)
    latents, _ = flowsr_jax.encode(params, hr)
    both = np.concatenate(latents, axis=-1)
    table.check("encode: forward_out", both, want["forward_out"], 1e-5)


def sr3(shared, name, table):
    """One evaluation of the network, a whole chain and two short ones."""
    want, weights = golden(shared, name)
    facts = json.loads(str(want["config_json"]))
    model, level = ("ddpm", "call_t") if name.startswith("ddpm") else ("sr3", "call_noise_level")
    schedules = {
        key: {
            "name": facts[key]["schedule"],
            "steps": facts[key]["n_timestep"],
            "start": facts[key]["linear_start"],
            "end": facts[key]["linear_end"],
        }
        for key in ("sched_train", "sched_chain")
    }
    file = shared / f"golden/{name}.pth"
    given = {} if file.exists() else {"schedule": schedules["sched_train"]}
    source = file if file.exists() else weights
    params = flowsr_jax.from_torch(source, model, **SR3, **given)
    eps = flowsr_jax.predict_noise(params, want["q_sample"], want[level], want["cond"])
    table.check("predict_noise: eps", eps, want["eps"], 2e-5, absolute=True)
    lr = jnp.asarray((want["cond"] + 1) / 2)
    noise = {"x_T": want["chain_start"], "noises": want["chain_noise"]}
    for sampler, key in (
        ("ancestral", "few_ancestral_tilde_clip"),
        ("ddim", "few_ddim_clip_rederive"),
        ("dpmpp2m", "few_dpmpp2m_clip"),
    ):
        sr = flowsr_jax.sample(params, lr, None, sampler=sampler, steps=6, **noise)
        table.check(f"sample: {key}", 2 * np.asarray(sr) - 1, want[key], 5e-4, absolute=True)
    # The chain has a schedule of its own, and the DDPM form counts its timesteps.
    params = flowsr_jax.from_torch(source, model, **SR3, schedule=schedules["sched_chain"])
    sr = flowsr_jax.sample(params, lr, None, **noise)
    last = want["chain_images"][-1]
    table.check("sample: chain_images", 2 * np.asarray(sr) - 1, last, 5e-4, absolute=True)


CASES = {
    "srflow_x4": srflow,
    "srflow_x8": srflow,
    "rrdb": rrdb,
    "irn_x2": irn,
    "irn_x3": irn,
    "irn_x4": irn,
    "irn_color": irn,
    "irn_crm": irn,
    "sr3_small": sr3,
    "ddpm_small": sr3,
}


@pytest.mark.filterwarnings("ignore::flowsr_jax.diffusion.schedules.ScheduleWarning")
@pytest.mark.parametrize("name", CASES)
def test_public_calls_agree_with_the_official_arrays(shared, name):
    table = Table(name)
    CASES[name](shared, name, table)
    table.finish()
