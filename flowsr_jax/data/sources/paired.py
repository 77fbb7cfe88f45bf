"""Pairs of image files: LR images made by others, found by their names."""

from __future__ import annotations

import collections
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from flowsr_jax.config import ConfigError
from flowsr_jax.data.sources import FileSource, list_folder
from flowsr_jax.data.transforms import fits

# DIV2K and Flickr2K: 0001x4.png, 000001x4.png; realistic LR 0001x4m.png, 0001x4w1.png.
LR_NAME = re.compile(r"(?P<hr>.+)x(?P<scale>\d+)([a-z]\d*)?")
# Files named one by one in an error.
SHOWN = 5


class PairedSource:
    """HR images of one folder with the LR images of another.

    Names decide what belongs together, see `pair_names`.  Every file is decoded once, and
    damaged or small ones are skipped with their partners, as in `FolderSource`.

    Args:
      hr_folder, lr_folder: searched with their sub-folders.
      scale: HR size over LR size.
      min_size: least height and width of the HR images, in pixels.
      cache_mib: decoded images kept in memory.
      check: False decodes nothing now.

    Attributes:
      files: the usable files of both sides.
      skipped: [(name, reason)] of the files that cannot be used.

    Raises:
      ConfigError: no such folder, files without a partner (the first few are listed),
        sizes that do not fit, or no usable pair.
    """

    fields = ("hr", "lr")

    def __init__(
        self,
        hr_folder: str | os.PathLike,
        lr_folder: str | os.PathLike,
        scale: int,
        min_size: int = 1,
        *,
        cache_mib: int = 1024,
        check: bool = True,
    ):
        roots = Path(hr_folder), Path(lr_folder)
        where = f"{roots[0].absolute()} (HR) and {roots[1].absolute()} (LR)"
        found = [list_folder(root) for root in roots]
        hr, lr = (side.files for side in found)
        names = [side.names for side in found]
        try:
            pairs = pair_names(*names, scale)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
        self._source = FileSource(
            [*hr, *lr],
            [f"{side.root.name}/{name}" for side in found for name in side.names],
            cache_mib=cache_mib,
            where=where,
            check=check,
            left_out=[
                (f"{side.root.name}/{name}", kind) for side in found for name, kind in side.left_out
            ],
        )
        self.files = self._source.files
        self.skipped = list(self._source.skipped)
        self._pairs = [(hr[i], lr[j], names[1][j]) for i, j in pairs]
        if check:
            self._check_sizes(scale, min_size, where)

    def _check_sizes(self, scale: int, min_size: int, where: str) -> None:
        sizes = dict(zip(self.files, self._source.sizes, strict=True))
        kept, wrong = [], []
        for hr, lr, name in self._pairs:
            if hr not in sizes or lr not in sizes:
                continue
            (height, width), small = sizes[hr], sizes[lr]
            if not fits(sizes[hr], small, scale):
                wrong.append(f"{name} {small[1]}x{small[0]} of {hr.name} {width}x{height}")
            elif min(scale * n for n in small) < min_size:
                reason = f"too small: {width}x{height} HR pixels, {min_size} are needed"
                self.skipped.append((name, reason))
            else:
                kept.append((hr, lr, name))
        if wrong:
            raise ConfigError(
                f"{where}: {len(wrong)} LR images do not have 1/{scale} of the HR size: "
                f"{_first(wrong)}; set data.scale, or the folder of the right scale"
            )
        if not kept:
            raise ConfigError(
                f"no usable pair in {where}: {len(self._pairs)} pairs, {len(self.skipped)} files "
                f"skipped (the first: {': '.join(self.skipped[0])})"
            )
        self._pairs = kept

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        hr, lr, _ = self._pairs[index]
        return {"hr": self._source.read(hr), "lr": self._source.read(lr)}

    def name(self, index: int) -> str:
        """Return the LR file's name: an HR image may have several LR images."""
        return self._pairs[index][2]


def pair_names(hr: Sequence[str], lr: Sequence[str], scale: int) -> list[tuple[int, int]]:
    """Find the HR file of each LR file by its name.

    The names without suffix are equal, or that of the LR file goes on with "x" and the scale
    (0001x4), perhaps with a letter and a number (0001x4m; 0001x4w1 to 0001x4w4 are four LR
    images of one HR image).  Sub-folders count only if two HR files have the same name.

    Args:
      hr, lr: relative paths with "/".
      scale: what a number after the "x" must be.

    Returns:
      [(index into hr, index into lr)], by HR file, then by LR file.

    Raises:
      ConfigError: files of either side without a partner, or names that occur twice.
    """
    whole = len({PurePosixPath(name).stem for name in hr}) < len(hr)
    hr_keys, lr_keys = ([_key(name, whole) for name in names] for names in (hr, lr))
    table = {key: i for i, key in enumerate(hr_keys)}
    for side, keys in (("HR", hr_keys), ("LR", lr_keys)):
        twice = [key for key, count in collections.Counter(keys).items() if count > 1]
        if twice:
            raise ConfigError(f"several {side} files have the same name: {_first(twice)}")
    pairs, lonely = [], []
    for j, key in enumerate(lr_keys):
        match = LR_NAME.fullmatch(key)
        if key in table:
            pairs.append((table[key], j))
        elif match and match["hr"] in table:
            if int(match["scale"]) != scale:
                raise ConfigError(
                    f"{lr[j]} is named as an LR image of scale {match['scale']}, data.scale is "
                    f"{scale}; set it, or the folder of x{scale} images"
                )
            pairs.append((table[match["hr"]], j))
        else:
            lonely.append(lr[j])
    used = {i for i, _ in pairs}
    widows = [name for i, name in enumerate(hr) if i not in used]
    if lonely or widows:
        faults = [f"{len(widows)} HR images have no LR image: {_first(widows)}"] if widows else []
        faults += [f"{len(lonely)} LR images have no HR image: {_first(lonely)}"] if lonely else []
        raise ConfigError(
            f"{'; '.join(faults)} (an LR image has the name of its HR image, or adds x{scale}: "
            f"0001.png and 0001x{scale}.png)"
        )
    return sorted(pairs)


def _key(name: str, whole: bool) -> str:
    path = PurePosixPath(name)
    return path.with_suffix("").as_posix() if whole else path.stem


def _first(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
