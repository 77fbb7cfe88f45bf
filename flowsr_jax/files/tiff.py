"""TIFF files through tifffile: the layout that a file declares decides over its samples."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

UNSIGNED, SIGNED, FLOAT = 1, 2, 3  # values of the tag SampleFormat
WHITE_IS_ZERO, GREY, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6  # of Photometric
CHANNELS = {WHITE_IS_ZERO: 1, GREY: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3}
JPEG = (6, 7, 34892)  # values of Compression whose decoder turns YCbCr into RGB
OTHERS = {4: "a mask", 8: "CIE L*a*b*", 9: "ICC L*a*b*", 10: "ITU L*a*b*"}
OTHERS |= {32803: "raw sensor data", 34892: "linear raw data", 32844: "LogL", 32845: "LogLuv"}
ICC, ORIENTATION = 34675, 274


# What it has to say of a file is said by the errors and notes here.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


class LayoutError(ValueError):
    """A layout that is not supported, or a file whose samples have no known range."""


@dataclasses.dataclass(frozen=True)
class Samples:
    """The decoded samples of a page.

    Attributes:
      values: [H,W,C], uint8 or uint16, not turned: grey (1), RGB (3) or CMYK (4).
      alpha: [H,W] of the same dtype, or None.  The colours are not multiplied by it.
      icc: the colour profile, or None.
      orientation: as in EXIF.
      notes: what was left out.
    """

    values: np.ndarray
    alpha: np.ndarray | None
    icc: bytes | None
    orientation: int
    notes: tuple[str, ...]


def read_tiff(
    path, *, max_pixels: int | None, page: int = 1, bands: Sequence[int] | None = None
) -> Samples:
    """Decode one page of a TIFF file.

    Args:
      path: the file.
      max_pixels: larger images are refused; None takes all.
      page: number of the page, from 1; reduced images (previews) do not count.
      bands: numbers of one or three samples, from 1, to be taken as grey or RGB whatever
        the file declares; None takes what it declares.

    Raises:
      LayoutError: no such page or band, a layout that is not supported; named.
      OverflowError: more than `max_pixels`.
      Exception: whatever the decoder raises on damaged files.
    """
    import tifffile  # takes a moment, and only TIFF files need it

    with tifffile.TiffFile(path) as file:
        count = len(file.pages)
        pages = [page for page in map(file.pages.get, range(count)) if not page.is_reduced]
        if not count:
            raise ValueError("the directory of its pages is missing")
        if not pages:
            raise LayoutError("is a TIFF that holds only a preview (of raw sensor data)")
        if not 1 <= page <= len(pages):
            raise LayoutError(f"is a TIFF of {len(pages)} pages; it has no page {page}")
        chosen = pages[page - 1]
        if max_pixels is not None and chosen.imagewidth * chosen.imagelength > max_pixels:
            raise OverflowError
        if chosen.imagewidth * chosen.imagelength == 0:
            raise LayoutError(f"has no pixels ({chosen.imagewidth}x{chosen.imagelength})")
        notes = []
        if len(pages) > 1:
            notes.append(f"page {page} of {len(pages)} is taken")
        return _samples(chosen, bands, notes)


def _samples(page, bands: Sequence[int] | None, notes: list[str]) -> Samples:
    kind, count = int(page.photometric), page.samplesperpixel
    layout = _layout(page)
    if bands is None and (kind not in CHANNELS or count < CHANNELS[kind]):
        raise LayoutError(f"is a TIFF with {OTHERS.get(kind, 'colours of another kind')} {layout}")
    if kind == YCBCR and int(page.compression) not in JPEG:
        raise LayoutError(f"is a TIFF with YCbCr colours outside JPEG {layout}")
    if page.imagedepth > 1:
        raise LayoutError(f"is a TIFF of a volume {page.imagedepth} pixels deep {layout}")
    _check_depth(page, layout)
    planes, _, height, width, packed = page.shaped
    array = page.asarray().reshape(planes, height, width, packed)
    array = array[0] if planes == 1 else np.moveaxis(array[..., 0], 0, -1)
    if array.shape[-1] != count:
        raise LayoutError(f"is a TIFF whose planes do not add up {layout}")
    icc, orientation = page.tags.valueof(ICC), page.tags.valueof(ORIENTATION, 1)
    if bands is not None:
        wrong = [band for band in bands if not 1 <= band <= count]
        if wrong or len(bands) not in (1, 3):
            raise LayoutError(f"bands = {tuple(bands)}: one or three of 1..{count} are needed")
        values = _scaled(array[..., [band - 1 for band in bands]], page, layout)
        return Samples(values, None, None, orientation, tuple(notes))
    colours = array[..., : CHANNELS[kind]]
    if kind == PALETTE:
        values = _looked_up(colours[..., 0], page.colormap)
    else:
        values = _scaled(colours, page, layout)
    if kind == WHITE_IS_ZERO:
        values = np.iinfo(values.dtype).max - values
    extra = [int(e) for e in page.extrasamples] + [0] * (count - CHANNELS[kind])
    alpha, left = None, count - CHANNELS[kind]
    if left and extra[0] in (1, 2) and kind != PALETTE:
        alpha = _scaled(array[..., CHANNELS[kind], None], page, layout)[..., 0]
        left -= 1
        if extra[0] == 1:
            values = _straight(values, alpha)
    if left:
        plural = "s are" if left > 1 else " is"
        notes.append(f"{left} of its {count} bands{plural} left out".replace("bandss", "bands"))
    return Samples(values, alpha, icc, orientation, tuple(notes))


def _layout(page) -> str:
    bits, formats = page.bitspersample, {1: "unsigned", 2: "signed", 3: "float"}
    what = formats.get(int(page.sampleformat), "complex or untyped")
    return f"({page.samplesperpixel} x {bits} bits, {what}), which is not supported"


def _check_depth(page, layout: str) -> None:
    bits, form = page.bitspersample, int(page.sampleformat)
    if not isinstance(bits, int):
        raise LayoutError(f"is a TIFF {layout}")
    if form == UNSIGNED and bits > 16 or form == SIGNED:
        raise LayoutError(f"is a TIFF of whole numbers whose range is not known {layout}")
    if form not in (UNSIGNED, FLOAT):
        raise LayoutError(f"is a TIFF {layout}")


def _scaled(array: np.ndarray, page: Any, layout: str) -> np.ndarray:
    """Return samples as uint8, or uint16 of more than 8 bits, white being the highest value."""
    if int(page.sampleformat) == FLOAT:
        if not np.isfinite(array).all():
            raise LayoutError("has samples that are not finite")
        low, high = float(array.min()), float(array.max())
        if low < 0 or high > 1:
            raise LayoutError(
                f"is a TIFF of floats in {low:g}..{high:g}; only those in 0..1 have a known range"
            )
        return np.rint(array.astype(np.float64) * 65535).astype(np.uint16)
    bits = page.bitspersample
    if bits in (8, 16):
        return np.ascontiguousarray(array, np.uint8 if bits == 8 else np.uint16)
    kind = np.uint8 if bits < 8 else np.uint16
    return np.rint(array * (np.iinfo(kind).max / (2**bits - 1))).astype(kind)


def _looked_up(index: np.ndarray, table) -> np.ndarray:
    if table is None or index.max() >= table.shape[1]:
        raise LayoutError("is a TIFF with a palette that lacks colours")
    # Colours of a palette have 16 bits; some writers put 8-bit values there.
    table = table if table.max() < 256 else np.rint(table / 257)
    return table.astype(np.uint8).T[index.astype(np.intp)]


def _straight(values: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Undo a multiplication by alpha."""
    top = np.iinfo(values.dtype).max
    parts = values.astype(np.float64) * (top / np.maximum(alpha, 1)[..., None])
    return np.rint(np.minimum(parts, top)).astype(values.dtype)
