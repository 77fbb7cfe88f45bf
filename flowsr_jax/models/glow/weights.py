"""Names of the released TensorFlow variables and where they live in the parameters.

`flowsr_jax.from_torch("model_best_loss.ckpt", n_bits=5, size=256)` where TensorFlow is
installed; elsewhere the same with an .npz of the variables (flowsr_jax/io/tf_checkpoint.py).
docs/papers/glow.md section 5.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flowsr_jax.config import ConfigError
from flowsr_jax.models.glow.config import GlowConfig
from flowsr_jax.models.importer import Importer, MisfitError, make_config, shape_of, show
from flowsr_jax.models.rules import Rule
from flowsr_jax.types import Shape

_VECTOR, _ROW = (1, 1, 1, -1), (1, -1)
_KINDS = {"conv1x1": "invconv/W", "conv1x1_plu": "invconv/P", "shuffle": "shuffle/indices"}


def tf_rules(config: GlowConfig) -> list[Rule]:
    """Return one rule per variable (K steps of a level together).

    Raises:
      ConfigError: a model without `border`, or with a network of its own: no released form.
    """
    if not config.border:
        raise ConfigError("a Glow with border = False has no released form")
    if config.network is not None:
        raise ConfigError(f"a Glow with network = {config.network.name!r} has no released form")
    rules: list[Rule] = []
    for level in range(config.levels):
        base = ("flow", "multiscale", f"level{level + 1}")
        steps = [f"model/{level}/{k}" for k in range(config.steps)]
        rules += _step_rules(steps, (*base, "flow", "steps"), config.permutation)
        if level < config.levels - 1:
            rules += _zeros_rules([f"model/pool{level}/conv"], (*base, "split", "prior"))
    if config.learn_top:
        rules += _zeros_rules(["model/prior/p"], ("prior", "p"))
    if config.classes:
        rules += _zeros_rules(["model/prior/y_emb"], ("prior", "y_emb"), b=_ROW)
    if config.has_classifier:
        rules += _zeros_rules(["model/classifier"], ("classifier",), b=_ROW)
    return rules


def _step_rules(steps: Sequence[str], path: tuple[str, ...], permutation: str) -> list[Rule]:
    def rule(name: str, *where: Any, kind: str = "keep", shape: Shape | None = None) -> Rule:
        return Rule(tuple(f"{s}/{name}" for s in steps), (*path, *where), kind, True, shape=shape)

    def actnorm(name: str, *where: Any) -> list[Rule]:
        return [
            rule(f"{name}actnorm_center/b", *where, "bias", kind="vector", shape=_VECTOR),
            rule(f"{name}actnorm_scale/logs", *where, "logs", kind="vector", shape=_VECTOR),
        ]

    rules, net = actnorm("", "actnorm"), ("coupling", "net")
    if permutation == "shuffle":
        rules.append(rule("shuffle/indices", "permutation", "indices"))
    elif permutation == "conv1x1":  # z @ W there, W @ z here
        rules.append(rule("invconv/W", "permutation", "weight", kind="linear"))
    elif permutation == "conv1x1_plu":
        names = {"P": "p", "L": "l", "U": "u", "sign_S": "sign_s", "log_S": "log_s"}
        rules += [rule(f"invconv/{tf}", "permutation", ours) for tf, ours in names.items()]
    for i in (1, 2):
        rules.append(rule(f"f1/l_{i}/W", *net, f"w{i}"))
        rules += actnorm(f"f1/l_{i}/", *net, f"actnorm{i}")
    rules += _zeros_rules([f"{s}/f1/l_last" for s in steps], (*path, *net, "out"), stacked=True)
    return rules


def _zeros_rules(
    scopes: Sequence[str],
    path: tuple[str, ...],
    b: tuple[int, ...] = _VECTOR,
    stacked: bool = False,
) -> list[Rule]:
    """Return rules of conv2d_zeros (or linear_zeros, with b a row)."""

    def rule(name: str, where: str, kind: str, shape: Shape | None = None) -> Rule:
        keys = tuple(f"{scope}/{name}" for scope in scopes)
        return Rule(keys, (*path, where), kind, stacked, shape=shape)

    return [
        rule("W", "w", "keep"),
        rule("b", "b", "vector", b),
        rule("logs", "logs", "vector", _ROW),
    ]


def is_glow(weights: Mapping[str, Any]) -> bool:
    """Return whether names belong to a released checkpoint."""
    return "model/0/0/actnorm_center/b" in weights and "model/0/0/f1/l_1/W" in weights


def infer_glow(weights: Mapping[str, Any], **overrides: Any) -> GlowConfig:
    """Return the hyper-parameters that names and shapes determine.

    Not determined: n_bits (taken for 8), class_weight (0.01 with a classifier), and the
    size of drawn images (the one whose coarsest latent has a side of 4).
    """
    channels = shape_of(weights, "model/0/0/actnorm_center/b")[-1]
    places = [re.match(r"model/(\d{1,4})/(\d{1,4})/", key) for key in weights]
    levels, steps = (1 + max(int(m[i]) for m in places if m) for i in (1, 2))
    width = shape_of(weights, "model/0/0/f1/l_1/W")[-1]
    outputs = shape_of(weights, "model/0/0/f1/l_last/W")[-1]
    kinds = [k for k, name in _KINDS.items() if f"model/0/0/{name}" in weights]
    embedding, classifier = "model/prior/y_emb/W", "model/classifier/W" in weights
    for key, value in weights.items():
        if key.endswith("/shuffle/indices"):
            _check_permutation(key, np.asarray(value))
    values = {
        "levels": levels,
        "steps": steps,
        "hidden": width,
        "coupling": "affine" if outputs == channels else "additive",
        "permutation": kinds[0] if kinds else "reverse",
        "learn_top": "model/prior/p/W" in weights,
        "classes": shape_of(weights, embedding, 2)[0] if embedding in weights else 0,
        "class_weight": 0.0 if embedding in weights and not classifier else 0.01,
        "channels": channels // 4,
        "size": 4 * 2**levels,
    }
    return make_config(GlowConfig, values, overrides)


def _check_permutation(name: str, found: np.ndarray) -> None:
    whole = np.issubdtype(found.dtype, np.integer)
    if not whole or not np.array_equal(np.sort(found, axis=None), np.arange(found.size)):
        raise MisfitError(f"{show(name)} must hold each of 0 to {found.size - 1} once, as integers")


# Variables saved as .npz are official weights like others.
WEIGHTS = Importer(
    family="glow",
    infer=infer_glow,
    rules=tf_rules,
    recognise=is_glow,
    # The optimiser's slots, averages that the released training does not use, and inverses.
    ignore=(r"Variable(_\d+)?", r".*/ExponentialMovingAverage", r".*/shuffle/indices_inverse"),
)
