"""Tables that map official tensors (PyTorch's, TensorFlow's) to places in a parameter tree.

A family's map is data: a list of rules.  `Importer` reads the list forwards (official
state dict to Params) and backwards (Params to official state dict).
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from flowsr_jax.config import choice, from_dict
from flowsr_jax.models.base import Family, Params, families, family_of, get_family
from flowsr_jax.types import AnyArray, Array

T = TypeVar("T")
SHOWN = 3  # names listed in an error
# Counters of batch normalisation, which no inference reads.
IGNORED = (r"(.*\.)?num_batches_tracked",)


class MisfitError(ValueError):
    """A state dict from which a family's hyper-parameters cannot be read."""


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


def assemble(rules: list[Rule], weights: Mapping[str, np.ndarray], config: Any) -> Params:
    """Build Params from rules; every key must be there, be used, and have its shape.

    Raises:
      ValueError: missing, unknown or mis-shaped official tensors; the first few are
        listed, and the family that the weights were taken for.
    """
    wanted = {k for rule in rules for k in rule.keys}
    faults = {
        "missing": sorted(wanted - set(weights)),
        "unknown": sorted(set(weights) - wanted),
        "of another shape": _misshapen(rules, weights, config),
    }
    parts = [
        f"{len(names)} {what} (first: {', '.join(map(show, names[:SHOWN]))})"
        for what, names in faults.items()
        if names
    ]
    if parts:
        raise ValueError(f"weights do not fit family {config.family!r}: {'; '.join(parts)}")
    tree: dict = {}
    for rule in rules:
        node = tree
        for name in rule.path[:-1]:
            node = node.setdefault(name, {})
        node[rule.path[-1]] = rule.read(weights)
    return Params(tree, config)


def state_dict(params: Params, **options: Any) -> dict[str, np.ndarray]:
    """Return the official state dict of parameters: {official key: array}, OIHW.

    Args:
      params: model parameters whose architecture has an official form.
      **options: of the family's rules, e.g. scheme="basicsr" for an RRDB.

    Raises:
      ValueError: a family or a config without an official form.
    """
    family = family_of(params)
    if family.weights is None:
        raise ValueError(f"family {family.name!r} has no official PyTorch form to write")
    return family.weights.write(params, **options)


@dataclasses.dataclass(frozen=True)
class Importer:
    """How a family reads and writes official state dicts: `Family.weights`.

    Attributes:
      family: the family's name.
      infer: (weights, **overrides) -> config; see `shape_of` and `make_config`.
      rules: (config, **options) -> rules; raises ConfigError for a config that has no
        official form.
      recognise: (state dict) -> bool: these keys belong to this family.
      licence: (config) -> one line: under which licence the authors give the weights.
      options: (weights) -> options of `rules` for these keys (their naming scheme).
      constants: (config) -> {key: array}: official tensors that are no parameters but
        follow from the config; written, and not read (`infer` may compare them).
      ignore: regular expressions of official keys that are left out (and reported).
      forms: {name: (state dict) -> bool}: other names that a caller may give, of forms of
        the family that the keys tell apart.
      groups: {parameter group: (state dict) -> its parameters}: groups that have an official
        file of their own (a phase's `init_files`).
    """

    family: str
    infer: Callable[..., Any]
    rules: Callable[..., list[Rule]]
    recognise: Callable[[Mapping], bool]
    licence: Callable[[Any], str]
    options: Callable[[Mapping], dict] = lambda weights: {}
    constants: Callable[[Any], dict[str, np.ndarray]] = lambda config: {}
    ignore: tuple[str, ...] = ()
    forms: Mapping[str, Callable[[Mapping], bool]] = dataclasses.field(default_factory=dict)
    groups: Mapping[str, Callable[[Mapping], Any]] = dataclasses.field(default_factory=dict)

    def __call__(self, weights: Mapping[str, np.ndarray], **overrides: Any) -> Params:
        """Return the parameters of an official state dict {key: array}; see `read`."""
        return self.read(weights, **overrides).params

    def read(self, weights: Mapping[str, np.ndarray], **overrides: Any) -> Imported:
        """Return the parameters of an official state dict, and what was left out of it.

        Raises:
          ConfigError: an override that the config does not have or accept.
          ValueError: weights that do not fit the family.
        """
        try:
            config = self.infer(weights, **overrides)
        except MisfitError as error:
            raise ValueError(f"weights do not fit family {self.family!r}: {error}") from None
        rules = self.rules(config, **self.options(weights))
        wanted = {k for rule in rules for k in rule.keys}
        unused = re.compile("|".join((*IGNORED, *self.ignore)))
        ignored = tuple(k for k in weights if k not in wanted and unused.fullmatch(k))
        skipped = {*ignored, *self.constants(config)} - wanted
        left = {k: v for k, v in weights.items() if k not in skipped}
        return Imported(assemble(rules, left, config), ignored, self.licence(config))

    def write(self, params: Params, **options: Any) -> dict[str, np.ndarray]:
        """Return the official state dict of parameters, in the order of the module tree.

        Groups that the rules do not know (a discriminator's, say) are left out.

        Raises:
          ConfigError: the config has no official form.
          ValueError: the tree is not that of the config.
        """
        rules, leaves = self.rules(params.config, **options), _flat(params.tree)
        groups = {rule.path[0] for rule in rules}
        if odd := {rule.path for rule in rules} ^ {path for path in leaves if path[0] in groups}:
            names = ", ".join("/".join(path) for path in sorted(odd)[:SHOWN])
            raise ValueError(f"the parameters have no official form: {names}")
        state = {**self.constants(params.config), **_write(rules, leaves)}
        return {key: state[key] for key in module_order(state)}


@dataclasses.dataclass(frozen=True)
class Imported:
    """Parameters read from official weights, the keys left out, and a licence note."""

    params: Params
    ignored: tuple[str, ...]
    licence: str


def import_weights(
    weights: Mapping[str, Any], model: str | None = None, **overrides: Any
) -> Imported:
    """Read an official state dict; the family is inferred from the keys unless named.

    Args:
      weights: {official key: array}, as `flowsr_jax.io.torch_file.read_weights` gives.
      model: name of a family or of one of its forms, or None.
      **overrides: hyper-parameters that the weights do not determine.

    Raises:
      ValueError: weights of no known family, or that do not fit it.
    """
    if model is None:
        model = next((name for name, known in _importers() if known.recognise(weights)), None)
        if model is None:
            raise ValueError(
                f"these weights belong to no known family (first keys: "
                f"{', '.join(map(show, list(weights)[:SHOWN]))}); pass model= one of "
                f"{', '.join(_model_names())}"
            )
    elif model not in families():
        model = _family_of_form(model, weights)
    importer = get_family(model).weights
    if importer is None:
        raise ValueError(
            f"family {model!r} has no importer of PyTorch weights; {', '.join(_model_names())} have"
        )
    return importer.read(weights, **overrides)


def _importers() -> Iterator[tuple[str, Importer]]:
    """Yield (family name, importer) of the families that have one."""
    for name in families():
        if (importer := get_family(name).weights) is not None:
            yield name, importer


def _model_names() -> list[str]:
    return sorted(n for name, importer in _importers() for n in (name, *importer.forms))


def _family_of_form(model: str, weights: Mapping[str, Any]) -> str:
    """Return the family that has a form of this name; the weights must be of that form."""
    choice("model", model, _model_names())
    name, forms = next((n, known.forms) for n, known in _importers() if model in known.forms)
    if not forms[model](weights):
        raise ValueError(
            f"weights do not fit {model!r}, a form of family {name!r} (first keys: "
            f"{', '.join(map(show, list(weights)[:SHOWN]))})"
        )
    return name


def file_groups(family: Family) -> Mapping[str, Callable[[Mapping], Any]]:
    """Return {parameter group: its reader} of groups that have an official file of their own."""
    return family.weights.groups if family.weights else {}


def make_config(cls: type[T], values: Mapping[str, Any], overrides: Mapping[str, Any]) -> T:
    """Return the config record of inferred values, overridden; wrong names and types are named."""
    return from_dict(cls, {**values, **overrides}, "from_torch")


def shape_of(weights: Mapping[str, Any], key: str, rank: int = 4) -> tuple[int, ...]:
    """Return the shape of an official tensor from which a hyper-parameter is read.

    Raises:
      MisfitError: it is missing, empty or of another rank.
    """
    if key not in weights:
        raise MisfitError(f"{key} is missing, from which a hyper-parameter is read")
    shape = np.shape(weights[key])
    if len(shape) != rank or 0 in shape:
        raise MisfitError(f"{key} has the shape {_times(shape)}; {rank} axes were expected")
    return shape


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


def show(name: str) -> str:
    """Return a key of a file for a message: short, and nothing that a terminal obeys."""
    return name[:100] if name.isprintable() else repr(name[:100])


def _float32(a: np.ndarray) -> np.ndarray:
    a = np.asarray(a)
    return a.astype(np.float32) if jnp.issubdtype(a.dtype, jnp.floating) else a


def _times(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "a number"


def _flat(tree: Mapping, path: tuple = ()) -> dict[tuple, Any]:
    out: dict[tuple, Any] = {}
    for name, value in tree.items():
        below = _flat(value, (*path, name)) if isinstance(value, Mapping) else None
        out |= {(*path, name): value} if below is None else below
    return out


def _write(rules: Iterable[Rule], leaves: Mapping[tuple, Any]) -> dict[str, np.ndarray]:
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


def _misshapen(rules: list[Rule], weights: Mapping[str, np.ndarray], config: Any) -> list[str]:
    """Return official tensors whose shape is not what the family's `init` asks for."""
    if config.family not in families():  # a family of the caller's own
        return []
    init = get_family(config.family).init
    expected = _flat(jax.eval_shape(lambda key: init(config, key), jax.random.key(0)).tree)
    rules = [rule for rule in rules if rule.path in expected]
    blank = {path: np.broadcast_to(np.int8(0), leaf.shape) for path, leaf in expected.items()}
    free = {key for rule in rules for key in rule.keys if rule.kind == "vector" and not rule.shape}
    out = []
    for key, want in _write(rules, blank).items():
        got = np.shape(weights[key]) if key in weights else want.shape
        if got != want.shape and not (key in free and math.prod(got) == want.size):
            out.append(f"{key} is {_times(got)} instead of {_times(want.shape)}")
    return sorted(out)
