"""Official IRN state dicts; their keys and sizes are in docs/papers/irn.md section 2."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from flowsr_jax.config import ConfigError, choice
from flowsr_jax.models.importer import Importer, MisfitError, assemble, make_config, shape_of
from flowsr_jax.models.irn.compression import RestorerConfig
from flowsr_jax.models.irn.config import IRNConfig
from flowsr_jax.models.irn.discriminator import DiscriminatorConfig, norm_names
from flowsr_jax.models.rules import Rule, conv_rules
from flowsr_jax.nets.vgg import layers
from flowsr_jax.types import PyTree

_HAAR = np.array(
    [[[1, 1], [1, 1]], [[1, -1], [1, -1]], [[1, 1], [-1, -1]], [[1, -1], [-1, 1]]], np.float32
)


def operations(config: IRNConfig) -> list[tuple[str, int, int]]:
    """Return (part of the flow, first official index, number of official entries), in order."""
    levels = config.scale.bit_length() - 1 if config.form.startswith("haar") else 1
    found, index = [], 0

    def add(name: str, count: int) -> None:
        nonlocal index
        found.append((name, index, count))
        index += count

    for level in range(levels):
        add(f"down{level + 1}", 1)
        if config.form == "haar":
            add(f"blocks{level + 1}", config.stages[level])
    if config.form != "haar":
        add("blocks1", config.stages[0])
    return found


def irn_rules(config: IRNConfig) -> list[Rule]:
    """Return rules of the generator, and of the restorer where there is one.

    Raises:
      ConfigError: a network of its own, which has no official form.
    """
    if config.network is not None:
        raise ConfigError(f"an IRN with network = {config.network.name!r} has no official form")
    rules = []
    for name, index, count in operations(config):
        if name.startswith("down"):
            if not config.form.startswith("haar"):
                key = f"operations.{index}.conv_weights"
                rules.append(Rule((key,), ("generator", name, "weight"), "keep"))
            continue
        for net in "FGH":
            for c in range(1, 6):
                for suffix, leaf, kind in (("weight", "w", "conv"), ("bias", "b", "vector")):
                    keys = tuple(
                        f"operations.{index + k}.{net}.conv{c}.{suffix}" for k in range(count)
                    )
                    path = ("generator", name, net, f"conv{c}", leaf)
                    rules.append(Rule(keys, path, kind, stacked=True))
    return rules if config.restorer is None else rules + restorer_rules(config.restorer)


def constants(config: IRNConfig) -> dict[str, np.ndarray]:
    """Return official tensors that are no parameters: the Haar filters of each level."""
    found, channels = {}, 3
    if config.form.startswith("haar"):
        for name, index, _ in operations(config):
            if name.startswith("down"):
                filters = np.tile(_HAAR, (channels, 1, 1))[:, None]
                found[f"operations.{index}.haar_weights"] = filters
                channels *= 4
    return found


def restorer_rules(config: RestorerConfig) -> list[Rule]:
    """Return rules of the restoration net of IRN-Compression (a file of its own)."""
    rules = conv_rules("conv_first", ("restorer", "conv_first"))
    for i in range(config.nb):
        for j in (1, 2, 3):
            for c in range(1, 6):
                rules += conv_rules(
                    f"RRDB_trunk.{i}.RDB{j}.conv{c}",
                    ("restorer", "blocks", str(i), f"rdb{j}", f"conv{c}"),
                )
    rules += conv_rules("trunk_conv", ("restorer", "trunk_conv"))
    return rules + conv_rules("conv_last", ("restorer", "conv_last"))


def discriminator_rules(config: DiscriminatorConfig) -> list[Rule]:
    """Return rules of the discriminator: groups "discriminator" and "statistics"."""
    rules = []
    for i in range(len(config.widths)):
        for j in (0, 1):
            name = f"conv{i}_{j}"
            rules += conv_rules(name, ("discriminator", name), bias=i == j == 0)
    for name in norm_names(config):
        for suffix, group, leaf in (
            ("weight", "discriminator", "scale"),
            ("bias", "discriminator", "bias"),
            ("running_mean", "statistics", "mean"),
            ("running_var", "statistics", "var"),
        ):
            rules.append(Rule((f"{name}.{suffix}",), (group, name, leaf), "vector"))
    for name in ("linear1", "linear2"):
        rules.append(Rule((f"{name}.weight",), ("discriminator", name, "w"), "keep"))
        rules.append(Rule((f"{name}.bias",), ("discriminator", name, "b"), "vector"))
    return rules


def infer_irn(
    weights: Mapping[str, Any], down_first: bool | None = None, **overrides: Any
) -> IRNConfig:
    """Return IRN's hyper-parameters from keys and shapes; `overrides` win.

    The restoration net of IRN-Compression is a file of its own: hand in both in one
    mapping, `{**generator, **restorer}`; their keys do not clash.

    Args:
      weights: the official tensors.
      down_first: the option of that name: all down-samplings come before the blocks.  The
        keys tell it (with one down-sampling it makes no difference), so None is enough.
      **overrides: fields of IRNConfig.

    Raises:
      MisfitError: keys or shapes that say nothing, or another transform than Haar's.
      ConfigError: an override that is not accepted.
    """
    kinds: dict[int, str] = {}
    for key in weights:
        if m := re.match(r"operations\.(\d{1,4})\.(\w+)", key):
            kinds[int(m.group(1))] = m.group(2)
    downs = [i for i in sorted(kinds) if kinds[i] in ("haar_weights", "conv_weights")]
    first = next((i for i in sorted(kinds) if i not in downs), None)
    if sorted(kinds) != list(range(len(kinds))) or first is None or downs[:1] != [0]:
        raise MisfitError(
            "operations.0 must be a down-sampling, followed by blocks without gaps; found "
            f"operations {sorted(kinds)[:20]}"
        )
    choice("down_first", down_first, (None, False, True))
    if down_first is not None and len(downs) > 1 and down_first != (first == len(downs)):
        raise ConfigError(
            f"down_first = {down_first} does not fit: down-samplings are operations {downs}, and "
            f"the first block is operations.{first}"
        )
    ends = [*downs[1:], len(kinds)]
    values: dict[str, Any] = {
        "scale": 2 ** len(downs),
        "blocks": tuple(b - a - 1 for a, b in zip(downs, ends, strict=True)),
        "growth": shape_of(weights, f"operations.{first}.F.conv1.weight")[0],
    }
    if kinds[0] == "conv_weights":
        size = shape_of(weights, "operations.0.conv_weights", rank=2)[0]
        values |= {"scale": 1} if size == 3 else {"scale": math.isqrt(size), "down": "learned"}
    elif len(downs) > 1 and first == len(downs):
        values |= {"down": "haar_first", "blocks": values["blocks"][-1:]}
    if "conv_first.weight" in weights:
        trunk = [int(m.group(1)) for k in weights if (m := re.match(r"RRDB_trunk\.(\d{1,4})\.", k))]
        values["restorer"] = RestorerConfig(
            nf=shape_of(weights, "conv_first.weight")[0],
            gc=shape_of(weights, "RRDB_trunk.0.RDB1.conv1.weight")[0],
            nb=max(trunk) + 1,
        )
    try:
        config = make_config(IRNConfig, values, {})
    except ConfigError as error:
        raise MisfitError(str(error)) from None
    for key, value in constants(config).items():
        if key in weights and not np.array_equal(np.asarray(weights[key], np.float32), value):
            raise MisfitError(f"{key} holds no Haar filters")
    return make_config(IRNConfig, values, overrides)


def discriminator_from_torch(
    weights: Mapping[str, Any], size: int | None = None
) -> tuple[PyTree, PyTree]:
    """Return (parameters, running statistics) of an official discriminator_vgg_128 state dict.

    Args:
      weights: {key: array}; num_batches_tracked is accepted and not used.
      size: side of the images it judges; None: 32 times the side of its last features.

    Raises:
      ValueError: missing, unknown or mis-shaped tensors.
    """
    nf = shape_of(weights, "conv0_0.weight")[0]
    side = math.isqrt(shape_of(weights, "linear1.weight", rank=2)[1] // (8 * nf))
    judge = DiscriminatorConfig(nf=nf, size=32 * side if size is None else size)
    rest = {k: v for k, v in weights.items() if not k.endswith(".num_batches_tracked")}
    tree = assemble(discriminator_rules(judge), rest, IRNConfig(discriminator=judge)).tree
    return tree["discriminator"], tree["statistics"]


def vgg_from_torch(weights: Mapping[str, Any]) -> PyTree:
    """Return parameters of `nets.vgg.VGG19` from torchvision's VGG19 (or its released copy).

    Raises:
      ValueError: missing or mis-shaped tensors.
    """
    rules = []
    for index, *_ in layers():
        rules += conv_rules(f"features.{index}", ("features", f"conv{index}"))
    wanted = {k for rule in rules for k in rule.keys}
    found = {k: v for k, v in weights.items() if k in wanted}
    return assemble(rules, found, IRNConfig(features=True)).tree["features"]


WEIGHTS = Importer(
    family="irn",
    infer=infer_irn,
    rules=irn_rules,
    recognise=lambda weights: any(
        re.match(r"operations\.\d+\.(F\.conv1\.weight|haar_weights)", k) for k in weights
    ),
    constants=constants,
    groups={"features": vgg_from_torch},
)
