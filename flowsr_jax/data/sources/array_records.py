"""Images in a few large files (ArrayRecord), written by `flowsr prepare-data`.

A folder of records holds `records.json`, written last, and the files that it lists.  A record
is a header, a name, and the pixels of HR and perhaps LR: row by row, each sample as the
difference to the one three bytes to its left (its own channel of the pixel before; modulo
256), which the file's own zstd compresses nearly as well as PNG.  Reading it back is one
cumulative sum, several times faster than decoding a PNG (benchmarks/data.py).
"""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from flowsr_jax.config import ConfigError
from flowsr_jax.console import one_line
from flowsr_jax.data.sources import MIB
from flowsr_jax.data.sources.cache import Cache
from flowsr_jax.data.transforms import fits
from flowsr_jax.extras import require
from flowsr_jax.files.images import ImageError

INDEX = "records.json"
FORMAT = "flowsr_jax records 1"
WRITER_OPTIONS = "group_size:1,zstd:1"  # one record per chunk: random access
# magic, HR and LR height and width (0: no LR), label (-1: none), bytes of the name.
HEADER = struct.Struct("<4s4IqI")
MAGIC = b"FSR1"
FILE_NAME = re.compile(r"records-\d{5}\.array_record")


def encode_record(example: Mapping[str, Any], name: str) -> bytes:
    """Return the bytes of a record.

    Args:
      example: {"hr": uint8 [H,W,3]}, perhaps with "lr" and "label", as sources give them.
      name: what to call the image.
    """
    text = name.encode("utf-8", "replace")
    images = [example[k] for k in ("hr", "lr") if k in example]
    sides = [n for image in images for n in image.shape[:2]]
    label = int(example.get("label", -1))
    head = HEADER.pack(MAGIC, *sides, *[0] * (4 - len(sides)), label, len(text))
    return b"".join([head, text, *(_differences(image) for image in images)])


def decode_record(data: bytes) -> tuple[dict[str, Any], str]:
    """Return the example and the name of a record; the inverse of `encode_record`.

    Raises:
      ValueError: these are not the bytes of a record.
    """
    if len(data) < HEADER.size:
        raise ValueError(f"{len(data)} bytes, fewer than a header")
    magic, *sides, label, length = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise ValueError("it does not begin as a record")
    shapes = {"hr": (*sides[:2], 3), "lr": (*sides[2:], 3)}
    if sides[2:] == [0, 0]:
        del shapes["lr"]
    sizes = {k: shape[0] * shape[1] * 3 for k, shape in shapes.items()}
    wanted = HEADER.size + length + sum(sizes.values())
    if 0 in sizes.values():
        raise ValueError("an image without pixels")
    if len(data) != wanted:
        raise ValueError(f"{len(data)} bytes, its header says {wanted}")
    if label >= 2**31:
        raise ValueError(f"its label is {label}")
    name = one_line(data[HEADER.size : HEADER.size + length].decode("utf-8", "replace"))
    example: dict[str, Any] = {}
    start = HEADER.size + length
    for key, shape in shapes.items():
        flat = np.frombuffer(data, np.uint8, sizes[key], start).reshape(shape)
        example[key] = np.add.accumulate(flat, axis=1, dtype=np.uint8)
        start += sizes[key]
    if label >= 0:
        example["label"] = label
    return example, name


class ArrayRecordSource:
    """The images of a folder written by `flowsr prepare-data`.

    Args:
      folder: the folder with `records.json`.
      scale: HR size over LR size; must be that of the LR images in the records.
      min_size: least height and width of the HR images, in pixels.
      cache_mib: decoded images kept in memory.

    Attributes:
      fields: what an example holds: "hr", perhaps "lr" and "label".

    Raises:
      ConfigError: no such folder, an unfinished or altered one, or images that do not fit
        `scale` or `min_size`.
    """

    def __init__(
        self, folder: str | os.PathLike, scale: int, min_size: int = 1, *, cache_mib: int = 1024
    ):
        require("array_record")
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        self._folder, self._scale = Path(folder), scale
        index = read_index(folder)
        self.fields = tuple(index["fields"])
        if "lr" in self.fields and index["scale"] != scale:
            raise ConfigError(
                f"{folder} holds LR images of scale {index['scale']}, data.scale is {scale}; "
                "write records of that scale, or without LR images"
            )
        if min(index["smallest"]) < min_size:
            raise ConfigError(
                f"{folder} holds images of {'x'.join(map(str, index['smallest']))} pixels, at "
                f"least {min_size}x{min_size} are needed; write larger crops (--crop)"
            )
        parts = [
            SimpleNamespace(
                filename=os.fspath(self._folder / shard["file"]),
                skip=0,
                take=shard["records"],
                examples_in_shard=shard["records"],
            )
            for shard in index["shards"]
        ]
        self._records = ArrayRecordDataSource(parts)
        self._cache = Cache(cache_mib * MIB)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {k: v for k, v in self._read(index).items() if k != "name"}

    def name(self, index: int) -> str:
        """Return the name of the image file, and where the crop lay in it."""
        return self._read(index)["name"]

    def _read(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        return self._cache.get(index, lambda: self._decode(index))

    def _decode(self, index: int) -> dict[str, Any]:
        try:
            example, name = decode_record(self._records[index])
            if tuple(example) != self.fields:
                raise ValueError(f"it holds {tuple(example)} instead of {self.fields}")
            if "lr" in example and not fits(example["hr"].shape, example["lr"].shape, self._scale):
                raise ValueError("its LR image does not fit its HR image")
        except (ValueError, RuntimeError) as error:
            reason = str(error).split(";")[0].split("\n")[0]
            raise ImageError(f"{self._folder}: record {index} is damaged ({reason})") from None
        return {**example, "name": name}


def is_records(folder: str | os.PathLike) -> bool:
    """Return whether a folder holds finished records."""
    return os.path.isfile(os.path.join(folder, INDEX))


def read_index(folder: str | os.PathLike) -> dict[str, Any]:
    """Read and check `records.json` and the presence of the files that it lists.

    Raises:
      ConfigError: there is none, it is not of this format, or a file is missing or has
        another size.
    """
    path = Path(folder) / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        _check_index(index)
    except FileNotFoundError:
        raise ConfigError(
            f"{path.absolute()} is not there: the folder holds no finished records; write them "
            f"with flowsr prepare-data INPUT -o {folder}"
        ) from None
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read ({type(error).__name__}: {error})") from None
    for shard in index["shards"]:
        file = Path(folder) / shard["file"]
        size = file.stat().st_size if file.is_file() else "no"
        if size != shard["bytes"]:
            raise ConfigError(
                f"{file} has {size} bytes, {INDEX} says {shard['bytes']}: copy or write it anew"
            )
    return index


def _check_index(index: Any) -> None:
    """Raise ValueError, KeyError or TypeError for an index that was not written by us."""
    if index["format"] != FORMAT:
        raise ValueError(f"format {index['format']!r} is not {FORMAT!r}")
    if tuple(index["fields"]) not in (
        ("hr",), ("hr", "lr"), ("hr", "label"), ("hr", "lr", "label")
    ):  # fmt: skip
        raise ValueError(f"fields {index['fields']!r}")
    numbers = [*index["smallest"], *([index["scale"]] if "lr" in index["fields"] else [])]
    for shard in index["shards"]:
        if not FILE_NAME.fullmatch(shard["file"]):
            raise ValueError(f"file {shard['file']!r}")
        numbers += [shard["records"], shard["bytes"]]
    if len(index["smallest"]) != 2 or not index["shards"]:
        raise ValueError("no shards or no smallest size")
    if any(isinstance(n, bool) or not isinstance(n, int) or not 0 < n < 2**48 for n in numbers):
        raise ValueError("a size or a count is no whole number above 0")


def _differences(image: np.ndarray) -> bytes:
    found = image.copy()
    found[:, 1:] -= image[:, :-1]
    return found.tobytes()
