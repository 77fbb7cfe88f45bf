"""Image files: everything that people have on disk becomes pixels, or one clear error."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from flowsr_jax.files.atomic import atomic_write

# No EPS (it runs an outside program) and no rare formats.
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "PPM", "GIF")
SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".ppm", ".pgm", ".pbm", ".gif",
)  # fmt: skip
MAX_TEXT = 1000  # characters of a text that is handed on


class ImageError(ValueError):
    """A file that cannot be read as an image; one line naming the file and the reason."""


class _Unusable(ValueError):
    """A readable file whose pixels cannot be used; the reason."""


@dataclasses.dataclass(frozen=True)
class Picture:
    """A decoded image file.

    Attributes:
      pixels: [H,W,3] uint8 in colour; [H,W] uint8, or uint16 of 16-bit and float files,
        in grey.  Colours are as stored, not multiplied by alpha.
      alpha: uint8 [H,W], or None when the file has none.
      format: one of FORMATS.
      deep: the file holds more than 8 bits per channel.
      text: {keyword: text} of a PNG file, as found (by anyone); long ones are left out.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    format: str = ""
    deep: bool = False
    text: Mapping[str, str] = dataclasses.field(default_factory=dict)

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
        if self.pixels.dtype == np.uint8:
            return self.pixels
        return np.rint(self.pixels * (255 / self.top)).astype(np.uint8)

    @property
    def rgb(self) -> np.ndarray:
        """uint8 [H,W,3]."""
        return np.repeat(self.uint8[..., None], 3, axis=2) if self.grey else self.pixels


def read_rgb(path: str | os.PathLike) -> np.ndarray:
    """Read an image file as 8-bit RGB; transparent parts are laid over white.

    See `read_image` for what is accepted.

    Returns:
      uint8 [H,W,3].

    Raises:
      ImageError: the file is missing, damaged, too large or no image.
    """
    picture = read_image(path)
    rgb = picture.rgb
    if picture.alpha is None:
        return rgb
    cover = picture.alpha[..., None].astype(np.uint16)
    return ((rgb * cover + 255 * (255 - cover) + 127) // 255).astype(np.uint8)


def read_image(path: str | os.PathLike) -> Picture:
    """Read an image file: its pixels in colour or grey, and its transparency.

    Applies the EXIF orientation; expands palettes, 1-bit and CMYK.  16-bit grey keeps
    its precision, floats in [0,1] become 16 bits; 16-bit colour PNG is read at 8-bit
    precision (the low byte is dropped).  Of an animation, the first frame.

    Args:
      path: PNG, JPEG, WebP, TIFF, BMP, PPM or GIF file.

    Returns:
      a `Picture`.

    Raises:
      ImageError: the file is missing, damaged, truncated, no image, empty, of a kind
        whose value range is unknown, or larger than Pillow's MAX_IMAGE_PIXELS.
    """
    path = Path(path)
    Image.init()
    known = [name for name in FORMATS if name in Image.OPEN]  # WebP may not be built in
    try:
        with Image.open(path, formats=known) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise Image.DecompressionBombError
            if 0 in image.size:
                raise _Unusable(f"has no pixels ({image.width}x{image.height})")
            kind, deep = image.format, _deep(image)
            image.load()
            text = {k: v for k, v in getattr(image, "text", {}).items() if len(v) <= MAX_TEXT}
            picture = _picture(_upright(image), kind)
            return dataclasses.replace(picture, format=kind, deep=deep, text=text)
    except _Unusable as error:
        reason = str(error)
    except FileNotFoundError:
        reason = "no such file"
    except IsADirectoryError:
        reason = "is a folder, not an image file"
    except Image.UnidentifiedImageError:
        reason = f"not an image of a known kind ({', '.join(known)})"
        if path.stat().st_size == 0:
            reason = "is empty"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        reason = (
            f"has more than {Image.MAX_IMAGE_PIXELS} pixels, the limit that guards against "
            "decompression bombs"
        )
    except Exception as error:  # on damaged files the decoders raise nearly anything
        reason = f"cannot be decoded ({str(error) or type(error).__name__})"
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in f"{path}: {reason}")
    raise ImageError(line)


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


def list_images(path: str | os.PathLike) -> list[Path]:
    """List the image files of a folder and its sub-folders, sorted; a file lists itself.

    Chosen by suffix (any case); hidden files and folders are left out.

    Raises:
      ImageError: there is no such file or folder.
    """
    path = Path(path)
    if path.is_dir():
        found = []
        for folder, subfolders, names in os.walk(path):
            subfolders[:] = [s for s in subfolders if not s.startswith(".")]
            found += [
                Path(folder, name)
                for name in names
                if name.lower().endswith(SUFFIXES) and not name.startswith(".")
            ]
        return sorted(found)
    if not path.exists():
        raise ImageError(f"{path}: no such file or folder")
    return [path]


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data; the pixels are fine, so show them as stored
        return image


def _deep(image: Image.Image) -> bool:
    """Whether an image, not yet loaded, has more than 8 bits per channel.

    The mode does not tell, because colours are decoded to 8 bits; what the decoder is
    asked for does: "RGB;16B" of PNG and TIFF, the maximum of PPM.
    """
    if image.mode in ("F", "I") or image.mode.startswith("I;"):
        return True
    asked = image.tile[0][3] if image.tile else ()
    asked = asked if isinstance(asked, tuple) else (asked,)
    if image.format == "PPM":
        return any(isinstance(a, int) and a > 255 for a in asked)
    return image.format in ("PNG", "TIFF") and any(";16" in str(a) for a in asked)


def _picture(image: Image.Image, kind: str) -> Picture:
    if image.mode in ("F", "I") or image.mode.startswith("I;"):
        return Picture(_grey16(image, kind))
    grey = image.mode in ("1", "L", "LA", "La")
    alpha = None
    if "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        image = image.convert("RGBA")
        alpha = np.array(image.getchannel("A"))
    if grey:
        return Picture(np.array(image.getchannel(0).convert("L")), alpha)
    return Picture(np.array(image.convert("RGB")), alpha)


def _grey16(image: Image.Image, kind: str) -> np.ndarray:
    # Pillow's own conversion of these modes clips at 255 (16-bit images turn white).
    values = np.array(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise _Unusable("has samples that are not finite")
    top = 1.0 if image.mode == "F" else 65535.0
    known = image.mode.startswith("I;16") or kind in ("PNG", "PPM") or image.mode == "F"
    if not known or values.min() < 0 or values.max() > top:
        raise _Unusable(
            f"has {image.mode} samples in {values.min():g}..{values.max():g}; only 8-bit, "
            "16-bit and floats in 0..1 have a known range"
        )
    return np.rint(values * (65535 / top)).astype(np.uint16)
