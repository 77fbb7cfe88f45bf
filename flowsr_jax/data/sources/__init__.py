"""Sources: random-access sequences of images; here those of plain image files.

A source has `len(source)`, `source[i] -> {"hr": uint8 [H,W,3], ...}` and `source.name(i)`.
All can be pickled into worker processes; they carry file names, not pixels.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from flowsr_jax.config import ConfigError
from flowsr_jax.data.sources.cache import Cache
from flowsr_jax.files.images import ImageError, read_rgb
from flowsr_jax.files.listing import Listing, list_images

log = logging.getLogger(__name__)

MIB = 1 << 20
# Files named one by one in the log; all are in `source.skipped`.
SHOWN = 20


class Source(Protocol):
    """What the pipeline needs of a source.

    Attributes:
      fields: what its examples hold: "hr", and where the set has them "lr" and "label".
    """

    fields: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return {"hr": uint8 [H,W,3]}, and where the set has them "lr" and "label".

        "lr": uint8 [h,w,3], used as it is; HR is scale times as large, or less than `scale`
        pixels larger than that (what is over is cut off).  "label": an int.
        """

    def name(self, index: int) -> str:
        """Return a short name of the image, for logs and tables."""


class FileSource:
    """Image files, decoded on demand, with a cache that is bounded in bytes.

    Every file is decoded once at construction, so that one that is damaged, no image or
    too small is found before training.  Those are logged and listed in `skipped`.

    Args:
      files: the files; `names`: what to call them.
      min_size: least height and width of an image, in pixels.
      cache_mib: decoded images kept in memory (the least recently used go first).
      where: what the files are, for messages.
      check: False decodes nothing now.
      left_out: [(name, kind)] of files beside them that are no images, to be reported too.

    Attributes:
      files: the usable files.
      sizes: their (height, width); empty without `check`.
      skipped: [(name, reason)] of the files that cannot be used.

    Raises:
      ConfigError: there is no usable image.
    """

    fields = ("hr",)

    def __init__(
        self,
        files: Sequence[Path],
        names: Sequence[str],
        *,
        min_size: int = 1,
        cache_mib: int = 1024,
        where: str = "the files",
        check: bool = True,
        left_out: Sequence[tuple[str, str]] = (),
    ):
        self._cache = Cache(cache_mib * MIB)
        self._notes: list[tuple[str, str]] = []

        # Threads hold one image each beside the cache; decoding runs outside Python's lock.
        with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
            found = list(pool.map(lambda file: self._examine(file, min_size, check), files))
        self.skipped = [(n, f) for n, f in zip(names, found, strict=True) if isinstance(f, str)]
        self.skipped += [(name, f"not an image file ({kind})") for name, kind in left_out]
        self.skipped.sort()
        total = len(files) + len(left_out)
        good = [i for i, f in enumerate(found) if not isinstance(f, str)]
        self.sizes = tuple(found[i] for i in good) if check else ()
        self.files, self._names = (tuple(seq[i] for i in good) for seq in (files, names))
        _report(self.skipped, total, where)
        known = dict(zip(files, names, strict=True))
        for file, note in sorted(self._notes)[:SHOWN]:
            log.warning("%s: %s", known[file], note)
        if not good:
            first = f" (the first: {': '.join(self.skipped[0])})" if self.skipped else ""
            raise ConfigError(
                f"no usable image in {where}: {total} files found, "
                f"{len(self.skipped)} skipped{first}"
            )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {"hr": self.read(self.files[index])}

    def name(self, index: int) -> str:
        """Return what the image is called."""
        return self._names[index]

    def read(self, file: Path) -> np.ndarray:
        """Return the pixels of a file, uint8 [H,W,3], from the cache if they are there."""
        return self._cache.get(file, lambda: {"hr": read_rgb(file)})["hr"]

    def _examine(self, file: Path, min_size: int, check: bool) -> tuple[int, ...] | str:
        """Return (height, width), () without `check`, or why the file cannot be used."""
        if not check:
            return ()
        say = functools.partial(self._note, file)
        try:
            found = self._cache.get(file, lambda: {"hr": read_rgb(file, say=say)})
            height, width = found["hr"].shape[:2]
        except ImageError as error:
            return str(error).removeprefix(f"{file}: ")
        if min(height, width) < min_size:
            return f"too small: {width}x{height} pixels, at least {min_size}x{min_size} are needed"
        return height, width

    def _note(self, file: Path, text: str) -> None:
        self._notes.append((file, text))


class FolderSource(FileSource):
    """The images of a folder and its sub-folders, sorted by path and named by it.

    Args:
      folder: where to look; hidden files and folders are passed over.
      min_size, cache_mib, check: as in `FileSource`, which also checks and skips.

    Raises:
      ConfigError: no such folder, or no usable image in it.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        min_size: int = 1,
        *,
        cache_mib: int = 1024,
        check: bool = True,
    ):
        found = list_folder(folder)
        super().__init__(
            found.files,
            found.names,
            min_size=min_size,
            cache_mib=cache_mib,
            where=str(found.root.absolute()),
            check=check,
            left_out=found.left_out,
        )


def list_folder(root: str | os.PathLike) -> Listing:
    """Return `files.listing.list_images` of a folder.

    Raises:
      ConfigError: no such folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise ConfigError(f"{root} is not a folder of images (looked in {root.absolute()})")
    return list_images(root)


def _report(skipped: Sequence[tuple[str, str]], total: int, where: str) -> None:
    for name, reason in skipped[:SHOWN]:
        log.warning("skipped %s: %s", name, reason)
    if skipped:
        more = f" (the first {SHOWN} are named above)" if len(skipped) > SHOWN else ""
        log.warning("skipped %d of %d files in %s%s", len(skipped), total, where, more)


# Imported last, because these modules import the classes above.
from flowsr_jax.data.sources.embedded import EmbeddedSource  # noqa: E402
from flowsr_jax.data.sources.make import make_source  # noqa: E402

__all__ = ["EmbeddedSource", "FileSource", "FolderSource", "Source", "list_folder", "make_source"]
