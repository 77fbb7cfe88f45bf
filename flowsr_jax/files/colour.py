"""Colours as files mean them, turned into sRGB; luma; 8-bit pixels and floats.

Colours that are described by curves and a matrix (most ICC profiles of RGB and grey; cICP;
gAMA and cHRM) are converted here at any depth.  Profiles that are tables, and CMYK, go
through LittleCMS (Pillow), which has 8 bits there.

Sources: ICC.1:2022 (tags curv and para, 10.6 and 10.18), PNG third edition (11.3.2),
ITU-T H.273 (code points of cICP), IEC 61966-2-1 (sRGB).
"""

from __future__ import annotations

import dataclasses
import io
import struct
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageCms

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, of red, green and blue
D65 = (0.3127, 0.329)
REC709 = (0.64, 0.33, 0.3, 0.6, 0.15, 0.06)  # x and y of red, green and blue: sRGB's
P3 = (0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
REC2020 = (0.708, 0.292, 0.17, 0.797, 0.131, 0.046)
PRIMARIES = {1: REC709, 9: REC2020, 11: P3, 12: P3}  # of cICP
SRGB_GAMMA = 1 / 2.2
BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
PCS_WHITE = np.array([0.9642, 1.0, 0.8249])  # D50, of ICC profiles
BLOCK = 1 << 20  # pixels converted at a time
# Adobe RGB (1998) as chunks of a PNG: cameras name it in EXIF, without a profile.
ADOBE = {
    "gAMA": round(100000 / (563 / 256)).to_bytes(4, "big"),
    "cHRM": struct.pack(">8I", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000),
}

Curve = Callable[[np.ndarray], np.ndarray]


class ProfileError(ValueError):
    """A description of colours that cannot be applied; the reason."""


@dataclasses.dataclass(frozen=True)
class Space:
    """Colours as a curve per channel and a matrix.

    Attributes:
      curves: one or three functions of samples in [0,1]; their results are linear in light.
      matrix: float64 [3,3], from linear samples to linear sRGB.
    """

    curves: tuple[Curve, ...]
    matrix: np.ndarray


def to_srgb(pixels: np.ndarray, meant: Mapping[str, bytes]) -> tuple[np.ndarray, str]:
    """Convert pixels to sRGB.

    Args:
      pixels: uint8 or uint16, [H,W,3] RGB, [H,W,4] CMYK (uint8), or [H,W] grey.
      meant: the contents of the PNG chunks that say what colours mean (of other kinds of
        files "iCCP" alone, the profile).  The first of cICP, iCCP, sRGB and gAMA counts.

    Returns:
      (pixels of the same dtype, [H,W,3] or [H,W]; the name of the colours that they were
      converted from, or "" if they are sRGB already, which leaves them as they are).

    Raises:
      ProfileError: what is said cannot be applied.
    """
    if "cICP" in meant:
        return _apply(pixels, _of_cicp(meant["cICP"]), "cICP")
    if "iCCP" in meant:
        return _of_profile(pixels, meant["iCCP"])
    if "sRGB" in meant or "gAMA" not in meant:
        return pixels, ""
    name = "Adobe RGB" if meant.get("cHRM") == ADOBE["cHRM"] else "gAMA"
    return _apply(pixels, _of_gamma(meant["gAMA"], meant.get("cHRM")), name)


def to_float(pixels: np.ndarray) -> np.ndarray:
    """Turn uint8 or uint16 pixels into float32 in [0,1]."""
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def cmyk_to_rgb(pixels: np.ndarray) -> np.ndarray:
    """Turn uint8 CMYK [H,W,4] without a profile into uint8 RGB [H,W,3], as Pillow does."""
    return np.array(Image.fromarray(pixels, "CMYK").convert("RGB"))


def encode(linear: np.ndarray) -> np.ndarray:
    """Return sRGB values of light in [0,1]."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.power(linear, 1 / 2.4) - 0.055)


def decode(values: np.ndarray) -> np.ndarray:
    """Return light in [0,1] of sRGB values."""
    return np.where(values <= 0.04045, values / 12.92, np.power((values + 0.055) / 1.055, 2.4))


def _apply(pixels: np.ndarray, space: Space, name: str) -> tuple[np.ndarray, str]:
    probe = _probe(pixels)
    levels = np.iinfo(pixels.dtype).max / 255
    changed = np.abs(_converted(probe, space).astype(float) - probe).max() / levels
    if changed <= 1:
        return pixels, ""
    out = np.empty_like(pixels)
    step = max(1, BLOCK // pixels.shape[1])
    for top in range(0, len(pixels), step):
        out[top : top + step] = _converted(pixels[top : top + step], space)
    return out, name


def _converted(pixels: np.ndarray, space: Space) -> np.ndarray:
    top = np.iinfo(pixels.dtype).max
    tables = [np.clip(c(np.arange(top + 1) / top), 0, 1).astype(np.float32) for c in space.curves]
    if pixels.ndim == 2:
        linear = tables[0][pixels]
    else:
        tables *= 3 // len(tables)
        linear = np.stack([t[pixels[..., i]] for i, t in enumerate(tables)], axis=-1)
        linear = np.clip(linear @ space.matrix.T.astype(np.float32), 0, 1)
    return np.rint(encode(linear) * top).astype(pixels.dtype)


def _probe(pixels: np.ndarray) -> np.ndarray:
    """Return a few colours of the kind of `pixels`; conversions that keep them keep all."""
    steps = np.linspace(0, np.iinfo(pixels.dtype).max, 9).astype(pixels.dtype)
    if pixels.ndim == 2:
        return steps[None]
    return np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)


def _to_xyz(primaries, white) -> np.ndarray:
    """Return the matrix from linear RGB to XYZ of chromaticities."""
    columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in np.reshape(primaries, (3, 2))]).T
    return columns * np.linalg.solve(columns, _white(white))


def _white(xy) -> np.ndarray:
    return np.array([xy[0] / xy[1], 1, (1 - xy[0] - xy[1]) / xy[1]])


def _matrix(to_xyz: np.ndarray, white: np.ndarray) -> np.ndarray:
    """Return the matrix to linear sRGB; colours are adapted (Bradford) to its white."""
    gains = (BRADFORD @ _white(D65)) / (BRADFORD @ white)
    adapt = np.linalg.inv(BRADFORD) @ (gains[:, None] * BRADFORD)
    return np.linalg.inv(_to_xyz(REC709, D65)) @ adapt @ to_xyz


def _of_cicp(content: bytes) -> Space:
    if len(content) != 4:
        raise ProfileError("its cICP chunk is damaged")
    primaries, transfer, matrix, full = content
    if primaries not in PRIMARIES or matrix != 0 or full != 1:
        raise ProfileError(f"its colours (cICP {primaries}/{transfer}/{matrix}) are not known")
    # 1, 6, 14, 15 are a camera's curve; pictures made with it are shown by power 2.4.
    powers = {1: 2.4, 6: 2.4, 14: 2.4, 15: 2.4, 4: 2.2, 5: 2.8, 8: 1.0}
    if transfer == 13:
        curve = decode
    elif transfer in powers:
        curve = _power(powers[transfer])
    else:
        kind = {16: "PQ, high dynamic range", 18: "HLG, high dynamic range"}.get(transfer, transfer)
        raise ProfileError(f"its transfer function (cICP: {kind}) is not supported")
    return Space((curve,), _matrix(_to_xyz(PRIMARIES[primaries], D65), _white(D65)))


def _of_gamma(gamma: bytes, chromaticities: bytes | None) -> Space:
    if len(gamma) != 4 or not (value := int.from_bytes(gamma, "big")):
        raise ProfileError("its gAMA chunk is damaged")
    exponent = value / 100000
    # Writers put 1 / 2.2 for sRGB itself (PNG, 13.13).
    curve = decode if abs(exponent - SRGB_GAMMA) < 0.002 else _power(1 / exponent)
    primaries, white = REC709, D65
    if chromaticities is not None and len(chromaticities) == 32:
        numbers = np.array(struct.unpack(">8I", chromaticities)) / 100000
        if (numbers[1::2] > 0).all():
            white, primaries = numbers[:2], numbers[2:]
    try:
        return Space((curve,), _matrix(_to_xyz(primaries, white), _white(white)))
    except np.linalg.LinAlgError:
        raise ProfileError("its cHRM chunk is damaged") from None


def _power(exponent: float) -> Curve:
    return lambda values: np.power(values, exponent)


def _of_profile(pixels: np.ndarray, icc: bytes) -> tuple[np.ndarray, str]:
    kind = icc[16:20].decode("latin-1").strip()
    wanted = {"RGB": 3, "GRAY": 1, "CMYK": 4}.get(kind)
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if (wanted, channels) == (3, 1):
        out, name = _of_profile(np.repeat(pixels[..., None], 3, axis=2), icc)
        if not name:
            return pixels, ""
        tinted = np.ptp(out, axis=-1).max() > 2 / 255 * np.iinfo(out.dtype).max
        return (out if tinted else out[..., 1]), name
    if wanted != channels:
        raise ProfileError(f"its colour profile is of another kind ({kind or 'none'})")
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        name = " ".join((ImageCms.getProfileDescription(profile) or "its profile").split())
        tags = _tags(icc)
        if pixels.dtype == np.uint8 and ({"A2B0", "A2B1"} & set(tags) or channels == 4):
            return _by_lcms(pixels, profile, name)
    except (ImageCms.PyCMSError, OSError) as error:
        raise ProfileError(f"its colour profile cannot be applied ({error})") from None
    return _apply(pixels, _of_tags(tags), name)


def _by_lcms(pixels: np.ndarray, profile, name: str) -> tuple[np.ndarray, str]:
    mode = {2: "L"}.get(pixels.ndim) or {3: "RGB", 4: "CMYK"}[pixels.shape[2]]
    transform = ImageCms.buildTransform(
        profile,
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    image = Image.fromarray(np.ascontiguousarray(pixels), mode)
    out = np.array(ImageCms.applyTransform(image, transform))
    return (out[..., 1] if mode == "L" else out), name


def _tags(icc: bytes) -> dict[str, bytes]:
    try:
        tags = {}
        for i in range(struct.unpack(">I", icc[128:132])[0]):
            name, start, size = struct.unpack(">4sII", icc[132 + 12 * i : 144 + 12 * i])
            tags[name.decode("latin-1")] = icc[start : start + size]
    except struct.error:
        raise ProfileError("its colour profile is damaged") from None
    return tags


def _of_tags(tags: Mapping[str, bytes]) -> Space:
    """Read the curves and the matrix of an RGB or grey profile."""
    try:
        if "kTRC" in tags:
            return Space((_curve(tags["kTRC"]),), np.eye(3))
        columns = [np.array(struct.unpack(">3i", tags[f"{c}XYZ"][8:20])) / 65536 for c in "rgb"]
        curves = tuple(_curve(tags[f"{c}TRC"]) for c in "rgb")
    except KeyError:
        raise ProfileError("its colour profile is a table, which is applied to 8 bits") from None
    except (struct.error, IndexError, ZeroDivisionError):
        raise ProfileError("its colour profile is damaged") from None
    return Space(curves, _matrix(np.array(columns).T, PCS_WHITE))


def _curve(tag: bytes) -> Curve:
    if tag[:4] == b"curv":
        count = struct.unpack(">I", tag[8:12])[0]
        numbers = np.array(struct.unpack(f">{count}H", tag[12 : 12 + 2 * count]))
        if count == 0:
            return lambda x: x
        if count == 1:
            return _power(numbers[0] / 256)
        return lambda x: np.interp(x, np.linspace(0, 1, count), numbers / 65535)
    kind = struct.unpack(">H", tag[8:10])[0]
    count = (1, 3, 4, 5, 7)[kind]
    g, *rest = (n / 65536 for n in struct.unpack(f">{count}i", tag[12 : 12 + 4 * count]))
    a, b, c, d, e, f = {
        0: lambda: (1, 0, 0, 0, 0, 0),
        1: lambda: (rest[0], rest[1], 0, -rest[1] / rest[0], 0, 0),
        2: lambda: (rest[0], rest[1], 0, -rest[1] / rest[0], rest[2], rest[2]),
        3: lambda: (*rest, 0, 0),
        4: lambda: tuple(rest),
    }[kind]()
    return lambda x: np.where(x >= d, np.power(np.maximum(a * x + b, 0), g) + e, c * x + f)
