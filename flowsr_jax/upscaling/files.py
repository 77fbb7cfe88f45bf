"""Files in, files out: super-resolve an image or a folder of images.

Each image has its own key, made of the seed and its relative name, so a result does not
depend on what else is there.  Images are drawn, finished and written in strips: memory
grows with the width of an image and with the number of samples, and beyond the decoded
input not with its height.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any

from flowsr_jax.files.images import read_image
from flowsr_jax.models import Params
from flowsr_jax.upscaling.batch import Summary, begin, run_batch
from flowsr_jax.upscaling.finish import Projector, alpha_rows, cropped, grey
from flowsr_jax.upscaling.image import image_key, image_strips
from flowsr_jax.upscaling.jobs import Job, UsageError
from flowsr_jax.upscaling.mark import check_lr_file, identity, repairs_jpeg
from flowsr_jax.upscaling.output import write_files
from flowsr_jax.upscaling.progress import Progress, reports
from flowsr_jax.upscaling.sampler import Sampler


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
    drawn or written is reported, and the rest goes on.  With a rescaling model, LR files
    that its `downscale_files` did not make are warned of or refused
    (`mark.check_lr_file`), and results are cut to the size in the mark.

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
        if back_project and sampler.rescales:
            raise UsageError(
                "back_project is for bicubic LR images; a rescaling model makes its own"
            )
        jobs = begin(source, out, num_samples, uncertainty)
    except ValueError as error:
        raise UsageError(str(error)) from None
    weights = identity(params) if sampler.rescales else ""

    def work(job: Job, shown: Progress) -> str:
        return _run(sampler, job, seed, back_project, weights, shown)

    return run_batch(jobs, sampler, work, overwrite)


def _run(
    sampler: Sampler, job: Job, seed: int, back_project: bool, weights: str, shown: Progress
) -> str:
    picture = read_image(job.source)
    for note in picture.notes:
        shown.say(f"{job.name}: {note}", True)
    rows, columns = picture.pixels.shape[:2]
    height, width = sampler.scale * rows, sampler.scale * columns
    is_grey = picture.grey and sampler.channels == 3
    if sampler.rescales:
        mark, warnings = check_lr_file(picture, sampler.params, weights)
        for text in warnings:
            shown.say(f"{job.name}: {text}", True)
        if mark is not None:
            height, width, is_grey = mark.height, mark.width, mark.grey
            if repairs_jpeg(sampler.params):  # an LR file with a mark is as it was made
                sampler = sampler.but(restore=False)
    strips = image_strips(
        sampler,
        picture.pixels,
        image_key(seed, job.name),
        **reports(shown, job.name, sampler.window(rows, columns), (rows, columns)),
    )
    if is_grey:
        strips = grey(strips)
    projector = None
    if back_project:
        projector = Projector(picture.pixels, sampler.scale, sampler.num_samples)
        strips = projector.run(strips)
    alpha = None
    if picture.alpha is not None:
        alpha = functools.partial(alpha_rows, picture.alpha, sampler.scale, width)
    channels = 1 if is_grey else 3
    write_files(job, cropped(strips, height, width), (height, width, channels), alpha=alpha)
    text = str(job.files[0])
    if len(job.files) > 1:
        text += f" and {len(job.files) - 1} more"
    if projector:
        text += f" (LR-PSNR {projector.before.psnr():.2f} -> {projector.after.psnr():.2f} dB)"
    return text
