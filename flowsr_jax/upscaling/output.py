"""Strips of images written to the files of a job as they come."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable

import numpy as np

from flowsr_jax.console import UsageError
from flowsr_jax.files.heat_map import heat_map
from flowsr_jax.files.images import Picture
from flowsr_jax.files.metadata import Metadata, read_metadata
from flowsr_jax.files.png_stream import open_png
from flowsr_jax.files.writers import CLEAR, DEEP, KINDS, QUALITY, Beside, open_image
from flowsr_jax.metrics import to_uint8
from flowsr_jax.upscaling.jobs import Job

HEAT_TOP = 25.0  # grey levels of 255


@dataclasses.dataclass(frozen=True)
class Output:
    """How results are written.

    Attributes:
      ext: "png", "jpg", "webp" or "tiff"; None is PNG, or what an output file's name says.
      depth: 8 or 16 bits per channel; "auto" follows the input, where the kind allows it.
      quality: of JPEG and WebP, 1 to 100; a WebP of 100 is lossless.
      suffix: what the names of outputs have after those of the inputs.
      outscale: enlargement of the files, above 0 and at most the model's scale; the model's
        results are resized by MATLAB's bicubic kernel.  None is the model's scale.
      keep_profile: do not convert colours to sRGB; write the input's profile instead.
      keep_metadata: copy EXIF (without the orientation, which is applied), XMP and DPI.

    Raises:
      UsageError: a value that is not allowed.
    """

    ext: str | None = None
    depth: int | str = "auto"
    quality: int = QUALITY
    suffix: str = ""
    outscale: float | None = None
    keep_profile: bool = False
    keep_metadata: bool = False

    def __post_init__(self):
        if self.ext is not None and f".{self.ext}" not in KINDS:
            known = ", ".join(ending[1:] for ending in KINDS)
            raise UsageError(f"ext = {self.ext!r} is not one of {known}")
        if self.depth not in ("auto", 8, 16):
            raise UsageError(f"depth = {self.depth!r} is not 'auto', 8 or 16")
        if not (isinstance(self.quality, int) and 1 <= self.quality <= 100):
            raise UsageError(f"quality = {self.quality!r} must be a whole number from 1 to 100")
        if "/" in self.suffix or "\\" in self.suffix:
            raise UsageError(f"suffix = {self.suffix!r} must not name a folder")

    @property
    def ending(self) -> str:
        """The ending of the outputs' names, unless a file was named."""
        return f".{self.ext or 'png'}"

    def check(self, kind: str, scale: int) -> None:
        """Raise UsageError unless files of this kind, by a model of this scale, can be written."""
        if self.depth == 16 and kind not in DEEP:
            raise UsageError(f"depth = 16: a {kind} file has 8 bits; {' and '.join(DEEP)} have 16")
        if self.outscale is not None and not 0 < self.outscale <= scale:
            raise UsageError(
                f"outscale = {self.outscale!r} must be above 0, and at most the model's scale, "
                f"{scale}"
            )

    def bits(self, picture: Picture, kind: str) -> int:
        """Return the bits per channel of the files made of a picture."""
        if self.depth != "auto":
            return self.depth
        return 16 if picture.deep and kind in DEEP else 8

    def size(self, height: int, width: int, scale: int) -> tuple[int, int]:
        """Return (height, width) of the files, where the model's results have these."""
        if self.outscale is None:
            return height, width
        return tuple(max(1, round(n * self.outscale / scale)) for n in (height, width))

    def beside(self, job: Job, picture: Picture) -> Beside:
        """Return what the files hold beside the pixels."""
        metadata = read_metadata(job.source) if self.keep_metadata else Metadata()
        return Beside(picture.profile, metadata)


def losses(picture: Picture, kind: str, bits: int) -> list[str]:
    """Return lines on what a file of a kind does not hold of a picture."""
    lines = []
    if picture.deep and bits == 8:
        why = "" if kind in DEEP else f", which is all that a {kind} file has"
        lines.append(f"more than 8 bits per channel are written as 8{why}")
    if picture.alpha is not None and kind not in CLEAR:
        lines.append(f"a {kind} file has no transparency; the picture is laid over white")
    return lines


def write_files(
    job: Job,
    strips: Iterable[np.ndarray],
    size: tuple[int, int, int],
    *,
    alpha: Callable[..., np.ndarray] | None = None,
    bits: int = 8,
    quality: int = QUALITY,
    beside: Beside | None = None,
) -> None:
    """Write all files of a job; on an error, none.

    Args:
      job: one output per sample, and perhaps a heat map of their deviation.
      strips: float [n, rows, width(, channels)] from top to bottom, clipped and rounded here.
      size: (height, width, channels) of the images, without alpha.
      alpha: (top=, rows=) -> [rows,width] of 0..1, the alpha channel.
      bits: 8 or 16 per channel.
      quality: of JPEG and WebP.
      beside: what the files of the samples hold beside the pixels.

    Raises:
      WriteError: a file of the kind cannot hold this image.
      OSError: a file cannot be written.
    """
    job.outputs[0].parent.mkdir(parents=True, exist_ok=True)
    height, width, channels = size
    kind = KINDS[job.outputs[0].suffix.lower()]
    flat = alpha is not None and kind not in CLEAR
    planes = channels + (alpha is not None and not flat)
    options = {"depth": bits, "quality": quality, "beside": beside}
    with contextlib.ExitStack() as stack:
        files = [
            stack.enter_context(open_image(path, height, width, planes, **options))
            for path in job.outputs
        ]
        if job.heat:
            about = (
                f"Standard deviation over {len(files)} samples, in grey levels of 255: "
                f"from black, 0, to pale yellow, {HEAT_TOP:g} and more (inferno)."
            )
            heat = stack.enter_context(open_png(job.heat, height, width, 3, {"Description": about}))
        top = 0
        for strip in strips:
            values = strip.reshape(*strip.shape[:3], channels)
            plane = None
            if alpha is not None:
                plane = alpha(top=top, rows=values.shape[1])[..., None]
            if flat:
                values = values * plane + (1 - plane)
            images = to_levels(values, bits)
            if job.heat:
                levels = images if bits == 8 else images / np.float32(257)
                deviation = levels.std(axis=0, dtype=np.float32).mean(axis=-1)
                heat.write(heat_map(deviation, HEAT_TOP))
            if plane is not None and not flat:
                plane = to_levels(plane, bits)
                images = np.stack([np.concatenate([x, plane], axis=-1) for x in images])
            for file, image in zip(files, images, strict=True):
                file.write(image)
            top += images.shape[1]


def to_levels(values: np.ndarray, bits: int) -> np.ndarray:
    """Turn floats of the range [0,1] into uint8 or uint16, clipped and rounded."""
    if bits == 8:
        return to_uint8(values)
    return np.rint(np.clip(values, 0, 1) * np.float32(65535)).astype(np.uint16)
