"""Image files: everything that people have on disk becomes pixels, or one clear error."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from flowsr_jax.console import one_line
from flowsr_jax.files.atomic import atomic_write
from flowsr_jax.files.colour import ProfileError, cmyk_to_rgb, to_srgb
from flowsr_jax.files.containers import HEAD, container, readable, refusal
from flowsr_jax.files.decoded import Decoded, by_pillow, by_tifffile
from flowsr_jax.files.tiff import LayoutError


class ImageError(ValueError):
    """A file that cannot be read as an image; one line naming the file and the reason."""


@dataclasses.dataclass(frozen=True)
class Picture:
    """A decoded image file.

    Attributes:
      pixels: [H,W,3] in colour, [H,W] in grey (also where red, green and blue are stored
        and equal); uint8, or uint16 of files with more than 8 bits and of floats.  Colours
        are not multiplied by alpha.
      alpha: [H,W] of the same dtype, or None when the file has none.
      format: the kind of file, by its content; one of `containers.READ` or a plug-in's.
      deep: the file holds more than 8 bits per channel.
      text: {keyword: text} of a PNG file, as found (by anyone); long ones are left out.
      notes: what of the file was left out or could not be applied.
      converted: name of the colours that the pixels were converted from to sRGB, or "".
      profile: with `keep_profile`, {name of a PNG chunk: content} that says what the
        colours mean; "iCCP" is the plain ICC profile.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    format: str = ""
    deep: bool = False
    text: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    converted: str = ""
    profile: Mapping[str, bytes] = dataclasses.field(default_factory=dict)

    @property
    def grey(self) -> bool:
        return self.pixels.ndim == 2

    @property
    def top(self) -> int:
        """The value of white."""
        return int(np.iinfo(self.pixels.dtype).max)

    @property
    def uint8(self) -> np.ndarray:
        """The pixels at 8 bits, rounded."""
        return _eight(self.pixels)

    @property
    def rgb(self) -> np.ndarray:
        """uint8 [H,W,3]."""
        return np.repeat(self.uint8[..., None], 3, axis=2) if self.grey else self.uint8


def read_rgb(
    path: str | os.PathLike, *, say: Callable[[str], None] = lambda text: None
) -> np.ndarray:
    """Read an image file as 8-bit RGB; transparent parts are laid over white.

    See `read_image` for what is accepted.

    Args:
      path: the file.
      say: receives the notes on what of the file is left out.

    Returns:
      uint8 [H,W,3].

    Raises:
      ImageError: the file is missing, damaged, too large or no image.
    """
    picture = read_image(path)
    for note in picture.notes:
        say(note)
    rgb = picture.rgb
    if picture.alpha is None:
        return rgb
    cover = _eight(picture.alpha)[..., None].astype(np.uint16)
    return ((rgb * cover + 255 * (255 - cover) + 127) // 255).astype(np.uint8)


def read_image(
    path: str | os.PathLike,
    *,
    keep_profile: bool = False,
    page: int = 1,
    bands: Sequence[int] | None = None,
) -> Picture:
    """Read an image file: its pixels in colour or grey, and its transparency.

    The content of the file decides what it is, not its ending.  Applies the EXIF
    orientation; expands palettes, 1-bit and CMYK; converts colours to sRGB.  More than 8
    bits become 16, floats in [0,1] too.  Of an animation, the first frame.

    Args:
      path: PNG, JPEG, WebP, TIFF, BMP, PPM, GIF or AVIF file; HEIC and JPEG XL where their
        plug-ins of Pillow are installed.
      keep_profile: leave the colours as stored, and hand on what they mean (CMYK is
        converted all the same).
      page: number of a TIFF's page, from 1.
      bands: numbers of one or three samples of a TIFF, from 1, to be taken as grey or RGB.

    Returns:
      a `Picture`.

    Raises:
      ImageError: the file is missing, damaged, truncated, no image, empty, of a kind or a
        layout that is not supported, or larger than Pillow's MAX_IMAGE_PIXELS.
    """
    path = Path(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode) and not path.is_dir():
            raise LayoutError("is a pipe or a device, not an image file")
        with open(path, "rb") as file:
            kind = container(file.read(HEAD))
            if file.tell() == 0:
                raise LayoutError("is empty")
            if not readable(kind):
                raise LayoutError(refusal(kind))
            file.seek(0)
            if kind == "TIFF":
                found = by_tifffile(path, page, bands)
            else:
                found = by_pillow(file, kind)
        return _picture(found, kind, keep_profile)
    except LayoutError as error:
        reason = str(error)
    except FileNotFoundError:
        reason = "no such file"
    except IsADirectoryError:
        reason = "is a folder, not an image file"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, OverflowError):
        reason = (
            f"has more than {Image.MAX_IMAGE_PIXELS} pixels, the limit that guards against "
            "decompression bombs"
        )
    except Exception as error:  # on damaged files the decoders raise nearly anything
        reason = f"cannot be decoded ({str(error) or type(error).__name__})"
    raise ImageError(one_line(f"{path}: {reason}"))


def write_png(path: str | os.PathLike, rgb) -> None:
    """Write an 8-bit RGB image as PNG; the file appears whole or not at all.

    Args:
      path: the file; its folder must exist.
      rgb: uint8 [H,W,3].

    Raises:
      ValueError: another dtype or shape.
      OSError: the file cannot be written.
    """
    rgb = np.asarray(rgb)
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise ValueError(f"rgb must be uint8 [H,W,3], got {rgb.dtype} {rgb.shape}")
    with atomic_write(path) as file:
        Image.fromarray(np.ascontiguousarray(rgb)).save(file, format="PNG")


def _picture(found: Decoded, kind: str, keep_profile: bool) -> Picture:
    values, notes, name = found.values, list(found.notes), ""
    cmyk = values.ndim == 3 and values.shape[2] == 4
    if cmyk and values.dtype != np.uint8:
        values = _eight(values)
        notes.append("CMYK is read at 8 bits")
    if cmyk or not keep_profile:
        try:
            values, name = to_srgb(values, found.meant)
        except ProfileError as error:
            notes.append(f"{error}; its colours are taken as sRGB")
    if cmyk and values.shape[2] == 4:
        values = cmyk_to_rgb(np.ascontiguousarray(values))
    if values.ndim == 3 and all((values[..., 0] == values[..., i]).all() for i in (1, 2)):
        values = values[..., 0]
    alpha = found.alpha
    if alpha is not None and alpha.dtype != values.dtype:
        alpha = _eight(alpha)
    return Picture(
        upright(values, found.orientation),
        None if alpha is None else upright(alpha, found.orientation),
        kind,
        found.deep,
        found.text,
        tuple(notes),
        name,
        found.meant if keep_profile and not cmyk else {},
    )


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turn [H,W,...] as the EXIF tag Orientation says; values out of 1..8 do nothing."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def _eight(array: np.ndarray) -> np.ndarray:
    return array if array.dtype == np.uint8 else np.rint(array / 257).astype(np.uint8)
