"""PNG files written row by row, so that no image has to be in memory as a whole."""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO

import numpy as np

from flowsr_jax.files.atomic import atomic_write

COLOUR_TYPE = {1: 0, 2: 4, 3: 2, 4: 6}  # by channels: grey, grey + alpha, RGB, RGBA
SUB, UP, PAETH = 1, 2, 4
LEVEL = 4  # of zlib: files about as small as at 6, in two thirds of the time
BLOCK_BYTES = 1 << 20  # filtered and compressed at a time
MAX_SIDE = 2**31 - 1


class PngRows:
    """Takes the rows of a PNG, from top to bottom; see `open_png`."""

    def __init__(
        self,
        file: BinaryIO,
        height: int,
        width: int,
        channels: int,
        text: Mapping[str, str] | None = None,
        *,
        depth: int = 8,
        chunks: Sequence[tuple[bytes, bytes]] = (),
    ):
        if channels not in COLOUR_TYPE:
            raise ValueError(f"channels = {channels!r} is not one of {tuple(COLOUR_TYPE)}")
        if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
            raise ValueError(f"a PNG cannot have {height} x {width} pixels")
        self._file, self._shape, self._missing = file, (width, channels), height
        self._type = {8: np.dtype(np.uint8), 16: np.dtype(np.uint16)}[depth]
        self._above = np.zeros((1, width, channels * depth // 8), np.uint8)
        self._deflate = zlib.compressobj(LEVEL)
        file.write(b"\x89PNG\r\n\x1a\n")
        header = struct.pack(">IIBBBBB", width, height, depth, COLOUR_TYPE[channels], 0, 0, 0)
        self._chunk(b"IHDR", header)
        for name, content in chunks:
            self._chunk(name, content)
        for key, value in (text or {}).items():
            self._chunk(b"tEXt", key.encode("latin-1") + b"\0" + value.encode("latin-1"))

    def write(self, rows) -> None:
        """Append rows: [N,width,channels], or [N,width] with one channel; uint8, or uint16.

        Raises:
          ValueError: another dtype or shape, or more rows than the image has.
          OSError: the file cannot be written.
        """
        rows = np.asarray(rows)
        rows = rows[..., None] if rows.ndim == 2 else rows
        if rows.dtype != self._type or rows.shape[1:] != self._shape or len(rows) > self._missing:
            raise ValueError(
                f"rows must be {self._type} [N,{self._shape[0]},{self._shape[1]}] with N <= "
                f"{self._missing}, got {rows.dtype} {rows.shape}"
            )
        self._missing -= len(rows)
        if rows.dtype == np.uint16:  # a pixel is its bytes, the high one first
            rows = np.ascontiguousarray(rows, ">u2").view(np.uint8)
        block = max(1, BLOCK_BYTES // rows[:1].nbytes) if len(rows) else 1
        for start in range(0, len(rows), block):
            part = rows[start : start + block]
            self._data(self._deflate.compress(_filtered(part, self._above)))
            self._above = part[-1:].copy()

    def finish(self) -> None:
        """End the file.

        Raises:
          ValueError: rows are missing.
        """
        if self._missing:
            raise ValueError(f"{self._missing} rows of the PNG are missing")
        self._data(self._deflate.flush())
        self._chunk(b"IEND", b"")

    def _data(self, content: bytes) -> None:
        if content:
            self._chunk(b"IDAT", content)

    def _chunk(self, name: bytes, content: bytes) -> None:
        self._file.write(struct.pack(">I", len(content)))
        self._file.write(name + content)
        self._file.write(struct.pack(">I", zlib.crc32(content, zlib.crc32(name))))


@contextlib.contextmanager
def open_png(
    path: str | os.PathLike,
    height: int,
    width: int,
    channels: int = 3,
    text: Mapping[str, str] | None = None,
    *,
    depth: int = 8,
    chunks: Sequence[tuple[bytes, bytes]] = (),
) -> Iterator[PngRows]:
    """Open a PNG for writing row by row; the file appears whole or not at all.

    Args:
      path: the file; its folder must exist.
      height, width: in pixels, at least 1.
      channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA.
      text: {keyword: text} to be put into the file, Latin-1.
      depth: 8 or 16 bits per channel.
      chunks: (name, content) of further chunks, in front of the pixels.

    Yields:
      a `PngRows`; its `finish` is called at the end of the block.

    Raises:
      ValueError: a size or channel count that no PNG has, or rows missing at the end.
      OSError: the file cannot be written.
    """
    with atomic_write(path) as file:
        rows = PngRows(file, height, width, channels, text, depth=depth, chunks=chunks)
        yield rows
        rows.finish()


def _filtered(rows: np.ndarray, above: np.ndarray) -> bytes:
    """Filter rows, each in the way that leaves the smallest differences; `above` is [1,...]."""
    n = len(rows)
    up = np.concatenate([above, rows[:-1]])
    left, corner = (np.pad(x[:, :-1], ((0, 0), (1, 0), (0, 0))) for x in (rows, up))
    found = {SUB: rows - left, UP: rows - up, PAETH: rows - _paeth(left, up, corner)}
    found = {kind: x.reshape(n, -1) for kind, x in found.items()}
    # The usual rule: differences count as signed bytes.
    cost = [np.abs(x.view(np.int8).astype(np.int16)).sum(axis=1) for x in found.values()]
    best = np.array(list(found), np.uint8)[np.argmin(cost, axis=0)]
    out = np.empty((n, 1 + found[UP].shape[1]), np.uint8)
    out[:, 0] = best
    for kind, x in found.items():
        out[best == kind, 1:] = x[best == kind]
    return out.tobytes()


def _paeth(left, up, corner):
    a, b, c = (x.astype(np.int16) for x in (left, up, corner))
    pa, pb = np.abs(b - c), np.abs(a - c)
    pc = np.abs(a + b - 2 * c)
    return np.where((pa <= pb) & (pa <= pc), left, np.where(pb <= pc, up, corner))
