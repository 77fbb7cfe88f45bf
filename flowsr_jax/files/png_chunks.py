"""The chunks of a PNG file: the pixels apart from what stands beside them.

A text, a profile or a wrong checksum beside good pixels must not decide over them, so
Pillow gets a file of critical chunks only, and what else counts is taken here.
"""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from typing import BinaryIO

MAGIC = b"\x89PNG\r\n\x1a\n"
KEPT = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT", b"eXIf"}
SIDE = {b"iCCP", b"gAMA", b"cHRM", b"cICP", b"sRGB"}
TEXTS = {b"tEXt", b"zTXt", b"iTXt"}
MAX_PROFILE = 1 << 26  # bytes of a profile, decompressed
# Texts that hold EXIF data, and with it the orientation: handed on at any usual length.
LONG = {"XML:com.adobe.xmp": 1 << 20, "Raw profile type exif": 1 << 20}


def split(file: BinaryIO, max_text: int) -> tuple[io.BytesIO, dict, dict[str, str], list[str]]:
    """Take a PNG file apart.

    Args:
      file: open at the start.
      max_text: characters of a text that is handed on; longer ones are left out.

    Returns:
      (a PNG file of what the pixels need, {chunk name: content} of SIDE chunks with a
      right checksum, {keyword: text}, notes on chunks that are damaged).  Profiles are
      decompressed.  What is no chunk goes on into the file, for the decoder to refuse.
    """
    out = io.BytesIO()
    out.write(file.read(len(MAGIC)))
    side: dict[str, bytes] = {}
    texts: dict[str, str] = {}
    notes: list[str] = []
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        ancillary = name.isalpha() and bool(name[0] & 32)
        if not ancillary or name in KEPT - {b"eXIf", b"tRNS"}:
            out.write(head)
            _copy(file, out, length + 4)
            if name == b"IEND":
                break
            continue
        content, checksum = file.read(length), file.read(4)
        if len(content) < length:
            break
        if int.from_bytes(checksum, "big") != zlib.crc32(content, zlib.crc32(name)):
            notes.append(f"its {name.decode('latin-1')} chunk is damaged and left out")
        elif name in KEPT:
            out.write(head + content + checksum)
        elif name == b"iCCP":
            with contextlib.suppress(zlib.error, ValueError):
                packed = content[content.index(b"\0") + 2 :]
                side["iCCP"] = zlib.decompressobj().decompress(packed, MAX_PROFILE)
            if not side.get("iCCP"):
                notes.append("its colour profile is damaged and not applied")
        elif name in SIDE:
            side[name.decode()] = content
        elif name in TEXTS:
            with contextlib.suppress(zlib.error, ValueError):
                key, value = _text(name, content, max_text)
                if len(value) <= LONG.get(key, max_text):
                    texts[key] = value
    else:
        out.write(head)
    out.seek(0)
    return out, side, texts, notes


def header(file: BinaryIO) -> tuple[int, int, int, int]:
    """Return (width, height, bits per sample, colour type) of a PNG file; rewinds it."""
    start = file.read(26)
    file.seek(0)
    if len(start) < 26 or start[12:16] != b"IHDR":
        raise ValueError("its header is damaged")
    return struct.unpack(">IIBB", start[16:26])


def _copy(source: BinaryIO, target: BinaryIO, count: int) -> None:
    while count and (block := source.read(min(count, 1 << 20))):
        target.write(block)
        count -= len(block)


def _text(name: bytes, content: bytes, limit: int) -> tuple[str, str]:
    key, _, rest = content.partition(b"\0")
    encoding, packed = "latin-1", name == b"zTXt"
    if packed:
        rest = rest[1:]
    if name == b"iTXt":
        encoding, packed = "utf-8", rest[:1] == b"\1"
        rest = rest[2:].split(b"\0", 2)[2] if rest[2:].count(b"\0") >= 2 else b""
    keyword = key.decode("latin-1")
    if packed:  # one byte more than is wanted tells that it is too long
        most = 4 * LONG.get(keyword, limit) + 1
        rest = zlib.decompressobj().decompress(rest, most)
    return keyword, rest.decode(encoding)
