"""Checked, frozen configuration records.

Every configuration in the library is a frozen dataclass (hashable, so that it can
be static metadata of a parameter pytree or a static jit argument).  `from_dict`
builds one from plain dictionaries (a config file, a JSON file beside a
checkpoint) and answers a wrong field with one error that names the nearest right
one; `to_dict` is its inverse.  A number's range is part of its field's type
(`nf: Count = 64`), and `check_ranges` in `__post_init__` holds the record to all of them.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import numbers
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any


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


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high` that a field allows; never NaN, never infinite.

    Attributes:
      low, high: the ends.
      open: the ends that are not allowed themselves: "", "low" or "high".
    """

    low: float
    high: float = math.inf
    open: str = ""

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open == "low" else value >= self.low
        below = value < self.high if self.open == "high" else value <= self.high
        return above and below and not math.isinf(value)

    def wanted(self, value: Any = None) -> str:
        """Return what a number must be, where it is not `value`: "at least 1"."""
        if value == math.inf:
            return "finite"
        if self.high > 1 and isinstance(value, numbers.Real) and value > self.high:
            return f"at most {self.high}"
        if self.high > 1:
            return f"above {self.low}" if self.open == "low" else f"at least {self.low}"
        left, right = "(" if self.open == "low" else "[", ")" if self.open == "high" else "]"
        return f"in {left}{self.low}, {self.high}{right}"


# The types of the numbers in records.  Counters on the device are int32.
Count = Annotated[int, Range(1, 2**31 - 1)]
Natural = Annotated[int, Range(0, 2**31 - 1)]
# Of networks: what Python loops over, and sides of arrays.  A record of a stranger can thus
# not ask for a model that takes hours to describe.
Depth = Annotated[int, Range(1, 1024)]
DepthOr0 = Annotated[int, Range(0, 1024)]
Width = Annotated[int, Range(1, 2**16)]
WidthOr0 = Annotated[int, Range(0, 2**16)]
Positive = Annotated[float, Range(0, open="low")]
NotNegative = Annotated[float, Range(0)]
Probability = Annotated[float, Range(0, 1)]
Decay = Annotated[float, Range(0, 1, open="high")]


def check_ranges(record) -> None:
    """Hold all numbers of a record, those in its tuples too, to their fields' ranges.

    Raises:
      ConfigError: a number outside its `Range`, or no number; the message names the field.
    """
    for name, hint in _hints(type(record)).items():
        for kind, allowed, value in _ranged(hint, getattr(record, name)):
            number = numbers.Integral if kind is int else numbers.Real
            if isinstance(value, bool) or not isinstance(value, number):
                noun = "an integer" if kind is int else "a number"
                raise ConfigError(f"{name} = {value!r} must be {noun}, {allowed.wanted()}")
            if value not in allowed:
                raise ConfigError(f"{name} = {value!r} must be {allowed.wanted(value)}")


@functools.cache
def _hints(cls) -> dict[str, Any]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def _ranged(hint, value) -> Iterator[tuple[type, Range, Any]]:
    """Yield (int or float, its Range, the number) for what `hint` bounds in `value`."""
    if typing.get_origin(hint) is Annotated:
        kind, allowed = typing.get_args(hint)
        yield kind, allowed, value
    elif typing.get_origin(hint) in (typing.Union, types.UnionType) and value is not None:
        for inner in typing.get_args(hint):
            yield from _ranged(inner, value)
    elif typing.get_origin(hint) is tuple and isinstance(value, tuple):
        for one in value:
            yield from _ranged(typing.get_args(hint)[0], one)


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
