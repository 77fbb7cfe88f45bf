"""Tables that map official PyTorch tensors to places in a parameter tree.

A family's map is data: a list of rules.  The importer reads it; an exporter can read
the same table backwards.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from flowsr_jax.models.base import Params


@dataclasses.dataclass(frozen=True)
class Rule:
    """One official tensor (or K of them, stacked) and where it lives.

    Attributes:
      keys: official keys; more than one are stacked along a new first axis.
      path: place in the parameter tree.
      kind: "conv" (OIHW <-> HWIO), "matrix" (O,I,1,1 <-> I,O), "vector" (any shape
        with one long axis <-> [C]), "keep" (unchanged).
      part: for "conv": input-channel range (start, stop) of the official kernel.
    """

    keys: tuple[str, ...]
    path: tuple[str, ...]
    kind: str
    stacked: bool = False
    part: tuple[int, int | None] | None = None

    def read(self, weights: Mapping[str, np.ndarray]):
        """The array of the tree."""
        arrays = [self._convert(np.asarray(weights[k])) for k in self.keys]
        return jnp.asarray(np.stack(arrays) if self.stacked else arrays[0])

    def _convert(self, a):
        if self.kind == "conv":
            a = a if self.part is None else a[:, slice(*self.part)]
            return a.transpose(2, 3, 1, 0)
        if self.kind == "matrix":
            return a[:, :, 0, 0].T
        if self.kind == "vector":
            return a.reshape(-1)
        return a


def conv_rules(key, path, bias=True):
    rules = [Rule((f"{key}.weight",), (*path, "w"), "conv")]
    return [*rules, Rule((f"{key}.bias",), (*path, "b"), "vector")] if bias else rules


def assemble(rules: list[Rule], weights: Mapping[str, np.ndarray], config) -> Params:
    """Build Params from rules, checking that every key is there and every key is used.

    Raises:
      ValueError: missing or unknown official keys; the first few are listed.
    """
    wanted = {k for rule in rules for k in rule.keys}
    missing, unknown = sorted(wanted - set(weights)), sorted(set(weights) - wanted)
    if missing or unknown:
        parts = [
            f"{len(names)} {what} (first: {', '.join(names[:3])})"
            for what, names in (("missing", missing), ("unknown", unknown))
            if names
        ]
        raise ValueError(f"weights do not fit family {config.family!r}: {'; '.join(parts)}")
    tree: dict = {}
    for rule in rules:
        node = tree
        for name in rule.path[:-1]:
            node = node.setdefault(name, {})
        node[rule.path[-1]] = rule.read(weights)
    return Params(tree, config)
