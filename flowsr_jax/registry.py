"""Tables of named things that others add to: families, networks, sources and metrics.

The four tables have one pattern: `register_family(name, item)`, and `register_network`,
`register_source` and `register_metric`.  The tables are the library's only state; a name
stands for one thing as long as the process lives.

An installed package adds its things without being imported by anybody: it declares an entry
point of the group `flowsr_jax.plugins`, a module (or a function without arguments), which is
imported (and called) when a table is listed or does not know a name.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import warnings
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from flowsr_jax.config import nearest

GROUP = "flowsr_jax.plugins"
T = TypeVar("T")


class Registry(Generic[T]):
    """A table {name: item}.

    Args:
      kind: what the items are, for messages, as "model family".
    """

    def __init__(self, kind: str):
        self.kind = kind
        self._items: dict[str, T | str] = {}

    def register(self, name: str, item: T | str) -> None:
        """Add an item.

        Args:
          name: its name, by which configs and commands choose it.
          item: the item, or "module:attribute", from where it is imported on first use.

        Raises:
          ValueError: the name is taken.
        """
        if name in self._items and self._items[name] is not item:
            raise ValueError(f"the {self.kind} {name!r} is there already; take another name")
        self._items[name] = item

    def get(self, name: str) -> T:
        """Return the item of a name.

        Raises:
          ValueError: an unknown name; the message lists the known ones and the nearest.
        """
        if name not in self:
            close, known = nearest(name, self._items), ", ".join(self.names()) or "none"
            raise ValueError(f"unknown {self.kind} {name!r}{close} (known: {known})")
        item = self._items[name]
        if isinstance(item, str):
            module, _, attribute = item.partition(":")
            item = self._items[name] = getattr(importlib.import_module(module), attribute)
        return item

    def __contains__(self, name: object) -> bool:
        """Return whether a name is known; plug-ins are loaded to find one that is not."""
        if name not in self._items:
            load_plugins()
        return name in self._items

    def names(self) -> tuple[str, ...]:
        """Return all names in alphabetical order, those of installed plug-ins among them."""
        load_plugins()
        return tuple(sorted(self._items))

    @contextlib.contextmanager
    def using(self, name: str, item: T | str) -> Iterator[None]:
        """Have an item in the table for a while, in place of one of that name."""
        before = self._items.get(name)
        self._items[name] = item
        try:
            yield
        finally:
            if before is None:
                del self._items[name]
            else:
                self._items[name] = before


class _Plugins:
    loaded = False


def load_plugins() -> None:
    """Import the installed plug-ins, once in a process.

    Warns:
      UserWarning: a plug-in that fails; what it registered up to there stays.
    """
    if _Plugins.loaded:
        return
    _Plugins.loaded = True  # before the imports: a plug-in may look something up
    for point in importlib.metadata.entry_points(group=GROUP):
        try:
            found = point.load()
            if isinstance(found, Callable):
                found()
        except Exception as error:
            warnings.warn(
                f"the plug-in {point.name!r} ({point.value}) cannot be loaded: "
                f"{type(error).__name__}: {error}",
                stacklevel=2,
            )
