"""What kind of file this is, by its first bytes: the content decides, not the ending."""

from __future__ import annotations

import importlib

from PIL import Image

HEAD = 256  # bytes that `container` wants to see

# Kinds that are read, by their names in Pillow.
READ = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "DIB", "PPM", "GIF", "AVIF")
# Read where a plug-in of Pillow is installed: (module, function that registers it, package).
PLUGINS = {
    "HEIF": ("pillow_heif", "register_heif_opener", "pillow-heif"),
    "JXL": ("pillow_jxl", None, "pillow-jxl-plugin"),
}
NAMES = {"HEIF": "HEIC", "JXL": "JPEG XL", "HDR": "Radiance HDR", "EXR": "OpenEXR"}

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF8", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"BM", "BMP"),
    (b"\x28\0\0\0", "DIB"),
    (b"\xff\x0a", "JXL"),
    (b"\0\0\0\x0cJXL ", "JXL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\x76\x2f\x31\x01", "EXR"),
    (b"#?RADIANCE", "HDR"),
    (b"#?RGBE", "HDR"),
    (b"8BPS", "Photoshop"),
    (b"DDS ", "DirectDraw"),
    (b"\0\0\1\0", "icon"),
    (b"SIMPLE  =", "FITS"),
    (b"P7\n", "PAM"),
    (b"PF\n", "PFM"),
    (b"Pf\n", "PFM"),
    (b"%PDF", "PDF"),
    (b"<svg", "SVG"),
)
_BRANDS = {
    b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIF", b"heix": "HEIF", b"hevc": "HEIF",
    b"heim": "HEIF", b"heis": "HEIF", b"mif1": "HEIF", b"msf1": "HEIF",
}  # fmt: skip


def container(head: bytes) -> str | None:
    """Return the kind of a file by its first `HEAD` bytes, or None if it is not known.

    Kinds are those of `READ` and `PLUGINS`, and names of others that are not read.
    """
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        length = int.from_bytes(head[:4], "big")
        brands = [head[8:12], *(head[i : i + 4] for i in range(16, min(length, len(head)), 4))]
        found = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
        return "AVIF" if "AVIF" in found else found[0] if found else None
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace():
        return "PPM"
    if head[128:132] == b"DICM":
        return "DICOM"
    return next((name for magic, name in _SIGNATURES if head.startswith(magic)), None)


def readable(kind: str | None) -> bool:
    """Return whether files of a kind can be read here, plug-ins of Pillow included."""
    if kind in PLUGINS and kind not in Image.OPEN:
        module, register, _ = PLUGINS[kind]
        try:
            plugin = importlib.import_module(module)
        except ImportError:
            return False
        if register:
            getattr(plugin, register)()
    if kind == "TIFF":
        return True
    Image.init()
    return kind in (*READ, *PLUGINS) and kind in Image.OPEN


def refusal(kind: str | None) -> str:
    """Return why files of a kind that is not `readable` are not read."""
    if kind is None:
        known = ", ".join(name for name in READ if readable(name))
        return f"not an image of a known kind ({known})"
    if kind in PLUGINS:
        return (
            f"is a {NAMES[kind]} file; reading it needs a plug-in: pip install {PLUGINS[kind][2]}"
        )
    if kind in READ:
        return f"is a {kind} file, which this build of Pillow cannot read"
    article = "an" if kind[0] in "AEIO" else "a"
    return f"is {article} {NAMES.get(kind, kind)} file, a kind that is not supported"
