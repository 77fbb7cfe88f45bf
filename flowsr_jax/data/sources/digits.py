"""The handwritten digits inside scikit-learn, and grey versions of other sources."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from flowsr_jax.config import ConfigError, choice
from flowsr_jax.data.sources import Source
from flowsr_jax.data.sources.embedded import SPLITS, packaged
from flowsr_jax.files.colour import LUMA

VALID_EVERY = 6
SIDE, LEVELS = 8, 16


class DigitsSource:
    """The 1797 handwritten digits of sklearn.datasets.load_digits, 8x8 pixels, with labels.

    Their 17 grey levels are spread over 0..255.  Every sixth digit is for validation.

    Args:
      split: "train" (1498 digits) or "valid" (299).
      min_size: least height and width asked for.

    Raises:
      ConfigError: another split, a larger size, or scikit-learn is not installed.
    """

    fields = ("hr", "label")

    def __init__(self, split: str, min_size: int = 1):
        choice("split", split, SPLITS)
        if min_size > SIDE:
            raise ConfigError(f"digits have {SIDE}x{SIDE} pixels; set data.patch_size = {SIDE}")
        images, labels = _digits(str(packaged(("sklearn", "datasets", "data"), "digits.csv.gz")))
        valid = np.arange(len(labels)) % VALID_EVERY == VALID_EVERY - 1
        self._indices = np.flatnonzero(valid if split == "valid" else ~valid)
        self._images, self._labels = images[self._indices], labels[self._indices]

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = np.repeat(self._images[index][..., None], 3, axis=-1)
        return {"hr": image, "label": int(self._labels[index])}

    def name(self, index: int) -> str:
        """Return the digit's number in the set."""
        return f"digit_{self._indices[index]:04d}"


class GreySource:
    """The luminance of a source's images, [H,W,1]; of grey images exactly their one channel.

    Args:
      source: of images without LR.
    """

    def __init__(self, source: Source):
        self._source, self.fields = source, source.fields

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self._source[index]
        grey = np.rint(example["hr"] @ np.array(LUMA))[..., None]
        return {**example, "hr": grey.astype(np.uint8)}

    def name(self, index: int) -> str:
        """Return what the image is called in its source."""
        return self._source.name(index)


@functools.cache
def _digits(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (uint8 [n,8,8], labels [n]), read without importing scikit-learn (seconds)."""
    table = np.loadtxt(path, delimiter=",", dtype=np.int64)
    levels = np.rint(table[:, :-1] * (255 / LEVELS)).astype(np.uint8)
    return levels.reshape(-1, SIDE, SIDE), table[:, -1]
