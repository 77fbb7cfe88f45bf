"""Official RRDB state dicts; key families in ../shared/spec/srflow.md section 5."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

import numpy as np

from flowsr_jax.models.base import Params
from flowsr_jax.models.rrdb_config import RRDBConfig
from flowsr_jax.models.torch_rules import Rule, assemble, conv_rules


def rrdb_rules(config: RRDBConfig, prefix: str = "RRDB.") -> list[Rule]:
    """Rules of the encoder; `prefix` is "" for an RRDB checkpoint of its own."""
    rules = conv_rules(f"{prefix}conv_first", ("encoder", "conv_first"))
    for i in range(config.nb):
        for j in (1, 2, 3):
            for c in range(1, 6):
                rules += conv_rules(
                    f"{prefix}RRDB_trunk.{i}.RDB{j}.conv{c}",
                    ("encoder", "blocks", str(i), f"rdb{j}", f"conv{c}"),
                )
    rules += conv_rules(f"{prefix}trunk_conv", ("encoder", "trunk_conv"))
    for i in range(1, config.num_upconvs + 1):
        rules += conv_rules(f"{prefix}upconv{i}", ("encoder", f"upconv{i}"))
    rules += conv_rules(f"{prefix}HRconv", ("encoder", "hr_conv"))
    rules += conv_rules(f"{prefix}conv_last", ("encoder", "conv_last"))
    return rules


def infer_rrdb(weights: Mapping[str, np.ndarray], prefix: str) -> RRDBConfig:
    """Encoder hyper-parameters from keys and shapes."""
    first = weights[f"{prefix}conv_first.weight"]
    blocks = [
        int(m.group(1))
        for k in weights
        if (m := re.match(rf"{re.escape(prefix)}RRDB_trunk\.(\d+)\.", k))
    ]
    upconvs = sum(1 for k in weights if re.fullmatch(rf"{re.escape(prefix)}upconv\d+\.weight", k))
    return RRDBConfig(
        scale=2**upconvs,
        nf=first.shape[0],
        in_channels=first.shape[1],
        out_channels=weights[f"{prefix}conv_last.weight"].shape[0],
        gc=weights[f"{prefix}RRDB_trunk.0.RDB1.conv1.weight"].shape[0],
        nb=max(blocks) + 1,
    )


def from_torch(weights: Mapping[str, np.ndarray], **overrides) -> Params:
    """RRDB parameters of an official state dict {key: array}."""
    config = dataclasses.replace(infer_rrdb(weights, ""), **overrides)
    return assemble(rrdb_rules(config, ""), weights, config)
