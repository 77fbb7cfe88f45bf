"""What a photograph says about itself: EXIF, XMP, and dots per inch."""

from __future__ import annotations

import dataclasses
import os
from typing import BinaryIO

from PIL import Image

from flowsr_jax.files.containers import HEAD, container

ORIENTATION = 0x0112
DESCRIPTIONS = (270, 271, 272, 305, 306, 315, 33432)  # tags of TIFF
MAX_XMP = 1 << 20


@dataclasses.dataclass(frozen=True)
class Metadata:
    """Beside the pixels.

    Attributes:
      exif: a TIFF block as EXIF has it, without "Exif\\0\\0"; without the orientation.
      xmp: a packet of XML.
      dpi: dots per inch, horizontally and vertically, or None.
    """

    exif: bytes = b""
    xmp: bytes = b""
    dpi: tuple[float, float] | None = None


def read_metadata(path: str | os.PathLike) -> Metadata:
    """Read what can be read of a file that `read_image` has read; nothing of a damaged one.

    Of the EXIF data of a TIFF file, description, maker, model, software, date, artist and
    copyright.
    """
    try:
        with open(path, "rb") as file:
            kind = container(file.read(HEAD))
            file.seek(0)
            return _of_tiff(file) if kind == "TIFF" else _of_others(file, kind)
    except Exception:  # metadata never decides over pixels
        return Metadata()


def _of_others(file: BinaryIO, kind: str) -> Metadata:
    with Image.open(file, formats=[kind]) as image:
        exif = image.getexif()
        xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
        dpi = image.info.get("dpi")
    exif.pop(ORIENTATION, None)
    return _metadata(exif, xmp.encode() if isinstance(xmp, str) else xmp, dpi)


def _of_tiff(file: BinaryIO) -> Metadata:
    import tifffile  # takes a moment, and only TIFF files need it

    with tifffile.TiffFile(file) as found:
        tags = found.pages.first.tags
        exif = Image.Exif()
        for tag in DESCRIPTIONS:
            if isinstance(value := tags.valueof(tag), str):
                exif[tag] = value
        per_unit = {2: 1.0, 3: 2.54}.get(int(tags.valueof(296, 2)))
        numbers = [tags.valueof(tag) for tag in (282, 283)]
        dpi = None
        if per_unit and all(n and n[1] for n in numbers):
            dpi = tuple(per_unit * n[0] / n[1] for n in numbers)
        return _metadata(exif, tags.valueof(700) or b"", dpi)


def _metadata(exif: Image.Exif, xmp: bytes, dpi) -> Metadata:
    block = exif.tobytes().removeprefix(b"Exif\0\0") if len(exif) else b""
    pair = tuple(map(float, dpi)) if dpi and min(dpi) > 0 else None
    return Metadata(block, bytes(xmp) if len(xmp) < MAX_XMP else b"", pair)
