"""What AVIF and HEIC files say of their colours and depth; Pillow decodes them to 8 bits.

Sources: ISO/IEC 14496-12 (box colr, type nclx), AV1-ISOBMFF (av1C), ISO/IEC 14496-15 (hvcC).
"""

from __future__ import annotations

HEAD = 1 << 16  # bytes that the boxes lie in
UNSPECIFIED = 2  # of colour primaries and of transfer functions
# A camera's curve; pictures with it are shown like sRGB.
CAMERA = (1, 6, 14, 15)
SRGB = 13


def colours(head: bytes) -> tuple[bytes | None, int]:
    """Return (the content of a cICP chunk that says the same, bits per sample) of a file.

    Args:
      head: its first HEAD bytes.

    Returns:
      None for colours that are not specified, and 8 bits where nothing is said.
    """
    return _cicp(head), _bits(head)


def _cicp(head: bytes) -> bytes | None:
    start = head.find(b"colrnclx")
    if start < 0 or len(head) < start + 12:
        return None
    primaries, transfer = (int.from_bytes(head[start + i : start + i + 2], "big") for i in (8, 10))
    if primaries in (0, UNSPECIFIED):
        primaries = 1
    if transfer in (0, UNSPECIFIED, *CAMERA):
        transfer = SRGB
    # Pillow has applied the matrix, and gives the full range.
    return bytes([min(primaries, 255), min(transfer, 255), 0, 1])


def _bits(head: bytes) -> int:
    av1, hevc = head.find(b"av1C"), head.find(b"hvcC")
    if 0 <= av1 < len(head) - 6:
        flags = head[av1 + 6]
        return (12 if flags & 0x20 else 10) if flags & 0x40 else 8
    if 0 <= hevc < len(head) - 22:
        return 8 + (head[hevc + 4 + 17] & 7)
    return 8
