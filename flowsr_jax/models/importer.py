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
from flowsr_jax.models.rules import Rule, flat, module_order, official_tensors

T = TypeVar("T")
SHOWN = 3  # names listed in an error
NESTED = 4  # levels of names before a net's own keys, one less
# Counters of batch normalisation and of averaging, which no inference reads.
IGNORED = (r"(.*\.)?num_batches_tracked", "n_averaged")


class MisfitError(ValueError):
    """A state dict from which a family's hyper-parameters cannot be read."""


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
      options: (weights) -> options of `rules` for these keys (their naming scheme).
      constants: (config) -> {key: array}: official tensors that are no parameters but
        follow from the config; written, and not read (`infer` may compare them).
      ignore: regular expressions of official keys that are left out (and reported).
      forms: {name: (state dict) -> bool}: other names that a caller may give, of forms of
        the family that the keys tell apart.
      groups: {parameter group: (state dict) -> its parameters}: groups that have an official
        file of their own (a phase's `init_files`).
      settle: (params, weights) -> (params, notes): decides by evaluation what the keys leave
        open; called unless the caller or the file says it (`settled`).
      settled: fields of the config that `settle` decides.
    """

    family: str
    infer: Callable[..., Any]
    rules: Callable[..., list[Rule]]
    recognise: Callable[[Mapping], bool]
    options: Callable[[Mapping], dict] = lambda weights: {}
    constants: Callable[[Any], dict[str, np.ndarray]] = lambda config: {}
    ignore: tuple[str, ...] = ()
    forms: Mapping[str, Callable[[Mapping], bool]] = dataclasses.field(default_factory=dict)
    groups: Mapping[str, Callable[[Mapping], Any]] = dataclasses.field(default_factory=dict)
    settle: Callable[[Params, Mapping], tuple[Params, tuple[str, ...]]] | None = None
    settled: tuple[str, ...] = ()

    def __call__(self, weights: Mapping[str, np.ndarray], **overrides: Any) -> Params:
        """Return the parameters of an official state dict {key: array}; see `read`."""
        return self.read(weights, **overrides).params

    def read(
        self,
        weights: Mapping[str, np.ndarray],
        recorded: Mapping[str, Any] | None = None,
        **overrides: Any,
    ) -> Imported:
        """Return the parameters of an official state dict, and what was left out of it.

        Args:
          weights: {official key: array}.
          recorded: the config that the file says, `config.to_dict` of it; None: inferred.
          **overrides: of the config's fields.

        Raises:
          ConfigError: an override that the config does not have or accept.
          ValueError: weights that do not fit the family.
        """
        try:
            if recorded is None:
                config = self.infer(weights, **overrides)
            else:
                config = make_config(get_family(self.family).config_class, recorded, overrides)
        except MisfitError as error:
            raise ValueError(f"weights do not fit family {self.family!r}: {error}") from None
        rules = self.rules(config, **self.options(weights))
        wanted = {k for rule in rules for k in rule.keys}
        unused = re.compile("|".join((*IGNORED, *self.ignore)))
        ignored = tuple(k for k in weights if k not in wanted and unused.fullmatch(k))
        skipped = {*ignored, *self.constants(config)} - wanted
        left = {k: v for k, v in weights.items() if k not in skipped}
        params, notes = assemble(rules, left, config), _not_finite(left)
        said = recorded is not None or any(name in overrides for name in self.settled)
        if self.settle is not None and not said and not notes:
            params, notes = self.settle(params, weights)
        return Imported(params, ignored, notes)

    def write(self, params: Params, **options: Any) -> dict[str, np.ndarray]:
        """Return the official state dict of parameters, in the order of the module tree.

        Groups that the rules do not know (a discriminator's, say) are left out.

        Raises:
          ConfigError: the config has no official form.
          ValueError: the tree is not that of the config.
        """
        rules, leaves = self.rules(params.config, **options), flat(params.tree)
        groups = {rule.path[0] for rule in rules}
        if odd := {rule.path for rule in rules} ^ {path for path in leaves if path[0] in groups}:
            names = ", ".join("/".join(path) for path in sorted(odd)[:SHOWN])
            raise ValueError(f"the parameters have no official form: {names}")
        state = {**self.constants(params.config), **official_tensors(rules, leaves)}
        return {key: state[key] for key in module_order(state)}


@dataclasses.dataclass(frozen=True)
class Imported:
    """Parameters read from official weights, the keys left out, and what the user should know."""

    params: Params
    ignored: tuple[str, ...]
    notes: tuple[str, ...] = ()


def import_weights(
    weights: Mapping[str, Any],
    model: str | None = None,
    *,
    recorded: Mapping[str, Any] | None = None,
    **overrides: Any,
) -> Imported:
    """Read an official state dict; the family is inferred from the keys unless named.

    Args:
      weights: {official key: array}, as `flowsr_jax.io.torch_file.read_weights` gives.  A
        net inside (all its keys behind `netG.`, say) is found; of several the averaged one.
      model: name of a family or of one of its forms, or None.
      recorded: {"family": name, "config": fields} that the file itself says, or None.
      **overrides: hyper-parameters that the weights do not determine.

    Raises:
      ValueError: weights of no known family, that do not fit it, or of several nets.
    """
    prefix, found = _find_net(weights, model)
    notes: tuple[str, ...] = ()
    if prefix:
        others = dict.fromkeys(k.split(".")[0] for k in weights if not k.startswith(prefix))
        left_out = f", left out {', '.join(map(show, list(others)[:SHOWN]))}" if others else ""
        notes = (f"took the net {show(prefix[:-1])!r}{left_out}",)
        weights = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    model = model or found
    if model is None:
        raise ValueError(
            f"these weights belong to no known family (first keys: "
            f"{', '.join(map(show, list(weights)[:SHOWN]))}); pass model= one of "
            f"{', '.join(_model_names())}"
        )
    if model not in families():
        model = _family_of_form(model, weights)
    importer = get_family(model).weights
    if importer is None:
        raise ValueError(
            f"family {model!r} has no importer of PyTorch weights; {', '.join(_model_names())} have"
        )
    same = recorded is not None and recorded.get("family") in (None, model)
    imported = importer.read(weights, recorded["config"] if same else None, **overrides)
    return dataclasses.replace(imported, notes=(*notes, *imported.notes))


def _find_net(weights: Mapping[str, Any], model: str | None) -> tuple[str, str | None]:
    """Return (prefix of its keys, family) of the net that is meant; ("", None) for none.

    Raises:
      ValueError: several nets, none or more than one of them averaged.
    """
    known = [(name, importer.recognise) for name, importer in _importers()]
    if model is not None:
        known = [
            (n, test)
            for n, test in known
            if n == model or model in get_family(n).weights.forms  # ty: ignore[missing-union-attribute]
        ]
    parts = [key.split(".") for key in weights]
    starts = {".".join([*p[:depth], ""]) for p in parts for depth in range(min(len(p), NESTED))}
    nets: dict[str, str] = {}
    for start in sorted(starts, key=len):
        if any(start.startswith(net) for net in nets):
            continue
        inside = {k.removeprefix(start): v for k, v in weights.items() if k.startswith(start)}
        if family := next((name for name, test in known if test(inside)), None):
            nets[start] = family
    average = [net for net in nets if "ema" in re.split(r"[^a-z]+", net.lower())]
    if len(nets) > 1 and len(average) != 1:
        names = ", ".join(repr(show(net[:-1])) for net in nets)
        raise ValueError(f"the file holds several nets: {names}; choose one with key= (--key)")
    return next(((n, nets[n]) for n in (*average, *nets)), ("", None))


def _not_finite(weights: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a line that names the tensors with NaN or infinite numbers, if there are any."""
    bad = {k: a.size - int(np.isfinite(a).sum()) for k, a in _floats(weights)}
    bad = {k: count for k, count in bad.items() if count}
    if not bad:
        return ()
    first = ", ".join(f"{show(k)} ({count})" for k, count in list(bad.items())[:SHOWN])
    return (f"{len(bad)} tensors hold NaN or infinite numbers, images will too (first: {first})",)


def _floats(weights: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    for key, value in weights.items():
        if jnp.issubdtype(np.asarray(value).dtype, jnp.floating):
            yield key, np.asarray(value)


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


def show(name: str) -> str:
    """Return a key of a file for a message: short, and nothing that a terminal obeys."""
    return name[:100] if name.isprintable() else repr(name[:100])


def _times(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "a number"


def _misshapen(rules: list[Rule], weights: Mapping[str, np.ndarray], config: Any) -> list[str]:
    """Return official tensors whose shape is not what the family's `init` asks for."""
    if config.family not in families():  # a family of the caller's own
        return []
    init = get_family(config.family).init
    expected = flat(jax.eval_shape(lambda key: init(config, key), jax.random.key(0)).tree)
    rules = [rule for rule in rules if rule.path in expected]
    blank = {path: np.broadcast_to(np.int8(0), leaf.shape) for path, leaf in expected.items()}
    free = {key for rule in rules for key in rule.keys if rule.kind == "vector" and not rule.shape}
    out = []
    for key, want in official_tensors(rules, blank).items():
        got = np.shape(weights[key]) if key in weights else want.shape
        if got != want.shape and not (key in free and math.prod(got) == want.size):
            out.append(f"{key} is {_times(got)} instead of {_times(want.shape)}")
    return sorted(out)
