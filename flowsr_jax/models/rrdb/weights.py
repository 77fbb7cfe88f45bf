"""Official RRDB state dicts, in the three naming schemes that are about.

"released": SRFlow's encoder (docs/papers/srflow.md section 5) and ESRGAN's
RRDBNet_arch.py; "esrgan_old": ESRGAN's first release (transer_RRDB_models.py translates
it); "basicsr": BasicSR's rrdbnet_arch.py.

SRFlow adds the output of the last block to the trunk's convolution, ESRGAN that of the
first convolution, and nothing in the keys tells the two apart.  Unless skip= is passed, one
evaluation of both decides (`settle_skip`); if it is not clear, the released scheme means
SRFlow's form, and the two others ESRGAN's.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flowsr_jax.config import ConfigError, choice
from flowsr_jax.math.resize import imresize
from flowsr_jax.models.base import Params
from flowsr_jax.models.importer import Importer, MisfitError, make_config
from flowsr_jax.models.importer import shape_of as shape
from flowsr_jax.models.rrdb.config import RRDBConfig
from flowsr_jax.models.rules import Rule, conv_rules
from flowsr_jax.nets.rrdb import RRDBEncoder

PROBE = 24  # pixels of a side of the LR image by which the skip is settled
CLEAR, MARGIN = 20.0, 3.0  # dB: of the better form, and its lead over the other

# Names of: first convolution, convolution c of dense block j of RRDB i, trunk convolution,
# upsampling convolution u of U (counted from 1), the two last convolutions.
SCHEMES = {
    "released": {
        "conv_first": "conv_first",
        "block": "RRDB_trunk.{i}.RDB{j}.conv{c}",
        "trunk_conv": "trunk_conv",
        "upconv": "upconv{u}",
        "hr_conv": "HRconv",
        "conv_last": "conv_last",
    },
    "esrgan_old": {
        "conv_first": "model.0",
        "block": "model.1.sub.{i}.RDB{j}.conv{c}.0",
        "trunk_conv": "model.1.sub.{nb}",
        "upconv": "model.{u3}",
        "hr_conv": "model.{hr}",
        "conv_last": "model.{last}",
    },
    "basicsr": {
        "conv_first": "conv_first",
        "block": "body.{i}.rdb{j}.conv{c}",
        "trunk_conv": "conv_body",
        "upconv": "conv_up{u}",
        "hr_conv": "conv_hr",
        "conv_last": "conv_last",
    },
}


def rrdb_rules(config: RRDBConfig, prefix: str = "RRDB.", scheme: str = "released") -> list[Rule]:
    """Return rules of the encoder; `prefix` is "" for an RRDB checkpoint of its own.

    Raises:
      ConfigError: an unknown scheme, or a config without an official form.
    """
    names = SCHEMES[choice("scheme", scheme, SCHEMES)]
    if config.head != "nearest_conv" or config.residual:
        raise ConfigError(
            f"head = {config.head!r}, residual = {config.residual} has no official form; it needs "
            "head = 'nearest_conv' and residual = False"
        )
    up = config.num_upconvs

    def conv(name: str, *path: Any, **numbers: Any) -> list[Rule]:
        # The old scheme counts the entries of one long sequence.
        key = names[name].format(nb=config.nb, hr=3 * up + 2, last=3 * up + 4, **numbers)
        return conv_rules(prefix + key, ("encoder", *path))

    rules = conv("conv_first", "conv_first")
    for j in (1, 2, 3):
        for c in range(1, 6):
            blocks = [conv("block", i=i, j=j, c=c) for i in range(config.nb)]
            rules += [
                dataclasses.replace(
                    same[0],
                    keys=tuple(rule.keys[0] for rule in same),
                    path=("encoder", "blocks", f"rdb{j}", f"conv{c}", same[0].path[-1]),
                    stacked=True,
                )
                for same in zip(*blocks, strict=True)
            ]
    rules += conv("trunk_conv", "trunk_conv")
    for u in range(1, up + 1):
        rules += conv("upconv", f"upconv{u}", u=u, u3=3 * u)
    return rules + conv("hr_conv", "hr_conv") + conv("conv_last", "conv_last")


def infer_rrdb(weights: Mapping[str, Any], prefix: str = "", **overrides: Any) -> RRDBConfig:
    """Return the encoder's hyper-parameters from keys and shapes; `overrides` win.

    Raises:
      MisfitError: keys or shapes that say nothing, or another architecture.
      ConfigError: an override that the config does not accept.
    """
    scheme = find_scheme(weights, prefix)
    names = {name: prefix + text for name, text in SCHEMES[scheme].items()}
    blocks = _numbers(weights, names["block"], "i")
    if scheme == "esrgan_old":  # one sequence: the first, the upsampling, and two more
        entries = _numbers(weights, f"{prefix}model.{{u}}", "u")
        up, last = len(entries) - 3, f"{prefix}model.{max(entries, default=0)}"
    else:
        up, last = len(_numbers(weights, names["upconv"], "u")), names["conv_last"]
    nf, channels = shape(weights, f"{names['conv_first']}.weight")[:2]
    block = names["block"].format(i=0, j=1, c=1)
    if gaps := set(range(max(blocks, default=0) + 1)) - blocks:
        raise MisfitError(f"RRDB {min(gaps)} is missing ({names['block']})")
    if channels > 4:
        raise MisfitError(
            f"its first convolution has {channels} input channels: the variants that rearrange "
            "pixels before it (BasicSR at x1 and x2) are not supported"
        )
    if up not in (1, 2, 3, 4):
        hint = "" if up else " (the restorer of IRN-Compression has none; it goes with IRN's file)"
        raise MisfitError(f"it has {up} upsampling convolutions; 1 to 4 are known{hint}")
    values = {
        "scale": 2**up,
        "nf": nf,
        "in_channels": channels,
        "out_channels": shape(weights, f"{last}.weight")[0],
        "gc": shape(weights, f"{block}.weight")[0],
        "nb": len(blocks),
    }
    if scheme != "released":
        values["skip"] = "first"
    return make_config(RRDBConfig, values, overrides)


def find_scheme(weights: Mapping[str, Any], prefix: str = "") -> str:
    """Return the naming scheme that these keys follow; "released" if none."""
    for scheme, names in SCHEMES.items():
        if f"{prefix}{names['block'].format(i=0, j=1, c=1)}.weight" in weights:
            return scheme
    return "released"


def recognise(weights: Mapping[str, Any]) -> bool:
    """Return whether these keys are an RRDB's, in any of the schemes."""
    first = SCHEMES[find_scheme(weights)]["conv_first"]
    return f"{first}.weight" in weights and (
        "trunk_conv.weight" in weights or find_scheme(weights) != "released"
    )


def _numbers(weights: Mapping[str, Any], text: str, letter: str) -> set[int]:
    """Return the numbers that stand for `letter` in keys of the form `text`.weight."""
    pattern = re.escape(text + ".weight").replace(rf"\{{{letter}\}}", r"(\d{1,4})")
    pattern = re.sub(r"\\\{\w+\\\}", r"\\d+", pattern)
    return {int(m.group(1)) for key in weights if (m := re.fullmatch(pattern, key))}


def settle_skip(params: Params, weights: Mapping[str, Any]) -> tuple[Params, tuple[str, ...]]:
    """Return the parameters with the trunk's skip by which the net keeps its LR image, and a line.

    Both forms enlarge one synthetic LR image; MATLAB-bicubic reduction of a trained net's
    output gives the LR image back, with the other skip it does not (41.4 dB against 12.3 dB
    for RealSR's 23 blocks).  Where neither is clear (an untrained net), the scheme's form stays.
    """
    if params.config.in_channels != params.config.out_channels:
        return params, ()
    y, x = np.mgrid[:PROBE, :PROBE] / PROBE
    frequencies = ((1, 0.5), (0.5, 2), (3, 1), (2, 2))
    waves = [np.sin(2 * np.pi * (f * x + g * y) + f) for f, g in frequencies]
    lr = jnp.asarray(0.5 + 0.15 * (np.stack(waves, -1) + waves[0][..., None]), jnp.float32)
    lr = lr[None, ..., : params.config.in_channels]
    quality = {}
    for skip in ("last", "first"):
        encoder = RRDBEncoder(dataclasses.replace(params.config, skip=skip))
        sr = jax.jit(encoder.apply)({"params": params.tree["encoder"]}, lr)
        again = imresize(jnp.clip(sr, 0, 1), 1 / params.config.scale)
        quality[skip] = float(-10 * jnp.log10(jnp.mean((again - lr) ** 2) + 1e-12))
    best, other = sorted(quality, key=quality.__getitem__, reverse=True)
    measured = f"LR-PSNR {quality[best]:.1f} dB, {quality[other]:.1f} dB with {other!r}"
    if not (quality[best] > CLEAR and quality[best] - quality[other] > MARGIN):
        return params, (
            f"the trunk's skip is not clear from the weights ({measured}): skip = "
            f"{params.config.skip!r} by the names of its keys; skip= overrides",
        )
    config = dataclasses.replace(params.config, skip=best)
    return Params(params.tree, config), (f"skip = {best!r} ({measured}; skip= overrides)",)


WEIGHTS = Importer(
    family="rrdb",
    infer=infer_rrdb,
    rules=lambda config, scheme="released": rrdb_rules(config, "", scheme),
    recognise=recognise,
    options=lambda weights: {"scheme": find_scheme(weights)},
    settle=settle_skip,
    settled=("skip",),
)
