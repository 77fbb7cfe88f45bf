"""Which files belong together: HR images with their LR images and their results."""

from __future__ import annotations

import collections
import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flowsr_jax.data.transforms import whole_cells
from flowsr_jax.evaluation.protocols import Protocol, resize
from flowsr_jax.files.images import ImageError, read_rgb
from flowsr_jax.files.listing import list_images

EMBEDDED = "embedded"
SHOWN = 3  # names listed in a message
# Endings that tell the versions of one image apart: 0801x4, img_SRF_4_LR, face_hr.
TAG = re.compile(r"(_?x\d+[a-z]?|(_SRF_\d+)?_(HR|LR|SR|GT))$", re.IGNORECASE)
SAMPLE = re.compile(r"_(?:sample)?(\d+)$")


class EvaluationError(ValueError):
    """An evaluation that cannot be carried out at all; one line."""


class PairError(ValueError):
    """An image that cannot be measured; one line."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One image to measure.

    Attributes:
      name: relative to the HR folder.
      read_hr: returns uint8 [H,W,3]; tells `say=` what of a file is left out.
      lr: the LR file, or None to make the LR image from HR.
      results: files of the samples, when files are evaluated.
      fault: why the image cannot be measured, or "".
    """

    name: str
    read_hr: Callable[[], np.ndarray]
    lr: Path | None = None
    results: tuple[Path, ...] = ()
    fault: str = ""


def find_cases(
    hr, lr=None, results=None, limit: int = 0, *, out: Path | None = None
) -> tuple[list[Case], list[str]]:
    """Find the images and pair their files by name.

    A folder's own images count; those of its sub-folders only where it has none itself.
    An LR or result file pairs with the HR file of the same name, before or after endings
    such as x4, _LR and _HR are taken off both.  Results NAME_0, NAME_1, ... or
    NAME_sample00000, ... are samples of NAME.

    Args:
      hr: folder or file, "embedded" for the validation photographs of the package, or a
        source (len, [i] -> {"hr"}, name).
      lr, results: folder or file each, or None.
      limit: the first so many images only; 0 takes all.
      out: a folder whose images are not meant (the sheets of an earlier evaluation).

    Returns:
      (cases, notes): notes are lines about files that are left out.

    Raises:
      EvaluationError: no images, or folders that do not pair at all.
    """
    if hr == EMBEDDED and not Path(hr).exists():
        from flowsr_jax.data.sources import EmbeddedSource

        hr = EmbeddedSource("valid")
    if isinstance(hr, (str, Path)):
        root, files, note = _images(hr, out)
        notes = [f"HR: {note}"] if note else []
        names = [file.relative_to(root).as_posix() for file in files]
        readers = [functools.partial(read_rgb, file) for file in files]
    else:
        notes = []
        names = [hr.name(i) for i in range(len(hr))]
        readers = [functools.partial(_from_source, hr, i) for i in range(len(hr))]
    if not names:
        raise EvaluationError(f"{hr}: no images found")
    groups: dict[str, list] = {}
    for kind, folder in (("LR", lr), ("result", results)):
        if folder is not None:
            groups[kind], more = _pair(names, folder, kind, out)
            notes += more
    cases = [
        _case(name, readers[i], {kind: found[i] for kind, found in groups.items()})
        for i, name in enumerate(names)
    ]
    return cases[:limit] if limit else cases, notes


def load_pair(
    case: Case, scale: int, protocol: Protocol, say: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Read a case: HR cut to `scale` times LR, at the bottom and right.

    Args:
      case, scale, protocol: of which image, measured how.
      say: is told what of the files is left out.

    Returns:
      {"name": str, "hr": uint8 [s*h,s*w,3], "lr": uint8 [h,w,3]}.

    Raises:
      PairError, ImageError: files that cannot be read or do not fit each other.
    """
    if case.fault:
        raise PairError(case.fault)
    hr = np.asarray(case.read_hr(say=say))
    if case.lr is None:
        if min(hr.shape[:2]) < scale:
            raise PairError(f"{_size(hr)} pixels are less than one LR pixel at scale {scale}")
        hr = whole_cells(hr, scale)
        return {"name": case.name, "hr": hr, "lr": resize(hr, 1 / scale, protocol.resize)}
    lr = read_rgb(case.lr, say=say)
    height, width = (scale * n for n in lr.shape[:2])
    if not (0 <= hr.shape[0] - height < scale and 0 <= hr.shape[1] - width < scale):
        raise PairError(f"HR of {_size(hr)} and LR of {_size(lr)} pixels are no x{scale} pair")
    return {"name": case.name, "hr": hr[:height, :width], "lr": lr}


def load_results(
    case: Case,
    pair: Mapping[str, Any],
    scale: int,
    protocol: Protocol,
    say: Callable[[str], None] = lambda text: None,
) -> list[np.ndarray]:
    """Read the result files of a case, cut to the size of HR at the bottom and right.

    A result may be larger by what is left of HR when it is cut to whole LR pixels, or to the
    protocol's multiple.

    Args:
      case, pair, scale, protocol: of which image, measured how.
      say: is told when something is cut.

    Raises:
      PairError, ImageError: files that cannot be read, or are of another size.
    """
    height, width = pair["hr"].shape[:2]
    surplus = max(scale, protocol.hr_multiple) - 1
    least = [n // protocol.hr_multiple * protocol.hr_multiple for n in (height, width)]
    found = []
    for file in case.results:
        image = read_rgb(file, say=say)
        over = image.shape[0] - height, image.shape[1] - width
        if image.shape[0] < least[0] or image.shape[1] < least[1] or max(over) > surplus:
            raise PairError(
                f"{file}: {_size(image)} pixels, HR has {_size(pair['hr'])}; a result is at most "
                f"{surplus} pixels larger"
            )
        if max(over) > 0:
            say(f"{file.name}: {_size(image)} pixels are cut to {_size(pair['hr'])}")
        found.append(image[:height, :width])
    return found


def _images(path, out: Path | None) -> tuple[Path, list[Path], str]:
    """Return (root, files, note): the folder's own images, else those of its sub-folders."""
    path = Path(path)
    try:
        listing = list_images(path)
    except ImageError as error:
        raise EvaluationError(str(error)) from None
    root, files = listing.root, listing.files
    if out is not None and path.is_dir():
        files = [file for file in files if not file.resolve().is_relative_to(out.resolve())]
    own = [file for file in files if file.parent == root]
    if not files:
        raise EvaluationError(f"{path}: no images found" + _because(listing.note()))
    return root, own or files, listing.note()


def _pair(names: Sequence[str], folder, kind: str, out: Path | None):
    """Return ([(sample number, file), ...] for each name, notes on files of none)."""
    root, files, note = _images(folder, out)
    if len(names) == 1 and Path(folder).is_file():
        return [[(0, files[0])]], []
    keys = [_key(name) for name in names]
    bare = collections.Counter(map(_bare, keys))
    owner = {_bare(key): i for i, key in enumerate(keys) if bare[_bare(key)] == 1}
    owner |= {key: i for i, key in enumerate(keys)}
    places = {file: _key(file.relative_to(root).as_posix()) for file in files}
    notes = [f"{kind}: {note}"] if note else []
    if kind == "result" and not any(_locate(key, owner, kind) for key in places.values()):
        numbers = sorted({SAMPLE.sub("", key) for key in places.values()})
        if len(numbers) == len(names) and all(n.isdigit() for n in numbers):
            # The NTIRE challenge numbers results from 0, its HR images from 801.
            owner = {number: i for i, number in enumerate(numbers)}
            notes.append(f"results are numbered and paired in order: {names[0]} is {numbers[0]}")
    found: list[list[tuple[int, Path]]] = [[] for _ in names]
    strange = []
    for file, key in places.items():
        place = _locate(key, owner, kind)
        if place:
            found[place[0]].append((place[1], file))
        else:
            strange.append(file.name)
    if len(strange) == len(files):
        hint = "the same, or with an ending such as x4 or _LR" + " or _0" * (kind == "result")
        raise EvaluationError(
            f"{folder}: none of its {len(files)} files ({_few(strange)}) pairs with the "
            f"{len(names)} HR images ({_few(names)}); names must be {hint}"
        )
    if strange:
        notes.append(f"{len(strange)} {kind} files of no HR image are left out: {_few(strange)}")
    return [sorted(group) for group in found], notes


def _locate(key: str, owner: Mapping[str, int], kind: str) -> tuple[int, int] | None:
    """Return (index of the HR image, sample number) of a file, or None."""
    options = [(key, 0)]
    match = SAMPLE.search(key)
    if kind == "result" and match:
        options.append((key[: match.start()], int(match[1])))
    for name, number in options:
        index = owner.get(name, owner.get(_bare(name)))
        if index is not None:
            return index, number
    return None


def _case(name: str, read_hr, groups: Mapping[str, Sequence[tuple[int, Path]]]) -> Case:
    fault = ""
    for kind, group in groups.items():
        files = [file for _, file in group]
        if not files:
            fault = f"no {kind} file of that name"
        elif len({number for number, _ in group}) < len(files):
            shown = _few([file.name for file in files])
            fault = f"{len(files)} {kind} files may be meant: {shown}"
    files = {kind: tuple(file for _, file in group) for kind, group in groups.items()}
    lr = files["LR"][0] if files.get("LR") else None
    return Case(name, read_hr, lr, files.get("result", ()), fault)


def _key(name: str) -> str:
    return name[: len(name) - len(Path(name).suffix)]


def _bare(key: str) -> str:
    return TAG.sub("", key)


def _because(note: str) -> str:
    return f" ({note})" if note else ""


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(str(name) for name in names[:SHOWN]) + more


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"


def _from_source(source, index: int, say: Callable[[str], None] | None = None) -> np.ndarray:
    del say  # a source has told it
    return source[index]["hr"]
