"""Sources: random-access sequences of HR images.

A source has `len(source)`, `source[i] -> {"hr": uint8 [H,W,3]}` and `source.name(i)`.
All can be pickled into worker processes; they carry file names, not pixels.
"""

from __future__ import annotations

import collections
import importlib.util
import logging
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from flowsr_jax.config import ConfigError, choice
from flowsr_jax.data.config import DataConfig
from flowsr_jax.io.images import SUFFIXES, ImageError, read_rgb

log = logging.getLogger(__name__)

SPLITS = ("train", "valid")
MIB = 1 << 20
# Files named one by one in the log; all are in `source.skipped`.
SHOWN = 20

# Photographs inside the wheels of scikit-image and scikit-learn.  Microscopy and other
# medical pictures there are left out: they are no help to photographs.
SKIMAGE, SKLEARN = ("skimage", "data"), ("sklearn", "datasets", "images")
PHOTOGRAPHS = {
    "valid": ((SKIMAGE, "coffee.png"), (SKIMAGE, "chelsea.png"), (SKLEARN, "flower.jpg")),
    "train": (
        (SKIMAGE, "astronaut.png"),
        (SKIMAGE, "rocket.jpg"),
        (SKIMAGE, "hubble_deep_field.jpg"),
        (SKLEARN, "china.jpg"),
        (SKIMAGE, "motorcycle_left.png"),
        (SKIMAGE, "motorcycle_right.png"),
    ),
}
TEXTURES = tuple(
    (SKIMAGE, f"{name}.png") for name in ("brick", "grass", "gravel", "camera", "moon", "coins")
)


class Source(Protocol):
    """What the pipeline needs of a source."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Return {"hr": uint8 [H,W,3]}."""

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

    Attributes:
      skipped: [(name, reason)] of the files that cannot be used.

    Raises:
      ConfigError: there is no usable image.
    """

    def __init__(
        self,
        files: Sequence[Path],
        names: Sequence[str],
        *,
        min_size: int = 1,
        cache_mib: int = 1024,
        where: str = "the files",
    ):
        self._limit = cache_mib * MIB
        self._clear()
        # Threads hold one image each beside the cache; decoding runs outside Python's lock.
        with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
            faults = list(pool.map(lambda file: self._fault(file, min_size), files))
        self.skipped = [(n, fault) for n, fault in zip(names, faults, strict=True) if fault]
        good = [i for i, fault in enumerate(faults) if not fault]
        self._files, self._names = (tuple(seq[i] for i in good) for seq in (files, names))
        _report(self.skipped, len(files), where)
        if not good:
            first = f" (the first: {': '.join(self.skipped[0])})" if self.skipped else ""
            raise ConfigError(
                f"no usable image in {where}: {len(files)} files found, "
                f"{len(self.skipped)} skipped{first}"
            )

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {"hr": self._read(self._files[index])}

    def name(self, index: int) -> str:
        """Return what the image is called."""
        return self._names[index]

    def __getstate__(self) -> dict[str, Any]:
        dropped = ("_cache", "_bytes", "_lock")
        return {k: v for k, v in self.__dict__.items() if k not in dropped}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._clear()

    def _clear(self) -> None:
        self._cache: collections.OrderedDict[Path, np.ndarray] = collections.OrderedDict()
        self._bytes, self._lock = 0, threading.Lock()

    def _read(self, file: Path) -> np.ndarray:
        with self._lock:
            if file in self._cache:
                self._cache.move_to_end(file)
                return self._cache[file]
        image = read_rgb(file)
        image.flags.writeable = False  # it is shared
        with self._lock:
            if file not in self._cache and image.nbytes <= self._limit:
                self._cache[file] = image
                self._bytes += image.nbytes
            while self._bytes > self._limit:
                self._bytes -= self._cache.popitem(last=False)[1].nbytes
        return image

    def _fault(self, file: Path, min_size: int) -> str | None:
        if not file.name.lower().endswith(SUFFIXES):
            return f"not an image file ({file.suffix or 'no suffix'})"
        try:
            height, width = self._read(file).shape[:2]
        except ImageError as error:
            return str(error).removeprefix(f"{file}: ")
        if min(height, width) < min_size:
            return f"too small: {width}x{height} pixels, at least {min_size}x{min_size} are needed"
        return None


class FolderSource(FileSource):
    """The images of a folder and its sub-folders, sorted by path and named by it.

    Args:
      folder: where to look; hidden files and folders are passed over.
      min_size, cache_mib: as in `FileSource`, which also checks and skips.

    Raises:
      ConfigError: no such folder, or no usable image in it.
    """

    def __init__(self, folder: str | os.PathLike, min_size: int = 1, *, cache_mib: int = 1024):
        root = Path(folder)
        if not root.is_dir():
            raise ConfigError(f"{root} is not a folder of images (looked in {root.absolute()})")
        files = _walk(root)
        super().__init__(
            files,
            [file.relative_to(root).as_posix() for file in files],
            min_size=min_size,
            cache_mib=cache_mib,
            where=str(root.absolute()),
        )


class EmbeddedSource(FileSource):
    """Photographs that come with scikit-image and scikit-learn, with a fixed split.

    Args:
      split: "train" (6 photographs) or "valid" (coffee, chelsea, flower).
      min_size: as in `FileSource`.
      textures: add 6 grey pictures to the training split.

    Raises:
      ConfigError: another split, a package that is not installed, or no image so large.
    """

    def __init__(self, split: str, min_size: int = 1, *, textures: bool = False):
        entries = PHOTOGRAPHS[choice("split", split, SPLITS)]
        if textures and split == "train":
            entries += TEXTURES
        files = [_packaged(*entry) for entry in entries]
        names = [file.stem for file in files]
        super().__init__(files, names, min_size=min_size, where=f"the embedded {split} images")


def make_source(config: DataConfig, split: str) -> Source:
    """Open the images of a split.

    Args:
      config: says where the images are; training images must hold a patch, validation
        images one LR pixel.
      split: "train" or "valid".

    Raises:
      ConfigError: another split, or a source without a usable image.
    """
    train = choice("split", split, SPLITS) == "train"
    min_size = config.patch_size if train else config.scale
    folder = config.train_dir if train else config.valid_dir
    if folder:
        return FolderSource(folder, min_size, cache_mib=config.cache_mib)
    return EmbeddedSource(split, min_size, textures=config.textures)


def _walk(root: Path) -> list[Path]:
    found, seen = [], set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        subfolders[:] = [] if real in seen else [s for s in subfolders if not s.startswith(".")]
        if real not in seen:  # links may lead in circles
            found += [Path(folder, name) for name in names if not name.startswith(".")]
        seen.add(real)
    return sorted(found)


def _report(skipped: Sequence[tuple[str, str]], total: int, where: str) -> None:
    for name, reason in skipped[:SHOWN]:
        log.warning("skipped %s: %s", name, reason)
    if skipped:
        more = f" (the first {SHOWN} are named above)" if len(skipped) > SHOWN else ""
        log.warning("skipped %d of %d files in %s%s", len(skipped), total, where, more)


def _packaged(package: Sequence[str], name: str) -> Path:
    # Found without importing the package, which would take seconds.
    spec = importlib.util.find_spec(package[0])
    file = Path(spec.origin).parent.joinpath(*package[1:], name) if spec and spec.origin else None
    if file is None or not file.is_file():
        raise ConfigError(
            f"{name} comes with {package[0]}, which does not hold it here; "
            "pip install scikit-image scikit-learn"
        )
    return file
