"""Image files decoded by tifffile or Pillow, as they are stored."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from flowsr_jax.files import isobmff, png_chunks
from flowsr_jax.files.colour import ADOBE
from flowsr_jax.files.tiff import LayoutError, read_tiff

MAX_TEXT = 1000  # characters of a text that is handed on


@dataclasses.dataclass(frozen=True)
class Decoded:
    """What a decoder found, before colours are converted and the image is turned.

    Attributes:
      values: [H,W], [H,W,3] RGB or [H,W,4] CMYK, uint8 or uint16.
      alpha: [H,W] of the same dtype, or None.
      meant: as in `to_srgb`.
      orientation: as in EXIF.
    """

    values: np.ndarray
    alpha: np.ndarray | None
    meant: Mapping[str, bytes]
    orientation: int = 1
    deep: bool = False
    notes: tuple[str, ...] = ()
    text: Mapping[str, str] = dataclasses.field(default_factory=dict)


def by_tifffile(path: Path, page: int, bands: Sequence[int] | None) -> Decoded:
    """Decode a page of a TIFF file; arguments and errors as `read_tiff`."""
    found = read_tiff(path, max_pixels=Image.MAX_IMAGE_PIXELS, page=page, bands=bands)
    values = found.values[..., 0] if found.values.shape[-1] == 1 else found.values
    meant = {"iCCP": found.icc} if found.icc else {}
    deep = values.dtype != np.uint8
    return Decoded(values, found.alpha, meant, found.orientation, deep, found.notes)


def by_pillow(file: BinaryIO, kind: str) -> Decoded:
    """Decode a file of another kind (`containers.readable`), open at the start.

    Raises:
      LayoutError: no pixels.
      OverflowError: more pixels than Pillow's limit.
      Exception: whatever the decoder raises on damaged files.
    """
    meant, text, notes, bits = {}, {}, [], 8
    if kind == "PNG":
        file, meant, text, notes = png_chunks.split(file, MAX_TEXT)
        *_, bits, _ = png_chunks.header(file)
    elif kind in ("AVIF", "HEIF"):
        cicp, depth = isobmff.colours(file.read(isobmff.HEAD))
        file.seek(0)
        meant |= {"cICP": cicp} if cicp else {}
        if depth > 8:
            notes.append(f"its {depth} bits per sample are read as 8")
    with Image.open(file, formats=[kind]) as image:
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and image.width * image.height > limit:
            raise OverflowError
        if 0 in image.size:
            raise LayoutError(f"has no pixels ({image.width}x{image.height})")
        frames = _frames(image)
        if frames > 1:
            notes.append(f"the first of its {frames} frames is taken")
        if image.info.get("icc_profile"):
            meant["iCCP"] = image.info["icc_profile"]
            if kind != "PNG":  # a profile says more than numbers
                meant.pop("cICP", None)
        image.info |= text
        wide = kind == "PPM" and image.mode == "RGB" and _maximum(image) > 255
        if wide:
            notes.append("16-bit colours of a PPM file are read at 8 bits")
        values, alpha = _deep_png(image, file) if bits == 16 else _values(image)
        turned = _orientation(image)
        if kind in ("JPEG", "WEBP") and not meant and _is_adobe(image):
            meant = dict(ADOBE)
    deep = values.dtype != np.uint8 or wide
    short = {k: v for k, v in text.items() if len(v) <= MAX_TEXT}
    return Decoded(values, alpha, meant, turned, deep, tuple(notes), short)


def _frames(image: Image.Image) -> int:
    try:
        return getattr(image, "n_frames", 1)
    except Exception:  # damaged behind the first frame
        return 1


def _maximum(image: Image.Image) -> int:
    arguments = image.tile[0].args if image.tile else ()
    arguments = arguments if isinstance(arguments, tuple) else (arguments,)
    return max((a for a in arguments if isinstance(a, int)), default=0)


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(0x0112, 1)
    except Exception:  # damaged EXIF data; the pixels are fine, so show them as stored
        return 1


def _is_adobe(image: Image.Image) -> bool:
    """Whether the EXIF data of a camera say Adobe RGB, in either of two ways."""
    try:
        exif = image.getexif()
        space = exif.get_ifd(0x8769).get(0xA001)
        return space == 2 or space == 0xFFFF and exif.get_ifd(0xA005).get(1) == "R03"
    except Exception:  # damaged EXIF data say nothing
        return False


def _values(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """Return (values, alpha) of an image that Pillow decodes at its full depth."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        return np.array(image).astype(np.uint16), None
    if image.mode == "CMYK":
        return np.array(image), None
    grey = image.mode in ("1", "L", "LA", "La")
    alpha = None
    if "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        image = image.convert("RGBA")
        alpha = np.array(image.getchannel("A"))
    if grey:
        return np.array(image.getchannel(0).convert("L")), alpha
    return np.array(image.convert("RGB")), alpha


def _deep_png(image: Image.Image, file: BinaryIO) -> tuple[np.ndarray, np.ndarray | None]:
    """Return (values, alpha) of a 16-bit PNG, of which Pillow gives colours 8 bits only.

    The file is decoded twice: asked for big-endian samples Pillow gives the high bytes,
    asked for little-endian ones the low bytes.  Grey with alpha has four bytes a pixel, as
    8-bit RGBA has.
    """
    clear = image.info.get("transparency")
    if image.mode.startswith("I"):
        values = np.array(image).astype(np.uint16)
        alpha = None if clear is None else np.where(values == clear, 0, 65535)
        return values, None if alpha is None else alpha.astype(np.uint16)
    tile = image.tile[0]
    wanted = (tile.args if isinstance(tile.args, str) else tile.args[0]).partition(";")[0]
    halves = []
    for raw in ("RGBA",) if wanted == "LA" else (f"{wanted};16B", f"{wanted};16L"):
        file.seek(0)
        with Image.open(file, formats=["PNG"]) as part:
            args = raw if isinstance(tile.args, str) else (raw, *tile.args[1:])
            part.tile = [tile._replace(args=args)]
            halves.append(np.array(part).astype(np.uint16))
    if wanted == "LA":
        pairs = halves[0].reshape(*halves[0].shape[:2], 2, 2)
        values = pairs[..., 0] * 256 + pairs[..., 1]
        return values[..., 0], values[..., 1]
    values = halves[0] * 256 + halves[1]
    if wanted == "RGBA":
        return values[..., :3], values[..., 3]
    if clear is None:
        return values, None
    return values, np.where((values == clear).all(axis=-1), 0, 65535).astype(np.uint16)
