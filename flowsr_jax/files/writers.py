"""Image files written from rows: PNG as they come, JPEG, WebP and TIFF at the end."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from PIL import Image

from flowsr_jax.files.atomic import atomic_write
from flowsr_jax.files.metadata import Metadata
from flowsr_jax.files.png_stream import open_png

# Endings that a file may be written with, and its kind.
KINDS = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF",
    ".tiff": "TIFF",
}  # fmt: skip
DEEP = ("PNG", "TIFF")  # kinds that hold 16 bits
CLEAR = ("PNG", "WEBP", "TIFF")  # kinds that hold an alpha channel
MAX_SIDE = {"JPEG": 65535, "WEBP": 16383}
QUALITY = 95
INCH = 0.0254  # metres


class WriteError(ValueError):
    """An image that no file of the kind can hold; one line."""


class Rows(Protocol):
    """Takes the rows of an image, from top to bottom."""

    def write(self, rows: np.ndarray) -> None:
        """Append rows [N,width,channels]."""


@dataclasses.dataclass(frozen=True)
class Beside:
    """What a file holds beside its pixels.

    Attributes:
      profile: as `images.Picture.profile`; kinds other than PNG hold "iCCP" alone.
      metadata: see `Metadata`.
      text: {keyword: text} of a PNG file, Latin-1.
    """

    profile: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    metadata: Metadata = dataclasses.field(default_factory=Metadata)
    text: Mapping[str, str] = dataclasses.field(default_factory=dict)


@contextlib.contextmanager
def open_image(
    path: str | os.PathLike,
    height: int,
    width: int,
    channels: int = 3,
    *,
    depth: int = 8,
    quality: int = QUALITY,
    beside: Beside | None = None,
) -> Iterator[Rows]:
    """Open an image file for writing; it appears whole or not at all.

    PNG is written row by row; the other kinds hold the whole image in memory.

    Args:
      path: the file, of a kind by its ending (KINDS); its folder must exist.
      height, width: in pixels, at least 1.
      channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA.
      depth: 8 or 16 bits per channel.
      quality: of JPEG and WebP, 1 to 100; a WebP of 100 is lossless.
      beside: what else the file holds.

    Yields:
      what takes rows, uint8 or uint16 [N,width,channels].

    Raises:
      WriteError: a size, a depth or channels that the kind does not have.
      OSError: the file cannot be written.
    """
    kind, beside = KINDS[Path(path).suffix.lower()], beside or Beside()
    side = MAX_SIDE.get(kind)
    if side and max(height, width) > side:
        raise WriteError(f"{width}x{height} pixels: a {kind} file has at most {side} a side")
    if depth == 16 and kind not in DEEP:
        raise WriteError(f"16 bits: a {kind} file has 8")
    if channels in (2, 4) and kind not in CLEAR:
        raise WriteError(f"transparency: a {kind} file has none")
    if kind == "PNG":
        chunks = _chunks(beside)
        with open_png(path, height, width, channels, beside.text, depth=depth, chunks=chunks) as f:
            yield f
        return
    with atomic_write(path) as file:
        rows = _Whole(height, width, channels, depth)
        yield rows
        _save(file, kind, rows.finished(), quality, beside)


class _Whole:
    def __init__(self, height: int, width: int, channels: int, depth: int):
        kind = np.uint8 if depth == 8 else np.uint16
        self._image, self._done = np.empty((height, width, channels), kind), 0

    def write(self, rows: np.ndarray) -> None:
        self._image[self._done : self._done + len(rows)] = rows.reshape(len(rows), *self._shape)
        self._done += len(rows)

    @property
    def _shape(self) -> tuple[int, int]:
        return self._image.shape[1:]

    def finished(self) -> np.ndarray:
        if self._done != len(self._image):
            raise ValueError(f"{len(self._image) - self._done} rows of the image are missing")
        return self._image


def _chunks(beside: Beside) -> list[tuple[bytes, bytes]]:
    """Return the PNG chunks of a profile and of metadata."""
    found = []
    for name, content in beside.profile.items():
        if name == "iCCP":
            content = b"profile\0\0" + zlib.compress(content)
        found.append((name.encode(), content))
    metadata = beside.metadata
    if metadata.dpi:
        numbers = [round(dots / INCH) for dots in metadata.dpi]
        found.append((b"pHYs", b"".join(n.to_bytes(4, "big") for n in numbers) + b"\1"))
    if metadata.exif:
        found.append((b"eXIf", metadata.exif))
    if metadata.xmp:
        found.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp))
    return found


def _save(file: BinaryIO, kind: str, image: np.ndarray, quality: int, beside: Beside) -> None:
    metadata, icc = beside.metadata, beside.profile.get("iCCP")
    if kind == "TIFF":
        _save_tiff(file, image, icc, metadata)
        return
    grey = image.shape[2] < 3
    if grey and kind == "WEBP":
        image = np.concatenate([image[..., :1].repeat(3, axis=2), image[..., 1:]], axis=2)
    options = {"quality": quality, "icc_profile": icc}
    if kind == "JPEG":
        options |= {"subsampling": 0 if quality >= 90 else 2}
        options |= {"dpi": metadata.dpi} if metadata.dpi else {}
    else:
        options |= {"lossless": quality == 100, "method": 4, "exact": True}
    if metadata.exif:
        options["exif"] = b"Exif\0\0" + metadata.exif
    if metadata.xmp:
        options["xmp"] = metadata.xmp
    Image.fromarray(image.squeeze(-1) if image.shape[2] == 1 else image).save(file, kind, **options)


def _save_tiff(file: BinaryIO, image: np.ndarray, icc: bytes | None, metadata: Metadata) -> None:
    import tifffile  # takes a moment, and only TIFF files need it

    channels = image.shape[2]
    tags = [(700, 1, len(metadata.xmp), metadata.xmp, True)] if metadata.xmp else []
    tifffile.imwrite(
        file,
        image[..., 0] if channels == 1 else image,
        photometric="minisblack" if channels < 3 else "rgb",
        planarconfig=None if channels == 1 else "contig",
        extrasamples=["unassalpha"] if channels in (2, 4) else [],
        compression="zlib",
        predictor=True,
        iccprofile=icc,
        resolution=metadata.dpi,
        resolutionunit="INCH" if metadata.dpi else None,
        extratags=tags,
        metadata=None,
    )
