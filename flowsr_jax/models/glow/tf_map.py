"""Names of the released TensorFlow variables and where they live in the parameters.

../shared/spec/glow.md section 9; the lists are in ../shared/spec/keys.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from flowsr_jax.models.base import Params
from flowsr_jax.models.glow.model import GlowConfig
from flowsr_jax.models.torch_rules import Rule, assemble

_VECTOR, _ROW = (1, 1, 1, -1), (1, -1)


def tf_rules(config: GlowConfig) -> list[Rule]:
    """One rule per variable (K steps of a level together); only for `border` models."""
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


def _step_rules(steps, path, permutation):
    def rule(name, *where, kind="keep", shape=None):
        return Rule(tuple(f"{s}/{name}" for s in steps), (*path, *where), kind, True, shape=shape)

    def actnorm(name, *where):
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


def _zeros_rules(scopes, path, b=_VECTOR, stacked=False):
    """Rules of conv2d_zeros (or linear_zeros, with b a row)."""

    def rule(name, where, kind, shape=None):
        keys = tuple(f"{scope}/{name}" for scope in scopes)
        return Rule(keys, (*path, where), kind, stacked, shape=shape)

    return [
        rule("W", "w", "keep"),
        rule("b", "b", "vector", b),
        rule("logs", "logs", "vector", _ROW),
    ]


def from_tf(config: GlowConfig, variables: Mapping[str, np.ndarray]) -> Params:
    """Parameters from the model variables of a released checkpoint, {name: array}.

    The stored inverses of the shuffles are left out.

    Raises:
      ValueError: variables that are missing, unknown or of another shape.
    """
    weights = {
        name: np.asarray(value, np.float32)
        for name, value in variables.items()
        if not name.endswith("/shuffle/indices_inverse")
    }
    return assemble(tf_rules(config), weights, config)
