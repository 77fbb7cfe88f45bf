"""Several sources as one: DF2K is DIV2K and Flickr2K."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from typing import Any

from flowsr_jax.config import ConfigError
from flowsr_jax.data.sources import Source


class Mixture:
    """The images of several sources, one after the other.

    Training visits each image equally often, whichever source it is from.

    Args:
      sources: the parts; all must give the same fields.

    Raises:
      ConfigError: there are none, or they give different fields.
    """

    def __init__(self, sources: Sequence[Source]):
        if not sources:
            raise ConfigError("a mixture needs at least one source")
        self.fields = sources[0].fields
        for i, source in enumerate(sources):
            if source.fields != self.fields:
                raise ConfigError(
                    f"the parts of a mixture must give the same: part 0 gives {self.fields}, "
                    f"part {i} gives {source.fields}"
                )
        self._sources = tuple(sources)
        self._ends = tuple(itertools.accumulate(len(source) for source in sources))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> dict[str, Any]:
        source, inner = self._find(index)
        return source[inner]

    def name(self, index: int) -> str:
        """Return what the image is called in its source."""
        source, inner = self._find(index)
        return source.name(inner)

    def _find(self, index: int) -> tuple[Source, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        part = bisect.bisect_right(self._ends, index)
        return self._sources[part], index - (self._ends[part - 1] if part else 0)
