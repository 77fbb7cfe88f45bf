"""Official SRFlow state dicts; key families in ../shared/spec/srflow.md section 5."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from flowsr_jax.config import ConfigError
from flowsr_jax.models.base import Params
from flowsr_jax.models.rrdb_torch import infer_rrdb, rrdb_rules
from flowsr_jax.models.srflow.model import SRFlowConfig
from flowsr_jax.models.torch_rules import Rule, assemble, conv_rules

OFFICIAL_BLOCKS = {4: (1, 8, 15, 22), 8: (1, 3, 5, 7)}


def _net_rules(keys, path, split_at) -> list[Rule]:
    """Rules of K stacked coupling nets; the first `split_at` input channels are z1's."""

    def rule(suffix, leaf, kind, part=None):
        return Rule(tuple(f"{k}.{suffix}" for k in keys), (*path, *leaf), kind, True, part)

    rules = []
    if split_at:
        rules.append(rule("0.weight", ("w_x",), "conv", (0, split_at)))
    rules.append(rule("0.weight", ("w_cond",), "conv", (split_at, None)))
    for index, name in (("0", "actnorm1"), ("2", "actnorm2")):
        for leaf in ("bias", "logs"):
            rules.append(rule(f"{index}.actnorm.{leaf}", (name, leaf), "vector"))
    rules.append(rule("2.weight", ("w2",), "matrix"))
    rules.append(rule("4.weight", ("out", "w"), "conv"))
    rules.append(rule("4.bias", ("out", "b"), "vector"))
    rules.append(rule("4.logs", ("out", "logs"), "vector"))
    return rules


def srflow_rules(config: SRFlowConfig) -> list[Rule]:
    """All rules of an SRFlow checkpoint, encoder included."""
    rules = rrdb_rules(config.encoder)
    root = "flowUpsamplerNet.layers"
    index, channels = 0, 3
    for level in range(1, config.levels + 1):
        channels *= 4
        index += 1  # the squeeze takes an index but owns no keys
        base = ("flow", "multiscale", f"level{level}")
        stages = (("transition", config.transition_steps), ("steps", config.steps[level - 1]))
        for stage, count in stages:
            if not count:
                continue
            keys = [f"{root}.{index + k}" for k in range(count)]
            path = (*base, "flow", stage)
            for leaf in ("bias", "logs"):
                names = tuple(f"{k}.actnorm.{leaf}" for k in keys)
                rules.append(Rule(names, (*path, "actnorm", leaf), "vector", True))
            names = tuple(f"{k}.invconv.weight" for k in keys)
            rules.append(Rule(names, (*path, "conv1x1", "weight"), "keep", True))
            if stage == "steps":
                features = [f"{k}.affine.fFeatures" for k in keys]
                rules += _net_rules(features, (*path, "injector", "net"), 0)
                affine = [f"{k}.affine.fAffine" for k in keys]
                rules += _net_rules(affine, (*path, "coupling", "net"), channels // 2)
            index += count
        if level in config.split_levels:
            for suffix, leaf, kind in (
                ("weight", "w", "conv"),
                ("bias", "b", "vector"),
                ("logs", "logs", "vector"),
            ):
                key = f"{root}.{index}.conv.{suffix}"
                rules.append(Rule((key,), (*base, "split", "prior", leaf), kind))
            index += 1
            channels //= 2
    if config.official_extras:
        rules += conv_rules("flowUpsamplerNet.f.0", ("unused", "f"))
    return rules


def infer_srflow(weights: Mapping[str, np.ndarray], **overrides) -> SRFlowConfig:
    """SRFlow hyper-parameters from keys and shapes; `overrides` win."""
    encoder = infer_rrdb(weights, "RRDB.")
    layers: dict[int, set[str]] = {}
    for key in weights:
        if m := re.match(r"flowUpsamplerNet\.layers\.(\d+)\.(\w+)\.", key):
            layers.setdefault(int(m.group(1)), set()).add(m.group(2))
    steps, transitions, splits, previous = [], [], [], -1
    for index in sorted(layers):
        if index > previous + 1:  # a missing index is a squeeze: a new level
            steps.append(0)
            transitions.append(0)
        previous = index
        if "affine" in layers[index]:
            steps[-1] += 1
        elif "conv" in layers[index]:
            splits.append(len(steps))
        else:
            transitions[-1] += 1
    if len(set(transitions)) > 1:
        raise ConfigError(f"levels have different numbers of transition steps: {transitions}")
    flow_step = min(i for i in layers if "affine" in layers[i])
    net = weights[f"flowUpsamplerNet.layers.{flow_step}.affine.fFeatures.0.weight"]
    count = net.shape[1] // encoder.nf - 1
    blocks = overrides.pop("stacked_blocks", None)
    if blocks is None:
        blocks = OFFICIAL_BLOCKS.get(encoder.scale, ())
    if len(blocks) != count or max(blocks, default=0) >= encoder.nb:
        raise ConfigError(
            f"the weights condition the flow on {count} stacked RRDB blocks of {encoder.nb}; "
            f"stacked_blocks = {tuple(blocks)} does not fit: pass stacked_blocks="
        )
    config = {
        "encoder": encoder,
        "steps": tuple(steps),
        "transition_steps": transitions[0],
        "hidden": net.shape[0],
        "stacked_blocks": tuple(int(b) for b in blocks),
        "official_extras": "flowUpsamplerNet.f.0.weight" in weights,
    }
    config.update(overrides)
    result = SRFlowConfig(**config)
    if result.split_levels != tuple(splits):
        config["splits"] = tuple(splits)
        result = SRFlowConfig(**config)
    return result


def from_torch(weights: Mapping[str, np.ndarray], **overrides) -> Params:
    """SRFlow parameters of an official state dict {key: array}."""
    config = infer_srflow(weights, **overrides)
    return assemble(srflow_rules(config), weights, config)
