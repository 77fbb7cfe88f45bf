"""What the edits of files share: one edit, its results and a picture sheet."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from flowsr_jax import memory
from flowsr_jax.console import Progress, Summary, UsageError, check_seed, progress
from flowsr_jax.drawing import SampleError, image_key
from flowsr_jax.files.atomic import require_writable
from flowsr_jax.files.heat_map import heat_map
from flowsr_jax.files.images import read_rgb, write_png
from flowsr_jax.files.sheet import write_sheet
from flowsr_jax.models.inputs import check_temperature

SHEET = 256  # largest side of a picture on a sheet, HR pixels
HEAT_TOP = 25.0  # grey levels of the brightest colour of a difference


@dataclasses.dataclass(frozen=True)
class Result:
    """What an edit made.

    Attributes:
      images: {ending of the file's name: uint8 [H,W,3]}.
      columns: [(caption, uint8 [H,W,3])] of the sheet.
      notes: what to report.
      focus: bool [H,W]; the sheet shows the surroundings of where it is True.
    """

    images: Mapping[str, np.ndarray]
    columns: Sequence[tuple[str, np.ndarray]]
    notes: Sequence[str] = ()
    focus: np.ndarray | None = None


def edit_file(
    command: str,
    source: str | os.PathLike,
    out: str | os.PathLike,
    work: Callable[[jax.Array, Callable[[str], None]], Result],
    *,
    endings: Sequence[str] = ("",),
    inputs: Sequence[str | os.PathLike | None] = (),
    seed: int = 0,
    temperature: float | None = None,
    overwrite: bool = False,
) -> Summary:
    """Do one edit: OUT/NAME_COMMAND.png, further endings, and NAME_COMMAND_sheet.png.

    Args:
      command: the sub-command's name.
      source: the file that gives NAME, and with the seed the key.
      out: output folder, made when missing.
      work: (key, warn) -> result; may raise UsageError, ImageError (nothing is done) and
        SampleError (the edit failed).
      endings: the keys of the result's images, known beforehand.
      inputs: the other input files, not to be overwritten.
      seed: 0 <= seed < 2**32.
      temperature: checked here.
      overwrite: also when all outputs exist; otherwise the edit is skipped.

    Returns:
      the counts, of one edit.

    Raises:
      UsageError, ImageError, ValueError, OSError: nothing was done.
    """
    check_seed(seed)
    check_temperature(temperature)
    source, out = Path(source), Path(out)
    base = out / f"{source.stem}_{command}"
    files = {end: base.with_name(f"{base.name}{end}.png") for end in (*endings, "_sheet")}
    taken = {Path(path).resolve() for path in (source, *inputs) if path is not None}
    for path in files.values():
        if path.resolve() in taken:
            raise UsageError(f"{path}: the output would overwrite an input")
    require_writable(out)
    with progress(1) as shown:
        if not overwrite and all(path.exists() for path in files.values()):
            outcome, text = "skipped", "the output exists (--overwrite makes it again)"
        else:
            outcome, text = _attempt(source.name, files, work, image_key(seed, source.name), shown)
        shown.finish(f"{source.name}: {outcome}: {text}", outcome == "failed")
    return Summary(**{"written": 0, "skipped": 0, "failed": 0, outcome: 1})


def _attempt(name: str, files: Mapping[str, Path], work, key, shown: Progress) -> tuple[str, str]:
    try:
        result = work(key, lambda text: shown.say(f"{name}: {text}", True))
    except SampleError as error:
        return "failed", str(error)
    except Exception as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return "failed", "out of memory; edits are made in one piece, take a smaller image"
    for end, image in result.images.items():
        write_png(files[end], image)
    window = _window(result)
    write_sheet(
        str(files["_sheet"]), [(name, [(text, _shown(x, window)) for text, x in result.columns])]
    )
    text = str(next(iter(files.values())))
    if len(files) > 2:
        text += f" and {len(files) - 2} more"
    return "written", text + "".join(f"; {note}" for note in result.notes)


def require_room(name: str, count: int, source: str | os.PathLike, factor: int = 1) -> None:
    """Raise ValueError unless `count` float images fit in memory.

    Args:
      name: the argument that is the count.
      source: the image file whose size theirs is `factor` times.
    """
    height, width = read_rgb(source).shape[:2]
    size = 12 * count * height * width * factor**2
    memory.require(name, count, size, count=count, host=True)


def difference(a: np.ndarray, b: np.ndarray) -> tuple[str, np.ndarray]:
    """Return the column of |a - b|: mean over the channels, black 0 to pale yellow 25 levels."""
    size = np.abs(a.astype(np.float32) - b).mean(axis=-1)
    return f"difference, 0 to {HEAT_TOP:g}", heat_map(size, HEAT_TOP)


def mask_column(mask: np.ndarray) -> tuple[str, np.ndarray]:
    """Return the column of a mask [H,W]."""
    return "mask", np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * 255


def _window(result: Result) -> tuple[slice, slice]:
    """Return the part that the sheet shows: around the focus, or the centre."""
    size = result.columns[0][1].shape[:2]
    focus = np.ones(size, bool) if result.focus is None else result.focus
    window = []
    for n, hit in zip(size, (focus.any(axis=1), focus.any(axis=0)), strict=True):
        where = np.flatnonzero(hit)
        start = int(where[0] + where[-1] + 1 - SHEET) // 2
        start = max(0, min(start, n - SHEET))
        window.append(slice(start, start + SHEET))
    return tuple(window)


def _shown(image: np.ndarray, window: tuple[slice, slice]) -> np.ndarray:
    part = image[window]
    factor = max(1, SHEET // (2 * max(part.shape[:2])))  # small ones would be hard to see
    return part.repeat(factor, axis=0).repeat(factor, axis=1)
