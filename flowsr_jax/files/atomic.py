"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import secrets
import shutil
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


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Make a folder beside `path`; it takes the place of `path` when the block succeeds.

    All of the older folder goes at once.  An error, an interruption or a kill leaves it as
    it was; after a kill the new one remains beside it (see `remove_leftovers`).

    Yields:
      the folder to write to.

    Raises:
      OSError: the parent folder cannot be written to, or `path` is no folder that can be
        moved (a mount).
    """
    path = Path(path).resolve()
    temporary = path.with_name(f"{_owned(os.getpid())}{secrets.token_hex(8)}")
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            _exchange(temporary, path)
        else:
            os.rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _exchange(new: Path, old: Path) -> None:
    """Let two folders change places, at once where the system can (Linux)."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if rename and not rename(here, os.fsencode(new), here, os.fsencode(old), exchange):
        return
    aside = old.with_name(f"{_owned(os.getpid())}{secrets.token_hex(8)}")
    os.rename(old, aside)
    os.rename(new, old)
    os.rename(aside, new)


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
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


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
