"""One way to list images, for all commands and for training: what is left out is counted."""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

from flowsr_jax.files.containers import HEAD, container, readable
from flowsr_jax.files.images import ImageError

# Endings of images: such files are listed unopened.  Others are known by their content.
ENDINGS = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".webp", ".tif", ".tiff", ".bmp",
    ".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".gif", ".avif",
)  # fmt: skip
# Raw photographs are TIFF files that hold no picture but a preview.
RAW = (".dng", ".nef", ".nrw", ".cr2", ".arw", ".srf", ".sr2", ".orf", ".rw2", ".pef", ".srw")
NO_FILE = "pipe or device"
SHOWN = 5  # kinds named in a line


@dataclasses.dataclass(frozen=True)
class Listing:
    """The images of a folder, or a single file.

    Attributes:
      root: the folder that names are relative to.
      names: of the images, sorted, with "/".
      left_out: ((name, kind), ...) of what is no readable image; the kind is the ending, or
        `NO_FILE`.
      folder: whether a folder was listed, or a single file.
    """

    root: Path
    names: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    folder: bool = True

    @property
    def path(self) -> Path:
        """What was listed."""
        return self.root if self.folder else self.root / self.names[0]

    @property
    def files(self) -> list[Path]:
        """The paths of the images."""
        return [self.root / name for name in self.names]

    def note(self) -> str:
        """Return a line that counts what is left out by kind, or "" if nothing is."""
        if not self.left_out:
            return ""
        kinds = collections.Counter(kind for _, kind in self.left_out).most_common()
        named = [f"{kind} ({count})" for kind, count in kinds[:SHOWN]]
        if len(kinds) > SHOWN:
            named.append(f"and {len(kinds) - SHOWN} more kinds")
        count = len(self.left_out)
        what = "1 file of another kind" if count == 1 else f"{count} files of other kinds"
        return f"{what} left out: {', '.join(named)}"


def list_images(path: str | os.PathLike) -> Listing:
    """List the images of a folder and its sub-folders; a file lists itself.

    A file counts by its ending, or if that is unknown by its content.  Linked folders are
    followed, each real folder once, under its own path if it lies inside.  Hidden files and
    folders are passed over.  A link that leads nowhere is listed, for the reader to name.

    Raises:
      ImageError: there is no such file or folder, or it is a pipe or a device.
    """
    path = Path(path)
    if not path.exists():
        raise ImageError(f"{path}: no such file or folder")
    if not path.is_dir():
        if not path.is_file():
            raise ImageError(f"{path}: is a {NO_FILE}, not an image file")
        return Listing(path.parent, (path.name,), folder=False)
    names, left_out = [], []
    for entry, name in _entries(os.fspath(path)):
        kind = _kind(entry)
        if kind is None:
            names.append(name)
        else:
            left_out.append((name, kind))
    names.sort(key=_parts)
    left_out.sort(key=lambda pair: _parts(pair[0]))
    return Listing(path, tuple(names), tuple(left_out))


def _entries(root: str) -> Iterator[tuple[os.DirEntry, str]]:
    """Yield what is no folder below a folder, and its name with "/"."""
    seen: set[tuple[int, int]] = set()
    waiting, links = collections.deque([(root, "")]), collections.deque()
    while waiting or links:  # links last: a folder counts under its own path
        folder, prefix = (waiting or links).popleft()
        about = os.stat(folder)
        if (about.st_dev, about.st_ino) in seen:  # links may lead in circles
            continue
        seen.add((about.st_dev, about.st_ino))
        with os.scandir(folder) as found:
            for entry in sorted(found, key=lambda e: e.name):
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    queue = links if entry.is_symlink() else waiting
                    queue.append((entry.path, f"{prefix}{entry.name}/"))
                else:
                    yield entry, prefix + entry.name


def _kind(entry: os.DirEntry) -> str | None:
    """Return None for an image, else what kind of file this is."""
    ending = os.path.splitext(entry.name)[1].lower()
    if not entry.is_file():
        leads_nowhere = entry.is_symlink() and not os.path.exists(entry.path)
        return None if leads_nowhere and ending in ENDINGS else NO_FILE
    if ending in ENDINGS:
        return None
    if ending not in RAW:
        try:
            with open(entry.path, "rb") as file:
                if readable(container(file.read(HEAD))):
                    return None
        except OSError:
            pass
    return ending or "no ending"


def _parts(path: str) -> list[str]:
    return path.split("/")
