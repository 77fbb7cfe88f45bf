"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

PREFIX = ".tmp-"


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`; it becomes `path` when the block succeeds.

    An error or an interruption leaves the previous file as it was; after a kill the
    temporary file remains (see `remove_leftovers`).  Unlike the tempfile module, the
    file gets the permissions of an ordinary new file.

    Args:
      path: the file to write; its folder must exist.

    Yields:
      a binary file, open for reading and writing.

    Raises:
      OSError: the folder is missing or cannot be written to.
    """
    path = Path(path)
    temporary = path.with_name(f"{_owned(os.getpid())}{secrets.token_hex(8)}")
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


def require_writable(folder: str | os.PathLike) -> None:
    """Make a folder, where it is missing, and see that files can be written there.

    What killed processes left there goes.

    Raises:
      OSError: they cannot; one line that names the folder.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"{folder}: cannot be written to ({error.strerror})") from None
    remove_leftovers(folder)


def remove_leftovers(folder: str | os.PathLike) -> None:
    """Remove the temporary files of killed processes of this computer from a folder.

    Those of processes that still run, or that run elsewhere, stay.
    """
    if os.name != "posix":  # elsewhere, asking whether a process lives may end it
        return
    with contextlib.suppress(OSError):
        for path in Path(folder).iterdir():
            found = re.fullmatch(r".*-(\d+)-[0-9a-f]{16}", path.name)
            if found and path.name.startswith(_owned(int(found[1]))) and not _lives(int(found[1])):
                with contextlib.suppress(OSError):
                    path.unlink()


def _owned(pid: int) -> str:
    return f"{PREFIX}{socket.gethostname()}-{pid}-"


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's
        return True
    return True
