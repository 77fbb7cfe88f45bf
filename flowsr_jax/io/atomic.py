"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`; it becomes `path` when the block succeeds.

    An error or an interruption leaves the previous file as it was.  Unlike the tempfile
    module, the file gets the permissions of an ordinary new file.

    Args:
      path: the file to write; its folder must exist.

    Yields:
      a binary file, open for reading and writing.

    Raises:
      OSError: the folder is missing or cannot be written to.
    """
    path = Path(path)
    temporary = path.with_name(f".tmp-{secrets.token_hex(8)}")
    try:
        with open(temporary, "x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
