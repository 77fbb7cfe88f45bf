"""Checked, frozen configuration records.

Every configuration in the library is a frozen dataclass (hashable, so that it can
be static metadata of a parameter pytree or a static jit argument).  `from_dict`
builds one from plain dictionaries (a config file, a JSON file beside a
checkpoint) and answers a wrong field with one error that names the nearest right
one; `to_dict` is its inverse.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any


class ConfigError(ValueError):
    """A configuration value that cannot be used; the message names the field."""


def nearest(name: str, allowed) -> str:
    """Return "; did you mean 'x'?" for the closest allowed name, or ""."""
    close = difflib.get_close_matches(str(name), [str(a) for a in allowed], n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def choice(field: str, value, allowed):
    """Return `value` if it is among `allowed`, else raise ConfigError naming both."""
    if value not in allowed:
        listed = ", ".join(repr(a) for a in allowed)
        raise ConfigError(f"{field} = {value!r} is not one of {listed}{nearest(value, allowed)}")
    return value


def from_dict(cls, values: Mapping[str, Any], path: str = "config"):
    """Build the frozen dataclass `cls` from a mapping, checking names and types.

    Args:
      cls: a frozen dataclass type.  Field types may be bool, int, float, str,
        Optional of these, tuples (`tuple[int, ...]`), other such dataclasses, or
        Mapping (kept as a `Frozen` mapping).
      values: a mapping; lists become tuples, an int is taken for a float.
      path: the name of this record in messages, e.g. "config.train".

    Raises:
      ConfigError: an unknown field (the nearest known one is named), a wrong
        type, or a value that the record's own `__post_init__` refuses.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path} must be a mapping of fields, got {values!r}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    kwargs = {}
    for name, value in values.items():
        if name not in fields:
            raise ConfigError(
                f"{path}.{name} is not a field of {cls.__name__}{nearest(name, fields)} "
                f"(fields: {', '.join(sorted(fields))})"
            )
        kwargs[name] = _convert(hints[name], value, f"{path}.{name}")
    missing = [
        f.name
        for f in fields.values()
        if f.name not in kwargs
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{path} lacks the field(s) {', '.join(missing)} of {cls.__name__}")
    try:
        return cls(**kwargs)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def to_dict(record) -> Any:
    """Return plain dicts, lists and scalars for a record (JSON-ready)."""
    if dataclasses.is_dataclass(record):
        return {f.name: to_dict(getattr(record, f.name)) for f in dataclasses.fields(record)}
    if isinstance(record, Mapping):
        return {k: to_dict(v) for k, v in record.items()}
    if isinstance(record, (tuple, list)):
        return [to_dict(v) for v in record]
    return record


def upgraded(values):
    """Return a record that an earlier version stored, in today's fields.

    `remat: true | false` of the networks' `compute` became `memory`.  For stored records
    alone: a config written by hand has today's fields.
    """
    if not isinstance(values, Mapping):
        return values
    values = {name: upgraded(value) for name, value in values.items()}
    if "remat" in values:
        values["memory"] = "remat" if values.pop("remat") else "store"
    return values


class Frozen(Mapping):
    """An immutable, hashable mapping for free-form options in a config."""

    def __init__(self, values=()):
        self._items = tuple(sorted((k, _freeze(v)) for k, v in dict(values).items()))
        self._dict = dict(self._items)

    def __getitem__(self, key):
        return self._dict[key]

    def __iter__(self):
        return iter(self._dict)

    def __len__(self):
        return len(self._dict)

    def __hash__(self):
        return hash(self._items)

    def __eq__(self, other):
        return isinstance(other, Mapping) and self._dict == dict(other)

    def __repr__(self):
        return f"Frozen({self._dict!r})"


def _freeze(value):
    if isinstance(value, Mapping):
        return Frozen(value)
    if isinstance(value, (list, tuple)):
        return tuple(_freeze(v) for v in value)
    return value


def _convert(hint, value, path):
    origin = typing.get_origin(hint)
    args = typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        errors = []
        for arg in args:
            if arg is not type(None):
                try:
                    return _convert(arg, value, path)
                except ConfigError as error:
                    errors.append(error)
        raise errors[0]
    if hint is Any:
        return _freeze(value)
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else from_dict(hint, value, path)
    if origin is tuple or hint is tuple:
        if isinstance(value, str) or not hasattr(value, "__iter__"):
            raise ConfigError(f"{path} must be a sequence, got {value!r}")
        inner = args[0] if args else Any
        return tuple(_convert(inner, v, f"{path}[{i}]") for i, v in enumerate(value))
    if hint is Frozen or origin is Mapping or hint is Mapping:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path} must be a mapping, got {value!r}")
        return Frozen(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint in (int, float, str, bool):
        if type(value) is not hint:
            raise ConfigError(
                f"{path} must be {hint.__name__}, got {value!r} ({type(value).__name__})"
            )
        return value
    return value
