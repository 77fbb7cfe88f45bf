"""Decoded images kept in memory."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Hashable, Mapping

import numpy as np

Example = Mapping[str, object]


class Cache:
    """The examples last used, bounded in bytes; pickles empty.

    Arrays that it hands out are shared, so they are made read-only.

    Args:
      limit: bytes kept; the least recently used examples go first.
    """

    def __init__(self, limit: int):
        self._limit, self._bytes, self._lock = limit, 0, threading.Lock()
        self._kept: collections.OrderedDict[Hashable, Example] = collections.OrderedDict()

    def get(self, key: Hashable, read: Callable[[], Example]) -> Example:
        """Return what is kept under `key`, else `read()`: a mapping with arrays in it."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        example = read()  # outside the lock: decoding takes long
        for value in example.values():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False
        with self._lock:
            if key not in self._kept and _bytes(example) <= self._limit:
                self._kept[key] = example
                self._bytes += _bytes(example)
            while self._bytes > self._limit:
                self._bytes -= _bytes(self._kept.popitem(last=False)[1])
        return example

    def __reduce__(self):
        return Cache, (self._limit,)


def _bytes(example: Example) -> int:
    return sum(v.nbytes for v in example.values() if isinstance(v, np.ndarray))
