"""Small models of every family, whose parameter trees and programs test_frozen.py holds fixed.

Run as a script it writes tests/data/frozen.json anew: only after a change that is meant to
change parameters or programs.  With "print" it prints the programs as JSON.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp

from flowsr_jax.config import from_dict
from flowsr_jax.models import get_family

FILE = Path(__file__).parent / "data" / "frozen.json"
ENCODER = {"nf": 8, "gc": 4, "nb": 2}
UNET = {"channels": 8, "multipliers": (1, 2), "res_blocks": 1, "attn_res": (8,), "image_size": 16}
UNET |= {"norm_groups": 4}
FLOW = {"steps": (2, 2), "transition_steps": 1, "hidden": 8, "stacked_blocks": (0, 1)}
PLAIN = {"conv": "xla", "unroll": True, "subpixel": False}

# {case: (family, config, {loss: options}, LR or image side)}
CASES = {
    "rrdb": ("rrdb", {"scale": 4, **ENCODER}, {"l1": {}}, 4),
    "rrdb_subpixel": (
        "rrdb",
        {"scale": 2, **ENCODER, "head": "subpixel", "residual": True, "skip": "first",
         "compute": {"memory": "remat"}},
        {"l1": {}},
        4,
    ),
    "rrdb_bfloat16": ("rrdb", {"scale": 2, **ENCODER, "compute": {"dtype": "bfloat16"}}, {}, 4),
    "srflow": (
        "srflow", {"encoder": {"scale": 4, **ENCODER}, **FLOW, "steps": (2, 2, 2)}, {"nll": {}}, 4
    ),
    "srflow_ours": (
        "srflow",
        {"encoder": {"scale": 4, **ENCODER, "head": "subpixel", "residual": True,
                     "compute": PLAIN},
         **FLOW, "stacked_blocks": (), "splits": (1,), "shift_by_encoder": True,
         "condition_on_estimate": True, "scale_form": "tanh", "compute": PLAIN},
        {"nll": {}, "l1": {}},
        4,
    ),
    "srflow_reversible": (
        "srflow",
        {"encoder": {"scale": 2, **ENCODER}, **FLOW,
         "compute": {"memory": "reversible", "dtype": "bfloat16"}},
        {"nll": {}},
        4,
    ),
    "srflow_remat": (
        "srflow",
        {"encoder": {"scale": 2, **ENCODER}, **FLOW, "injector": False,
         "compute": {"memory": "remat", "hoist": False}},
        {"nll": {}},
        4,
    ),
    "sr3": (
        "sr3",
        {"scale": 2, "schedule": {"steps": 3, "end": 0.99}, "unet": {**UNET, "dropout": 0.2}},
        {"eps": {}},
        8,
    ),
    "sr3_64": (
        "sr3",
        {"scale": 4, "schedule": {"steps": 3, "end": 0.99},
         "unet": {**UNET, "block": "biggan", "affine": True, "compute": {"memory": "remat"}}},
        {"eps": {"drop_condition": 0.2}},
        4,
    ),
    "ddpm": (
        "sr3",
        {"scale": 1, "schedule": {"steps": 3, "end": 0.99}, "classes": 3,
         "unet": {**UNET, "conditioning": "time", "cond_channels": 0, "init": "zero_last",
                  "head_channels": 4, "compute": {"dtype": "bfloat16"}}},
        {"eps": {}},
        16,
    ),
    "irn": ("irn", {"scale": 2, "blocks": (2,), "growth": 4}, {"rescale": {}}, 8),
    "irn_plus": (
        "irn",
        {"scale": 4, "blocks": (1, 1), "growth": 4, "discriminator": {"nf": 4, "size": 32}},
        {"plus": {}},
        8,
    ),
    "glow": (
        "glow", {"levels": 2, "steps": 2, "hidden": 8, "size": 8, "channels": 3}, {"nll": {}}, 8
    ),
    "glow_classes": (
        "glow",
        {"levels": 2, "steps": 2, "hidden": 8, "size": 8, "channels": 1, "classes": 4,
         "class_weight": 0.1, "permutation": "conv1x1_plu",
         "compute": {"memory": "reversible"}},
        {"nll": {}},
        8,
    ),
    "realnvp": (
        "realnvp", {"scales": 2, "dim": 4, "blocks": 2, "size": 8, "channels": 3}, {"nll": {}}, 8
    ),
    "nice": ("nice", {"shape": (4, 4, 1), "layers": 2, "hidden": 8}, {"nll": {}}, 4),
}  # fmt: skip


def make_config(case: str):
    """Return the frozen model config of a case."""
    family, values, _, _ = CASES[case]
    return from_dict(get_family(family).config_class, values)


def abstract_params(case: str):
    """Return the case's parameters as shapes."""
    family = get_family(CASES[case][0])
    config = make_config(case)
    return jax.eval_shape(lambda key: family.init(config, key), jax.random.key(0))


def tree(case: str) -> dict[str, str]:
    """Return {path of a parameter: "dtype[shape]"}."""
    leaves = jax.tree_util.tree_leaves_with_path(dict(abstract_params(case).tree))
    return {jax.tree_util.keystr(path): f"{x.dtype}{list(x.shape)}" for path, x in leaves}


def verbs(case: str) -> dict[str, tuple]:
    """Return {program: (function, *abstract arguments)}: sample, encode, each loss's gradient."""
    name, _, losses, side = CASES[case]
    family, config, params = get_family(name), make_config(case), abstract_params(case)
    key = jax.random.key(1)
    scale = getattr(config, "scale", 1) or 1
    channels = 1 if case in ("glow_classes", "nice") else 3
    free = name in ("glow", "realnvp", "nice") or case == "ddpm"
    if free:
        scale = 1
    hr = jax.ShapeDtypeStruct((2, scale * side, scale * side, channels), jnp.float32)
    lr = jax.ShapeDtypeStruct((2, side, side, channels), jnp.float32)
    label = jnp.arange(2) if getattr(config, "classes", 0) else None
    options = {} if label is None else {"label": label}
    found = {}
    if free and name != "sr3":
        sample = functools.partial(family.sample, lr=None, key=key, shape=hr.shape, **options)
        found["sample"] = sample, params
        found["encode"] = functools.partial(family.encode, **options), params, hr
    elif case == "ddpm":
        found["sample"] = lambda p: family.sample(p, None, key, shape=hr.shape), params
    else:
        found["sample"] = lambda p, lr: family.sample(p, lr, key), params, lr
        if family.encode is not None:
            given = (hr,) if name == "irn" else (hr, lr)
            found["encode"] = lambda p, *images: family.encode(p, *images), params, *given
    batch = {"hr": hr} if free and name != "sr3" else {"hr": hr, "lr": lr}
    for loss, loss_options in losses.items():

        def gradient(params, batch, loss=loss, loss_options=loss_options):
            if label is not None:
                batch = {**batch, "label": label}
            state = family.init_state(config)
            function = family.losses[loss]
            return jax.value_and_grad(
                lambda p: function(p, state, batch, key, **loss_options), has_aux=True
            )(params)

        found[f"grad {loss}"] = gradient, params, batch
    if family.init_from_data is not None and losses:
        found["init_from_data"] = (
            lambda p, b: family.init_from_data(
                p, b if label is None else {**b, "label": label}, key
            ),
            params,
            batch,
        )
    return found


def programs(case: str) -> dict[str, str]:
    """Return {program: hash of its StableHLO}."""
    return {
        program: fingerprint(jax.jit(function).lower(*args).as_text())
        for program, (function, *args) in verbs(case).items()
    }


def fingerprint(text: str) -> str:
    """Return a hash of StableHLO text that does not see the names of functions."""
    names: dict[str, str] = {}
    text = re.sub(r"@\w+", lambda m: names.setdefault(m[0], f"@f{len(names)}"), text)
    text = re.sub(r"module @\w+", "module", text)
    return hashlib.sha256(text.encode()).hexdigest()[:16] + f" {len(text.splitlines())} lines"


def main(*cases: str) -> None:
    kept = json.loads(FILE.read_text()) if FILE.exists() and cases else {"cases": {}}
    kept["jax"] = jax.__version__
    for case in cases or CASES:
        kept["cases"][case] = {"tree": tree(case), "programs": programs(case)}
        count = sum(
            math.prod(json.loads(v[v.index("[") :])) for v in kept["cases"][case]["tree"].values()
        )
        print(case, count, "parameters", kept["cases"][case]["programs"], flush=True)
    FILE.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["print"]:
        print(json.dumps({case: programs(case) for case in CASES}))
    else:
        main(*sys.argv[1:])
