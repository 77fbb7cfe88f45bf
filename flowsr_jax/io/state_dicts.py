"""Which tensors of a file are the weights: containers, wrappers, and what lies beside them.

Training code wraps a state dict in several ways: containers (nested dicts, or prefixes of
keys), a `module.` or `_orig_mod.` put into the keys by DataParallel and torch.compile, and
other values beside the tensors.  What cannot be decided without knowing the networks (several
nets in one file, `netG.` before the keys) stays in the keys for `models.importer`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from flowsr_jax.io.torch_pickle import Foreign, Tensor, UnsafeFileError, WeightsFileError

CONTAINERS = ("params_ema", "params", "state_dict")  # averaged weights first
WRAPPERS = ("module", "_orig_mod")  # of DataParallel and torch.compile
DEPTH = 4  # of nested containers
MEBIBYTE = 1 << 20
SHOWN = 8  # names listed in a message
Report = Callable[[str], None]


def averaged(name: str) -> bool:
    """Return whether a container or net of this name holds averaged weights (EMA)."""
    return "ema" in re.split(r"[^a-z]+", name.lower())


def take_tensors(
    tree: Any,
    name: str,
    array: Callable[[Any], np.ndarray],
    report: Report,
    *,
    size: int | None = None,
    key: str | None = None,
) -> dict[str, np.ndarray]:
    """Return {key: array} of the state dict in a tree of dicts.

    Args:
      tree: what the file holds.
      name: what to call the file in messages.
      array: makes an array of a tensor of the tree.
      report: receives a line for whatever was opened, removed or left out.
      size: bytes of the file, beyond a small multiple of which tensors may not claim.
      key: the container or net to take, its path joined by dots; None: the one to be found.

    Raises:
      UnsafeFileError: the file is an object, no dict.
      WeightsFileError: no tensors, nothing under `key`, or tensors that cannot be read.
    """
    if key is not None:
        tree, key = _descend(tree, key, report)
    tree = _open_containers(tree, name, report)
    chosen = {str(k): value for k, value in tree.items() if is_tensor(value)}
    if len(chosen) < len(tree):
        others = [_with_type(k, value) for k, value in tree.items() if not is_tensor(value)]
        report(f"left out what is no tensor: {', '.join(others[:SHOWN])}{_more(others)}")
    plain = _plain_keys(list(chosen), name, report, opened=key is not None)
    if key is not None:
        plain = _inside(plain, key, name, report)
    if size is not None:
        # Tensors may share a storage or repeat it; written out they must stay in bounds.
        total = sum(chosen[official].nbytes for official in plain.values())
        if total > 64 * MEBIBYTE + 4 * size:
            raise WeightsFileError(
                f"{name}: refused: its tensors claim {total} bytes, the file has {size}"
            )
    out = {}
    for k, official in plain.items():
        try:
            value = out[k] = array(chosen[official])
        except (ValueError, TypeError) as error:
            raise WeightsFileError(f"{name}: tensor {official[:100]!r}: {line(error)}") from None
        if value.dtype.kind not in "biuf" and value.dtype != ml_dtypes.bfloat16:
            raise WeightsFileError(f"{name}: {official[:100]!r} holds {value.dtype}, not numbers")
    return out


def refuse_object(tree: Any, name: str) -> None:
    """Raise UnsafeFileError if a file holds an object, a whole pickled model say."""
    if isinstance(tree, Foreign):
        raise UnsafeFileError(
            f"{name}: refused: it holds an object {tree.name[:200]!r}, not a dict of tensors; "
            "save its state_dict(); nothing of it was run"
        )


def is_tensor(value: Any) -> bool:
    """Return whether a value of a tree is a tensor: of a file, of NumPy, JAX or torch."""
    return isinstance(value, Tensor) or hasattr(value, "__array__") or hasattr(value, "detach")


def line(error: Exception) -> str:
    """Return an error's text as a short line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _descend(tree: Any, key: str, report: Report) -> tuple[Any, str | None]:
    """Follow nested dicts as far as `key` names them; return what is left of it."""
    rest: str | None = key.strip(".")
    while rest and isinstance(tree, Mapping):
        names = [str(k) for k, value in tree.items() if isinstance(value, Mapping)]
        found = [n for n in names if rest == n or rest.startswith(f"{n}.")]
        if not found:
            break
        name = max(found, key=len)
        others = [k for k in tree if str(k) != name]
        report(f"opened {name[:50]!r}{f', left out {listed(others)}' if others else ''}")
        tree = next(value for k, value in tree.items() if str(k) == name)
        rest = rest[len(name) + 1 :] or None
    return tree, rest


def _inside(plain: Mapping[str, str], key: str, name: str, report: Report) -> dict[str, str]:
    start = f"{key}."
    inside = {k.removeprefix(start): v for k, v in plain.items() if k.startswith(start)}
    if not inside:
        tops = dict.fromkeys(k.split(".")[0] for k in plain)
        raise WeightsFileError(f"{name}: has nothing under the key {key!r}; has {listed(tops)}")
    others = dict.fromkeys(k.split(".")[0] for k in plain if not k.startswith(start))
    report(f"took {key!r}{f', left out {listed(others)}' if others else ''}")
    return inside


def _plain_keys(keys: list[str], name: str, report: Report, opened: bool) -> dict[str, str]:
    """Return {key without the prefixes of containers and without wrappers: key}."""
    start = ""
    for container in () if opened else CONTAINERS:  # of formats without nested dicts
        inside = [key for key in keys if key.startswith(f"{container}.")]
        if inside:
            start = f"{container}."
            if len(inside) < len(keys):
                others = [key for key in keys if not key.startswith(start)]
                report(f"took the keys that begin with {start!r}, left out {listed(others)}")
            else:
                report(f"removed the prefix {start!r}")
            keys = inside
            break
    parts = {key: key.removeprefix(start).split(".") for key in keys}
    plain = {".".join(p for p in parts[key] if p not in WRAPPERS): key for key in keys}
    for wrapper in WRAPPERS:
        wrapped = sum(wrapper in p for p in parts.values())
        if wrapped and len(plain) != len(keys):
            raise WeightsFileError(
                f"{name}: has keys both with and without the prefix '{wrapper}.'"
            )
        if wrapped:
            report(f"removed the prefix '{wrapper}.' of {wrapped} keys")
    return plain


def _open_containers(tree: Any, name: str, report: Report) -> Mapping:
    for _ in range(DEPTH):
        refuse_object(tree, name)
        if not isinstance(tree, Mapping):
            raise WeightsFileError(f"{name}: holds a {type(tree).__name__}, not a dict of tensors")
        if not tree:
            raise WeightsFileError(f"{name}: holds no tensors")
        inner = [key for key, value in tree.items() if isinstance(value, Mapping)]
        dicts = [key for key in inner if any(map(is_tensor, tree[key].values()))]
        wanted = [key for key in CONTAINERS if key in inner]
        if (average := [key for key in dicts if averaged(str(key))]) and len(average) == 1:
            wanted = average
        wanted = wanted or (dicts if len(dicts) == 1 else [])
        if not wanted:
            flat = _flat(tree)
            if not any(map(is_tensor, flat.values())):
                raise WeightsFileError(f"{name}: holds no tensors; it has {listed(tree)}")
            return flat
        others = [key for key in tree if key != wanted[0]]
        also = f", left out {listed(others)}" if others else ""
        report(f"opened {str(wanted[0])[:50]!r}{also}")
        tree = tree[wanted[0]]
    raise WeightsFileError(f"{name}: containers are nested too deep")


def _flat(tree: Mapping, start: str = "", depth: int = DEPTH) -> dict[str, Any]:
    """Return nested dicts as one, keys joined by dots; dicts without tensors stay values."""
    out: dict[str, Any] = {}
    for key, value in tree.items():
        below = (
            _flat(value, f"{start}{key}.", depth - 1)
            if isinstance(value, Mapping) and depth
            else {}
        )
        holds = any(map(is_tensor, below.values()))
        out |= below if holds else {f"{start}{key}": value}
    return out


def _with_type(key: Any, value: Any) -> str:
    return repr(str(key)[:50]) + (f" ({value.name[:50]})" if isinstance(value, Foreign) else "")


def _more(names: list) -> str:
    return f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""


def listed(names: Any) -> str:
    """Return the first of some names for a message, and how many more there are."""
    names = list(names)
    return ", ".join(repr(str(name)[:50]) for name in names[:SHOWN]) + _more(names)
