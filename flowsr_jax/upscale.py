"""Files in, files out: super-resolve an image or a folder of images.

One compilation serves many sizes: an LR image is reflected at the bottom and right up
to a multiple of BUCKET, and the result is cropped.  Each image has its own key, made
of the seed and its relative name, so a result does not depend on what else is there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np

from flowsr_jax import api
from flowsr_jax.io.images import ImageError, list_images, read_rgb, write_png
from flowsr_jax.metrics import to_uint8
from flowsr_jax.models import Params, family_of
from flowsr_jax.models.inputs import check_temperature

BUCKET = 32  # LR sides are padded to multiples of it
MAX_LR_PIXELS = 1_500_000  # of one padded LR, and of all samples drawn in one call
REDRAWS = 3
FRESH = 1 << 30  # key offset of redraws, beyond any sample's number


class UsageError(ValueError):
    """A request that cannot be carried out at all; one line."""


class SampleError(ValueError):
    """An image that could not be drawn; one line."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One input file, its name relative to the input folder, and its output files."""

    source: Path
    name: str
    outputs: tuple[Path, ...]


@dataclasses.dataclass(frozen=True)
class Summary:
    """What became of the input files (counts)."""

    written: int
    skipped: int
    failed: int


def upscale_files(
    params: Params,
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    num_samples: int = 1,
    temperature: float | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Summary:
    """Super-resolve an image file, or all images of a folder and its sub-folders.

    Writes OUT/NAME.png, or OUT/NAME_0.png, NAME_1.png, ... for several samples; the
    sub-folders are mirrored.  A file that cannot be read or drawn is reported, and the
    rest goes on.  Transparent parts are laid over white.

    Args:
      params: model parameters.
      source: image file or folder.
      out: output folder, made when missing.
      num_samples: samples per image, at least 1.
      temperature: as `flowsr_jax.sample`; None is the model's default.
      seed: 0 <= seed < 2**32.
      overwrite: also draw images whose outputs exist; otherwise they are skipped.

    Returns:
      the counts of written, skipped and failed input files.

    Raises:
      UsageError: nothing was done: a bad argument, no images, two inputs with one
        output, an output that is an input, or a folder that cannot be written to.
    """
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise UsageError(f"seed = {seed!r} must be a whole number from 0 to 2**32 - 1")
    if not isinstance(num_samples, int) or num_samples < 1:
        raise UsageError(f"num_samples = {num_samples!r} must be a whole number, at least 1")
    try:
        check_temperature(temperature)
        jobs = plan(Path(source), Path(out), num_samples)
        _require_writable(Path(out))
    except ValueError as error:
        raise UsageError(str(error)) from None
    counts = {"written": 0, "skipped": 0, "failed": 0}
    with _progress(len(jobs)) as (say, advance):
        for job in jobs:
            more = f" and {len(job.outputs) - 1} more" if len(job.outputs) > 1 else ""
            outcome, text = "written", f"{job.outputs[0]}{more}"
            if not overwrite and all(path.exists() for path in job.outputs):
                outcome, text = "skipped", "the output exists (--overwrite draws it again)"
            else:
                try:
                    _run(params, job, temperature, seed, say)
                except (ImageError, SampleError) as error:
                    outcome, text = "failed", str(error)
                except Exception as error:  # out of memory, disk full: the batch goes on
                    outcome, text = "failed", f"{type(error).__name__}: {error}"
            counts[outcome] += 1
            # Messages of readers begin with the path already.
            say(f"{job.name}: {outcome}: {text}", outcome == "failed")
            advance(outcome == "written")
    return Summary(**counts)


def plan(source: Path, out: Path, num_samples: int = 1) -> list[Job]:
    """Return one job per image of `source`; see `upscale_files` for the output names.

    Raises:
      ImageError: there is no such file or folder.
      UsageError: no images, or outputs that collide.
    """
    files = list_images(source)
    root = source if source.is_dir() else source.parent
    if source.is_dir():
        if out.resolve() == source.resolve():
            raise UsageError(f"{out}: the output folder must not be the input folder")
        # Results of an earlier run inside the input folder are no inputs.
        files = [f for f in files if not f.resolve().is_relative_to(out.resolve())]
    if not files:
        raise UsageError(f"{source}: no images found")
    inputs = {file.resolve() for file in files}
    jobs, owner = [], {}
    for file in files:
        name = file.relative_to(root)
        tails = [".png"] if num_samples == 1 else [f"_{i}.png" for i in range(num_samples)]
        outputs = tuple(out / name.parent / (name.stem + tail) for tail in tails)
        for path in outputs:
            if path in owner:
                raise UsageError(f"{owner[path]} and {name} would both be written to {path}")
            if path.resolve() in inputs:
                raise UsageError(f"{path}: the output would overwrite an input")
            owner[path] = name
        jobs.append(Job(file, name.as_posix(), outputs))
    return jobs


def upscale_image(
    params: Params,
    rgb: np.ndarray,
    key: jax.Array,
    *,
    num_samples: int = 1,
    temperature: float | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> np.ndarray:
    """Super-resolve one 8-bit image of any size.

    Samples with non-finite pixels are drawn again with another key, REDRAWS times.

    Args:
      params: model parameters.
      rgb: uint8 [h,w,3].
      key: PRNG key.
      num_samples, temperature: as `upscale_files`.
      say: receives a line whenever samples are drawn again.

    Returns:
      uint8 [num_samples, s*h, s*w, 3], clipped and rounded.

    Raises:
      SampleError: an image too large, or pixels that stay non-finite.
    """
    height, width = rgb.shape[:2]
    step = math.lcm(family_of(params).multiple(params.config), BUCKET)
    ph, pw = (-(-side // step) * step for side in (height, width))
    if ph * pw > MAX_LR_PIXELS:
        raise SampleError(
            f"{width}x{height} pixels are too large (limit {MAX_LR_PIXELS / 1e6:g} megapixels); "
            "cut it into parts"
        )
    lr = np.pad(rgb, ((0, ph - height), (0, pw - width), (0, 0)), mode="reflect")
    lr = lr[None].astype(np.float32) / 255

    def draw(key):
        # All samples at once share the work on the LR; if that is too much, one by one.
        together = num_samples * ph * pw <= MAX_LR_PIXELS
        parts = []
        for i in range(1 if together else num_samples):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", api.NonFiniteWarning)  # counted below
                part = api.sample(
                    params,
                    lr,
                    jax.random.fold_in(key, i),
                    temperature=temperature,
                    num_samples=num_samples if together else 1,
                )
            part = np.asarray(part)
            part = part.reshape(-1, *part.shape[-3:])
            scale = part.shape[1] // ph
            parts.append(part[:, : scale * height, : scale * width])
        return np.concatenate(parts)

    out = draw(key)
    for attempt in range(REDRAWS + 1):
        wrong = ~np.isfinite(out)
        bad = wrong.any(axis=(1, 2, 3))
        if not bad.any():
            return to_uint8(out)
        count = f"{wrong.any(axis=-1).sum()} non-finite pixels in {bad.sum()} of {len(bad)} samples"
        if attempt < REDRAWS:
            say(f"{count}; drawing again ({attempt + 1} of {REDRAWS})")
            out = np.where(
                bad[:, None, None, None], draw(jax.random.fold_in(key, FRESH + attempt)), out
            )
    raise SampleError(f"{count} after {REDRAWS} further draws; try a lower temperature")


def _run(params, job, temperature, seed, say) -> None:
    rgb = read_rgb(job.source)
    digest = hashlib.sha256(os.fsencode(job.name)).digest()
    key = jax.random.fold_in(jax.random.key(seed), int.from_bytes(digest[:4], "little"))
    images = upscale_image(
        params,
        rgb,
        key,
        num_samples=len(job.outputs),
        temperature=temperature,
        say=lambda text: say(f"{job.name}: {text}", True),
    )
    job.outputs[0].parent.mkdir(parents=True, exist_ok=True)
    for path, image in zip(job.outputs, images, strict=True):
        write_png(path, image)


def _require_writable(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise UsageError(f"{out}: cannot be written to ({error.strerror})") from None


@contextlib.contextmanager
def _progress(total: int) -> Iterator[tuple[Callable, Callable]]:
    """Yield (say, advance): a live bar on a terminal, plain lines elsewhere."""
    start = time.monotonic()
    done = written = 0

    def count(wrote):
        nonlocal done, written
        done += 1
        written += wrote

    def rate():
        return f"{written / max(time.monotonic() - start, 1e-9):.2f} images/s"

    if not sys.stdout.isatty():

        def say(text, problem=False):
            line = f"[{done + 1}/{total}] {_one_line(text)}"
            print(line, file=sys.stderr if problem else sys.stdout, flush=True)

        yield say, count
        print(f"{total} images, {rate()} written", flush=True)
        return

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with Progress(*columns) as bar:
        task = bar.add_task("", total=total, rate="")

        def say(text, problem=False):
            if problem:  # what went well is on the bar
                bar.console.print(_one_line(text), markup=False, highlight=False)

        def advance(wrote):
            count(wrote)
            bar.update(task, advance=1, rate=rate())

        yield say, advance


def _one_line(text: str) -> str:
    """Escape line breaks and control characters (file names may hold anything)."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
