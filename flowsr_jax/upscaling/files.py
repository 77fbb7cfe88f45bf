"""Files in, files out: super-resolve an image or a folder of images.

Each image has its own key, made of the seed and its relative name, so a result does not
depend on what else is there.  Images are drawn, finished and written in strips: memory
grows with the width of an image and with the number of samples, and beyond the decoded
input not with its height (of PNG; other kinds of files are written as a whole).
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

from flowsr_jax.console import Progress, Summary, UsageError, check_seed
from flowsr_jax.drawing import Sampler, image_key, image_strips
from flowsr_jax.files.images import Picture, read_image
from flowsr_jax.files.transparency import fill_hidden
from flowsr_jax.models import Params
from flowsr_jax.upscaling.batch import begin, reports, run_batch
from flowsr_jax.upscaling.finish import AlphaRows, Projector, cropped, grey, resized
from flowsr_jax.upscaling.jobs import Job
from flowsr_jax.upscaling.mark import check_lr_file, identity, repairs_jpeg
from flowsr_jax.upscaling.output import Output, losses, write_files


def upscale_files(
    params: Params,
    source: str | os.PathLike | Sequence[str | os.PathLike],
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
    output: Output | None = None,
    same_noise: bool = False,
    page: int = 1,
    bands: Sequence[int] | None = None,
    shard: tuple[int, int] = (0, 1),
    options: Mapping[str, Any] | None = None,
) -> Summary:
    """Super-resolve an image file, or all images of folders and their sub-folders.

    Writes OUT/NAME.png, or OUT/NAME_0.png, NAME_1.png, ... for several samples; the
    sub-folders are mirrored.  Grey images give grey ones.  An alpha channel is enlarged with
    MATLAB's bicubic kernel; colours that it hides are replaced by visible neighbours before
    the model sees them.  A file that cannot be read, drawn or written is reported, and the
    rest goes on.  With a rescaling model, LR files that its `downscale_files` did not make
    are warned of or refused (`mark.check_lr_file`), results are cut to the size in the mark,
    and colours are never converted.

    Args:
      params: model parameters.
      source: image file, folder or pattern, one or several.
      out: output folder, made when missing; or the output file of a single input file.
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
      output: how results are written; None is PNG at the depth of the input.
      same_noise: all images get the noise of one: for the frames of a film.
      page, bands: as `read_image`, of TIFF files.
      shard: (I, N) draws the part I of N, from 0, of the images.
      options: further options of the family's `sample`, hashable.

    Returns:
      the counts of written, skipped and failed input files.

    Raises:
      UsageError: nothing was done: a bad argument, no images, outputs that all collide
        or are inputs, or a folder that cannot be written to.
    """
    output = output or Output()
    check_seed(seed)
    if page < 1:
        raise UsageError(f"page = {page} must be at least 1")
    if bands is not None and (len(bands) not in (1, 3) or min(bands) < 1):
        raise UsageError(f"bands = {tuple(bands)} must be one or three numbers, from 1")
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
        jobs = begin(
            source, out, num_samples, uncertainty,
            ending=output.ending, suffix=output.suffix, shard=shard,
        )  # fmt: skip
        output.check(jobs.kind, sampler.scale)
    except ValueError as error:
        raise UsageError(str(error)) from None
    read = functools.partial(
        read_image, keep_profile=output.keep_profile or sampler.rescales, page=page, bands=bands
    )
    weights = identity(params) if sampler.rescales else ""

    def work(job: Job, shown: Progress) -> str:
        key = image_key(seed, "" if same_noise else job.name)
        return _Task(sampler, job, shown, output, jobs.kind).run(read, key, back_project, weights)

    return run_batch(jobs, sampler, work, overwrite)


@dataclasses.dataclass(frozen=True)
class _Task:
    """One job at work."""

    sampler: Sampler
    job: Job
    shown: Progress
    output: Output
    kind: str

    def say(self, text: str) -> None:
        """Show a line on the job's file."""
        self.shown.say(f"{self.job.name}: {text}", True)

    def run(self, read, key, back_project: bool, weights: str) -> str:
        """Do the job; return what to report."""
        sampler, job, output = self.sampler, self.job, self.output
        picture = self._read(read)
        rows, columns = picture.pixels.shape[:2]
        height, width = sampler.scale * rows, sampler.scale * columns
        is_grey = picture.grey and sampler.channels == 3 and not _colour_profile(picture)
        if sampler.rescales:
            mark, warnings = check_lr_file(picture, sampler.params, weights)
            for text in warnings:
                self.say(text)
            if mark is not None:
                height, width, is_grey = mark.height, mark.width, mark.grey
                if repairs_jpeg(sampler.params):  # an LR file with a mark is as it was made
                    sampler = sampler.but(restore=False)
        bits = output.bits(picture, self.kind)
        for text in losses(picture, self.kind, bits):
            self.say(text)
        pixels = picture.pixels
        if picture.alpha is not None and not sampler.rescales:
            pixels = fill_hidden(pixels, picture.alpha)
        strips = image_strips(
            sampler,
            pixels,
            key,
            **reports(self.shown, job.name, sampler, (rows, columns)),
        )
        if is_grey:
            strips = grey(strips)
        projector = None
        if back_project:
            projector = Projector(pixels, sampler.scale, sampler.num_samples)
            strips = projector.run(strips)
        strips = cropped(strips, height, width)
        size = output.size(height, width, sampler.scale)
        if size != (height, width):
            strips = resized(strips, (height, width), size)
        alpha = None
        if picture.alpha is not None:
            target = None if size == (height, width) else size
            channel = AlphaRows(picture.alpha, sampler.scale, target)
            alpha = functools.partial(channel.rows, size[1])
        write_files(
            job,
            strips,
            (*size, 1 if is_grey else 3),
            alpha=alpha,
            bits=bits,
            quality=output.quality,
            beside=output.beside(job, picture),
        )
        return self._report(picture, projector)

    def _read(self, read) -> Picture:
        picture = read(self.job.source)
        numbers = [name for name in picture.profile if name != "iCCP"]
        if numbers and self.kind != "PNG" and not self.sampler.rescales:
            self.say(f"a {self.kind} file holds no {' and '.join(numbers)}; colours become sRGB")
            picture = read(self.job.source, keep_profile=False)
        for note in picture.notes:
            self.say(note)
        return picture

    def _report(self, picture: Picture, projector: Projector | None) -> str:
        text = str(self.job.files[0])
        if len(self.job.files) > 1:
            text += f" and {len(self.job.files) - 1} more"
        if picture.converted:
            text += f", colours converted from {picture.converted}"
        if projector:
            text += f" (LR-PSNR {projector.before.psnr():.2f} -> {projector.after.psnr():.2f} dB)"
        return text


def _colour_profile(picture: Picture) -> bool:
    """Whether a kept profile is one of RGB, which a grey file must not hold."""
    return picture.profile.get("iCCP", b"")[16:20] == b"RGB "
