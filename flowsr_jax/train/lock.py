"""One training per workdir: a lock that ends with its process, however that ends."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

from flowsr_jax.config import ConfigError


@contextlib.contextmanager
def locked(workdir: str) -> Iterator[None]:
    """Hold the file `workdir`/lock, which names the process that trains there.

    The system takes the lock from a process that was killed.  Where it knows no such
    locks (Windows, some network file systems), nothing is locked.

    Raises:
      ConfigError: another process holds it; the message names that process.
      OSError: the file cannot be written.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    path = os.path.join(workdir, "lock")
    with open(path, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise ConfigError(
                f"workdir = {workdir!r} is in use: {holder} trains there; wait for it, end it, or "
                "take another workdir"
            ) from None
        except OSError:
            pass  # a file system without locks
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
