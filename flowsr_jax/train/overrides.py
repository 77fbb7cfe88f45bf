"""Single values set from outside a configuration: `--config.train.batch_size=4`."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from flowsr_jax.config import ConfigError, nearest


def split_overrides(argv: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Take the `--config.path=value` arguments out of a command line.

    Values are Python literals ("3", "1e-4", "(1, 2)", "None", "true"), anything else
    is a string; `--config.path` alone means True.

    Returns:
      The other arguments, and {path: value} for `resolve`.
    """
    rest, overrides = [], {}
    for argument in argv:
        name, equals, text = argument.partition("=")
        if not name.startswith(("--config.", "-config.")):
            rest.append(argument)
            continue
        overrides[name.partition(".")[2]] = _literal(text) if equals else True
    return rest, overrides


def plain(value: Any) -> Any:
    """Return mappings (ConfigDicts too) as dicts and sequences as lists, all the way down."""
    if isinstance(value, Mapping) or hasattr(value, "to_dict"):
        items = value.to_dict() if hasattr(value, "to_dict") else value
        return {k: plain(v) for k, v in items.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def override(values: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at a dotted path of `plain` values, in place.

    Raises:
      ConfigError: the path leads through a value that has no fields, or names an entry
        that a list lacks.
    """
    *parents, last = path.replace("[", ".").replace("]", "").split(".")
    node: Any = values
    for depth, part in enumerate(parents):
        where = ".".join(["config", *parents[:depth]])
        if isinstance(node, Mapping):
            node = node.setdefault(part, {})
        else:
            node = node[_index(node, part, where)]
        if not isinstance(node, (dict, list)):
            raise ConfigError(f"{where}.{part} is {node!r}: it has no field {last!r}")
    if isinstance(node, Mapping):
        node[last] = value
    else:
        node[_index(node, last, ".".join(["config", *parents]))] = value


def _literal(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _index(entries: list[Any], part: str, where: str) -> int:
    names = [e.get("name") if isinstance(e, Mapping) else None for e in entries]
    if part.isdigit() and int(part) < len(entries):
        return int(part)
    if part in names:
        return names.index(part)
    raise ConfigError(
        f"{where} has no entry {part!r}{nearest(part, [n for n in names if n])} "
        f"(entries: {', '.join(f'{i}: {n}' for i, n in enumerate(names))})"
    )
