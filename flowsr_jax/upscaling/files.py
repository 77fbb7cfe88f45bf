"""Files in, files out: super-resolve an image or a folder of images.

Each image has its own key, made of the seed and its relative name, so a result does not
depend on what else is there.  Images are drawn, finished and written in strips: memory
grows with the width of an image and with the number of samples, and beyond the decoded
input not with its height.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flowsr_jax.io.atomic import remove_leftovers
from flowsr_jax.io.heat_map import heat_map
from flowsr_jax.io.images import ImageError, Picture, read_image
from flowsr_jax.io.png_stream import open_png
from flowsr_jax.metrics import to_uint8
from flowsr_jax.models import Params
from flowsr_jax.upscaling.finish import Projector, alpha_rows, grey
from flowsr_jax.upscaling.image import SampleError, image_key, image_strips
from flowsr_jax.upscaling.jobs import Job, UsageError, plan
from flowsr_jax.upscaling.progress import Progress, progress
from flowsr_jax.upscaling.sampler import Sampler

HEAT_TOP = 25.0  # grey levels of 255


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
    scale: int | None = None,
    tile: int | str = "auto",
    back_project: bool = False,
    uncertainty: bool = False,
    overwrite: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Summary:
    """Super-resolve an image file, or all images of a folder and its sub-folders.

    Writes OUT/NAME.png, or OUT/NAME_0.png, NAME_1.png, ... for several samples; the
    sub-folders are mirrored.  Outputs have 8 bits; grey images give grey ones, and an
    alpha channel is enlarged with MATLAB's bicubic kernel.  A file that cannot be read,
    drawn or written is reported, and the rest goes on.

    Args:
      params: model parameters.
      source: image file or folder.
      out: output folder, made when missing.
      num_samples: samples per image, at least 1.
      temperature: as `flowsr_jax.sample`; None is the model's default.
      seed: 0 <= seed < 2**32.
      scale: the model's, as a check; None is whatever it has.
      tile: LR pixels per tile, at least 32; 0 draws every image in one piece; "auto"
        does so as long as the free memory allows.  Tiles share the noise; a window is
        32 pixels larger than a tile, and the overlap is blended.
      back_project: put the results on the set of images whose MATLAB-bicubic LR is the
        input, as far as 8 bits go; the LR-PSNR before and after is reported.
      uncertainty: also write OUT/NAME_std.png, the standard deviation over the samples
        (at least 2; of the 8-bit values, mean over the channels) as colours from black
        (0) to pale yellow (25 grey levels of 255 and more).
      overwrite: also draw images whose outputs exist; otherwise they are skipped.
      options: further options of the family's `sample`, hashable.

    Returns:
      the counts of written, skipped and failed input files.

    Raises:
      UsageError: nothing was done: a bad argument, no images, outputs that all collide
        or are inputs, or a folder that cannot be written to.
    """
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise UsageError(f"seed = {seed!r} must be a whole number from 0 to 2**32 - 1")
    try:
        sampler = Sampler(
            params, num_samples=num_samples, temperature=temperature, tile=tile, options=options
        )
        if scale is not None and scale != sampler.scale:
            raise UsageError(f"scale = {scale!r}, but the model's scale is {sampler.scale}")
        if uncertainty and num_samples < 2:
            raise UsageError("uncertainty needs at least 2 samples, got num_samples = 1")
        jobs = plan(Path(source), Path(out), num_samples, uncertainty)
        _require_writable(Path(out))
    except ValueError as error:
        raise UsageError(str(error)) from None
    for folder in {job.outputs[0].parent for job in jobs}:
        remove_leftovers(folder)
    counts = {"written": 0, "skipped": 0, "failed": 0}
    with progress(len(jobs)) as shown:
        for job in jobs:
            if job.problem:
                outcome, text = "failed", job.problem
            elif not overwrite and all(path.exists() for path in job.files):
                outcome, text = "skipped", "the output exists (--overwrite draws it again)"
            else:
                outcome, text = _attempt(sampler, job, seed, back_project, shown)
            counts[outcome] += 1
            # Messages of readers begin with the path already.
            shown.say(f"{job.name}: {outcome}: {text}", outcome == "failed")
            shown.advance(outcome == "written")
    return Summary(**counts)


def _attempt(sampler: Sampler, job: Job, seed: int, back_project: bool, shown: Progress):
    """Do a job; returns (outcome, text)."""
    while True:
        try:
            return "written", _run(sampler, job, seed, back_project, shown)
        except (ImageError, SampleError) as error:
            return "failed", str(error)
        except OSError as error:
            return "failed", f"{job.outputs[0]}: cannot be written ({error.strerror or error})"
        except Exception as error:  # whatever it is, the batch goes on
            if "RESOURCE_EXHAUSTED" not in str(error) or not sampler.shrink():
                return "failed", f"{type(error).__name__}: {error}"
            shown.say(f"{job.name}: out of memory; trying smaller tiles", True)


def _run(sampler: Sampler, job: Job, seed: int, back_project: bool, shown: Progress) -> str:
    picture = read_image(job.source)
    window = sampler.window(*picture.pixels.shape[:2])[:2]
    if any(n > side for n, side in zip(picture.pixels.shape, window, strict=False)):
        shown.once(f"large images are drawn in tiles, here of {window[1]}x{window[0]} LR pixels")
    strips = image_strips(
        sampler,
        picture.pixels,
        image_key(seed, job.name),
        say=lambda text: shown.say(f"{job.name}: {text}", True),
        tick=lambda done, total: shown.tick(job.name, done, total),
    )
    if picture.grey:
        strips = grey(strips)
    projector = None
    if back_project:
        projector = Projector(picture.pixels, sampler.scale, sampler.num_samples)
        strips = projector.run(strips)
    _write(job, picture, sampler.scale, strips)
    text = str(job.files[0])
    if len(job.files) > 1:
        text += f" and {len(job.files) - 1} more"
    if projector:
        text += f" (LR-PSNR {projector.before.psnr():.2f} -> {projector.after.psnr():.2f} dB)"
    return text


def _write(job: Job, picture: Picture, scale: int, strips) -> None:
    """Write strips [n, rows, s*w(, 3)] to the files of a job as they come."""
    job.outputs[0].parent.mkdir(parents=True, exist_ok=True)
    height, width = (scale * n for n in picture.pixels.shape[:2])
    channels = (1 if picture.grey else 3) + (picture.alpha is not None)
    with contextlib.ExitStack() as stack:
        files = [
            stack.enter_context(open_png(path, height, width, channels)) for path in job.outputs
        ]
        if job.heat:
            text = (
                f"Standard deviation over {len(files)} samples, in grey levels of 255: "
                f"from black, 0, to pale yellow, {HEAT_TOP:g} and more (inferno)."
            )
            heat = stack.enter_context(open_png(job.heat, height, width, 3, {"Description": text}))
        top = 0
        for strip in strips:
            images = to_uint8(strip)
            if images.ndim == 3:
                images = images[..., None]
            if job.heat:
                deviation = images.std(axis=0, dtype=np.float32).mean(axis=-1)
                heat.write(heat_map(deviation, HEAT_TOP))
            if picture.alpha is not None:
                alpha = alpha_rows(picture.alpha, scale, top, images.shape[1])[..., None]
                images = np.stack([np.concatenate([x, alpha], axis=-1) for x in images])
            for file, image in zip(files, images, strict=True):
                file.write(image)
            top += images.shape[1]


def _require_writable(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise UsageError(f"{out}: cannot be written to ({error.strerror})") from None
