"""Official tensors and their places in the parameter tree: one `Rule` each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from flowsr_jax.types import AnyArray, Array


@dataclasses.dataclass(frozen=True)
class Rule:
    """One official tensor (or K of them, stacked) and where it lives.

    Attributes:
      keys: official keys; more than one are stacked along a new first axis.
      path: place in the parameter tree.
      kind: "conv" (OIHW <-> HWIO), "matrix" (O,I,1,1 <-> I,O), "linear" (O,I <-> I,O),
        "vector" (any shape with one long axis <-> [C]), "keep" (unchanged).
      part: for "conv": input-channel range (start, stop) of the official kernel.
      shape: for "vector": the official shape, -1 for the long axis, e.g. (1, -1, 1, 1).
        None reads any shape and writes [C].
    """

    keys: tuple[str, ...]
    path: tuple[str, ...]
    kind: str
    stacked: bool = False
    part: tuple[int, int | None] | None = None
    shape: tuple[int, ...] | None = None

    def read(self, weights: Mapping[str, np.ndarray]) -> Array:
        """Return the array of the tree; floating numbers become float32."""
        arrays = [self._convert(_float32(weights[k])) for k in self.keys]
        return jnp.asarray(np.stack(arrays) if self.stacked else arrays[0])

    def write(self, leaf: AnyArray) -> dict[str, np.ndarray]:
        """Return {official key: array} of a leaf: `read` (of its part of the key) inverted."""
        leaf = np.asarray(leaf)
        leaves = leaf if self.stacked else [leaf]
        return {k: self._official(a) for k, a in zip(self.keys, leaves, strict=True)}

    def _convert(self, a: np.ndarray) -> np.ndarray:
        if self.kind == "conv":
            a = a if self.part is None else a[:, slice(*self.part)]
            return a.transpose(2, 3, 1, 0)
        if self.kind == "matrix":
            return a[:, :, 0, 0].T
        if self.kind == "linear":
            return a.T
        if self.kind == "vector":
            return a.reshape(-1)
        return a

    def _official(self, a: np.ndarray) -> np.ndarray:
        if self.kind == "conv":
            return a.transpose(3, 2, 0, 1)
        if self.kind == "matrix":
            return a.T[:, :, None, None]
        if self.kind == "linear":
            return a.T
        if self.kind == "vector" and self.shape is not None:
            return a.reshape(self.shape)
        return a


def conv_rules(key: str, path: tuple[str, ...], bias: bool = True) -> list[Rule]:
    """Return rules of a convolution `key`.weight, `key`.bias at `path` ("w", "b")."""
    rules = [Rule((f"{key}.weight",), (*path, "w"), "conv")]
    return [*rules, Rule((f"{key}.bias",), (*path, "b"), "vector")] if bias else rules


def module_order(keys: Iterable[str]) -> list[str]:
    """Return keys in the order of a module tree: a module's together, numbers counting up."""
    tree: dict = {}
    for key in keys:
        node = tree
        for part in key.split("."):
            node = node.setdefault(part, {})
        node[""] = key
    return list(_keys_of(tree))


def _keys_of(tree: dict) -> Iterator[str]:
    counted = all(name.isdigit() for name in tree)
    for name in sorted(tree, key=int) if counted else tree:
        yield from [tree[name]] if name == "" else _keys_of(tree[name])


def _float32(a: np.ndarray) -> np.ndarray:
    a = np.asarray(a)
    return a.astype(np.float32) if jnp.issubdtype(a.dtype, jnp.floating) else a


def flat(tree: Mapping, path: tuple = ()) -> dict[tuple, Any]:
    """Return {path: leaf} of nested dicts."""
    out: dict[tuple, Any] = {}
    for name, value in tree.items():
        below = flat(value, (*path, name)) if isinstance(value, Mapping) else None
        out |= {(*path, name): value} if below is None else below
    return out


def official_tensors(rules: Iterable[Rule], leaves: Mapping[tuple, Any]) -> dict[str, np.ndarray]:
    """Return the official tensors of leaves {path: array}, parts of kernels joined."""
    parts: dict[str, list] = {}
    for rule in rules:
        for key, array in rule.write(leaves[rule.path]).items():
            parts.setdefault(key, []).append((rule.part or (0, None), array))
    return {
        key: found[0][1]
        if len(found) == 1
        else np.concatenate([a for _, a in sorted(found, key=lambda f: f[0][0])], axis=1)
        for key, found in parts.items()
    }
