"""Official SRFlow state dicts; key families in docs/papers/srflow.md section 5."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flowsr_jax.config import ConfigError
from flowsr_jax.models.importer import Importer, MisfitError, make_config, shape_of
from flowsr_jax.models.rrdb.weights import infer_rrdb, rrdb_rules
from flowsr_jax.models.rules import Rule, conv_rules
from flowsr_jax.models.srflow.config import SRFlowConfig
from flowsr_jax.types import Shape

OFFICIAL_BLOCKS = {4: (1, 8, 15, 22), 8: (1, 3, 5, 7)}


ACTNORM = (1, -1, 1, 1)
LOGS = (-1, 1, 1)  # of a zero-initialised convolution


def _net_rules(keys: Sequence[str], path: tuple[str, ...], split_at: Any) -> list[Rule]:
    """Return rules of K stacked coupling nets; the first `split_at` input channels are z1's."""

    def rule(
        suffix: str, leaf: Any, kind: str, part: Any = None, shape: Shape | None = None
    ) -> Rule:
        return Rule(tuple(f"{k}.{suffix}" for k in keys), (*path, *leaf), kind, True, part, shape)

    rules = []
    if split_at:
        rules.append(rule("0.weight", ("w_x",), "conv", (0, split_at)))
    rules.append(rule("0.weight", ("w_cond",), "conv", (split_at, None)))
    for index, name in (("0", "actnorm1"), ("2", "actnorm2")):
        if index == "2":
            rules.append(rule("2.weight", ("w2",), "matrix"))
        for leaf in ("bias", "logs"):
            rules.append(rule(f"{index}.actnorm.{leaf}", (name, leaf), "vector", shape=ACTNORM))
    rules.append(rule("4.weight", ("out", "w"), "conv"))
    rules.append(rule("4.bias", ("out", "b"), "vector"))
    rules.append(rule("4.logs", ("out", "logs"), "vector", shape=LOGS))
    return rules


def srflow_rules(config: SRFlowConfig) -> list[Rule]:
    """Return all rules of an SRFlow checkpoint, encoder included.

    Raises:
      ConfigError: a config with options of our own, which official files cannot hold.
    """
    ours = {
        "scale_form": config.scale_form != "sigmoid2",
        "shift_by_encoder": config.shift_by_encoder,
        "condition_on_estimate": config.condition_on_estimate,
        "injector": not config.injector,
        "network": config.network is not None,
        "conditional_prior": config.conditional_prior,
        "told_noise": config.told_noise > 0,
    }
    if any(ours.values()):
        names = ", ".join(name for name, used in ours.items() if used)
        raise ConfigError(f"this SRFlow has no official form, because of {names}")
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
                where = (*path, "actnorm", leaf)
                rules.append(Rule(names, where, "vector", True, shape=ACTNORM))
            names = tuple(f"{k}.invconv.weight" for k in keys)
            rules.append(Rule(names, (*path, "conv1x1", "weight"), "keep", True))
            if stage == "steps":
                affine = [f"{k}.affine.fAffine" for k in keys]
                rules += _net_rules(affine, (*path, "coupling", "net"), channels // 2)
                features = [f"{k}.affine.fFeatures" for k in keys]
                rules += _net_rules(features, (*path, "injector", "net"), 0)
            index += count
        if level in config.split_levels:
            key, path = f"{root}.{index}.conv", (*base, "split", "prior")
            rules += conv_rules(key, path)
            rules.append(Rule((f"{key}.logs",), (*path, "logs"), "vector", shape=LOGS))
            index += 1
            channels //= 2
    if config.official_extras:
        rules += conv_rules("flowUpsamplerNet.f.0", ("unused", "f"))
    return rules


def infer_srflow(weights: Mapping[str, Any], **overrides: Any) -> SRFlowConfig:
    """Return SRFlow's hyper-parameters from keys and shapes; `overrides` win.

    Raises:
      MisfitError: keys or shapes that say nothing, or another architecture.
      ConfigError: stacked blocks that do not fit, or an override that is not accepted.
    """
    encoder = infer_rrdb(weights, "RRDB.")
    layers: dict[int, set[str]] = {}
    for key in weights:
        if m := re.match(r"flowUpsamplerNet\.layers\.(\d{1,4})\.(\w+)\.", key):
            layers.setdefault(int(m.group(1)), set()).add(m.group(2))
    steps, transitions, splits, previous = [], [], [], -1
    for index in sorted(layers):
        if index > previous + 1:  # a missing index is a squeeze: a new level
            steps.append(0)
            transitions.append(0)
        previous = index
        if not steps:
            raise MisfitError("flowUpsamplerNet.layers.0 has weights; a squeeze belongs there")
        if "affine" in layers[index]:
            steps[-1] += 1
        elif "conv" in layers[index]:
            splits.append(len(steps))
        else:
            transitions[-1] += 1
    if len(set(transitions)) > 1:
        raise MisfitError(f"levels have different numbers of transition steps: {transitions}")
    if not sum(steps):
        raise MisfitError("no flow step is there (flowUpsamplerNet.layers.*.affine)")
    flow_step = min(i for i in layers if "affine" in layers[i])
    net = f"flowUpsamplerNet.layers.{flow_step}.affine.fFeatures.0.weight"
    hidden, width = shape_of(weights, net)[:2]
    count = width // encoder.nf - 1
    blocks = overrides.get("stacked_blocks")
    if blocks is None:
        blocks = OFFICIAL_BLOCKS.get(encoder.scale, ())
    blocks = (blocks,) if isinstance(blocks, int) else tuple(blocks)
    fits = len(blocks) == count and all(type(b) is int and 0 <= b < encoder.nb for b in blocks)
    if not fits:
        raise ConfigError(
            f"the weights condition the flow on {count} stacked RRDB blocks of {encoder.nb}; "
            f"stacked_blocks = {blocks} does not fit: pass stacked_blocks="
        )
    values = {
        "encoder": encoder,
        "steps": tuple(steps),
        "transition_steps": transitions[0],
        "hidden": hidden,
        "official_extras": "flowUpsamplerNet.f.0.weight" in weights,
    }
    overrides = {**overrides, "stacked_blocks": blocks}
    config = make_config(SRFlowConfig, values, overrides)
    if config.split_levels != tuple(splits):
        config = make_config(SRFlowConfig, {**values, "splits": tuple(splits)}, overrides)
    return config


def _constants(config: SRFlowConfig) -> dict[str, np.ndarray]:
    """Return the unused convolution that the released code's strict loading asks for."""
    if config.official_extras:
        return {}  # the parameters hold it
    width = 64 * (1 + len(config.stacked_blocks))
    out = 96 if config.split_levels else 384
    return {
        "flowUpsamplerNet.f.0.weight": np.zeros((out, width, 3, 3), np.float32),
        "flowUpsamplerNet.f.0.bias": np.zeros(out, np.float32),
    }


WEIGHTS = Importer(
    family="srflow",
    infer=infer_srflow,
    rules=srflow_rules,
    recognise=lambda weights: "RRDB.conv_first.weight" in weights,
    constants=_constants,
)
