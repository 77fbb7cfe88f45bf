"""Strips of images written to the files of a job as they come."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from flowsr_jax.files.heat_map import heat_map
from flowsr_jax.files.png_stream import open_png
from flowsr_jax.metrics import to_uint8
from flowsr_jax.upscaling.jobs import Job

HEAT_TOP = 25.0  # grey levels of 255


def write_files(
    job: Job,
    strips: Iterable[np.ndarray],
    size: tuple[int, int, int],
    *,
    alpha: Callable[..., np.ndarray] | None = None,
    text: Mapping[str, str] | None = None,
) -> None:
    """Write all files of a job; on an error, none.

    Args:
      job: one output per sample, and perhaps a heat map of their deviation.
      strips: float [n, rows, width(, channels)] from top to bottom, clipped and rounded here.
      size: (height, width, channels) of the images, without alpha.
      alpha: (top=, rows=) -> uint8 [rows,width], the alpha channel.
      text: {keyword: text} to be put into the files of the samples.

    Raises:
      OSError: a file cannot be written.
    """
    job.outputs[0].parent.mkdir(parents=True, exist_ok=True)
    height, width, channels = size
    planes = channels + (alpha is not None)
    with contextlib.ExitStack() as stack:
        files = [
            stack.enter_context(open_png(path, height, width, planes, text)) for path in job.outputs
        ]
        if job.heat:
            about = (
                f"Standard deviation over {len(files)} samples, in grey levels of 255: "
                f"from black, 0, to pale yellow, {HEAT_TOP:g} and more (inferno)."
            )
            heat = stack.enter_context(open_png(job.heat, height, width, 3, {"Description": about}))
        top = 0
        for strip in strips:
            images = to_uint8(strip).reshape(*strip.shape[:3], channels)
            if job.heat:
                deviation = images.std(axis=0, dtype=np.float32).mean(axis=-1)
                heat.write(heat_map(deviation, HEAT_TOP))
            if alpha is not None:
                plane = alpha(top=top, rows=images.shape[1])[..., None]
                images = np.stack([np.concatenate([x, plane], axis=-1) for x in images])
            for file, image in zip(files, images, strict=True):
                file.write(image)
            top += images.shape[1]
