"""Invertible rescaling of files: HR images to LR files, and back."""

from __future__ import annotations

import functools
import os

from flowsr_jax.console import Progress, Summary, UsageError
from flowsr_jax.drawing import Downscaler, image_strips
from flowsr_jax.files.images import read_image
from flowsr_jax.files.transparency import fill_hidden
from flowsr_jax.files.writers import Beside
from flowsr_jax.models import Params, family_of
from flowsr_jax.upscaling.batch import begin, reports, run_batch
from flowsr_jax.upscaling.files import upscale_files
from flowsr_jax.upscaling.finish import AlphaRows
from flowsr_jax.upscaling.jobs import Job
from flowsr_jax.upscaling.mark import Mark, identity
from flowsr_jax.upscaling.output import write_files


def downscale_files(
    params: Params,
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    tile: int | str = "auto",
    overwrite: bool = False,
    keep_profile: bool = False,
) -> Summary:
    """Make LR files of an image file, or of all images of a folder and its sub-folders.

    Writes OUT/NAME.png with 8 bits and a `Mark`; the sub-folders are mirrored.  Sides are
    mirrored at the bottom and right to multiples of the scale s, so the LR image has
    ceil(h/s) x ceil(w/s) pixels.  Of grey images the LR image is in colour, which is where
    the model hides its information.  An alpha channel is shrunk with MATLAB's bicubic
    kernel; colours that it hides are replaced by visible neighbours before.  A file that cannot be
    read or written is reported, and the rest goes on.

    Args:
      params: parameters of a rescaling model (IRN).
      source: image file or folder.
      out: output folder, made when missing.
      tile: as `upscale_files`, in LR pixels.
      overwrite: also make LR files that exist; otherwise they are skipped.
      keep_profile: do not convert colours to sRGB; write the input's profile instead.

    Returns:
      the counts of written, skipped and failed input files.

    Raises:
      UsageError: nothing was done: another model, a bad argument, no images, outputs that
        all collide or are inputs, or a folder that cannot be written to.
    """
    _require_rescaling(params)
    try:
        downscaler = Downscaler(params, tile=tile)
        jobs = begin(source, out)
    except ValueError as error:
        raise UsageError(str(error)) from None
    weights = identity(params)

    def work(job: Job, shown: Progress) -> str:
        return _shrink(downscaler, job, weights, keep_profile, shown)

    return run_batch(jobs, downscaler, work, overwrite)


def restore_files(
    params: Params,
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    seed: int | None = None,
    temperature: float | None = None,
    tile: int | str = "auto",
    overwrite: bool = False,
) -> Summary:
    """Restore the HR images of LR files that `downscale_files` made.

    `upscale_files` with z = 0, unless a seed or a temperature asks for z to be drawn.

    Args:
      params: parameters of the rescaling model.
      source, out, tile, overwrite: as `upscale_files`.
      seed: 0 <= seed < 2**32; None is 0.
      temperature: standard deviation of z; None is 0 without a seed, and the model's
        default with one.

    Returns, raises: as `upscale_files`.
    """
    _require_rescaling(params)
    if seed is None and temperature is None:
        temperature = 0.0
    return upscale_files(
        params,
        source,
        out,
        seed=0 if seed is None else seed,
        temperature=temperature,
        tile=tile,
        overwrite=overwrite,
    )


def _require_rescaling(params: Params) -> None:
    family = family_of(params)
    if family.kind(params.config) != "rescaling":
        raise UsageError(
            f"family {family.name!r} is no rescaling model: it has no 'downscale'; "
            "`flowsr sample` does super-resolution"
        )


def _shrink(
    downscaler: Downscaler, job: Job, weights: str, keep_profile: bool, shown: Progress
) -> str:
    picture = read_image(job.source, keep_profile=keep_profile)
    for note in picture.notes:
        shown.say(f"{job.name}: {note}", True)
    pixels = picture.pixels
    if picture.alpha is not None:
        pixels = fill_hidden(pixels, picture.alpha)
    height, width = pixels.shape[:2]
    scale = downscaler.scale
    rows, columns = -(-height // scale), -(-width // scale)
    mark = Mark(
        family=downscaler.params.config.family,
        weights=weights,
        scale=scale,
        height=height,
        width=width,
        grey=picture.grey,
        alpha=picture.alpha is not None,
    )
    strips = image_strips(
        downscaler,
        pixels,
        None,
        **reports(shown, job.name, downscaler, (rows, columns)),
    )
    alpha = None
    if picture.alpha is not None:
        alpha = functools.partial(AlphaRows(picture.alpha, 1 / scale).rows, columns)
    size = rows, columns, downscaler.channels
    beside = Beside(picture.profile, text=mark.text())
    write_files(job, strips, size, alpha=alpha, beside=beside)
    return str(job.files[0])
