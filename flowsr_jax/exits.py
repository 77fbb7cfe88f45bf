"""How a command ends: one line for what its user can mend, and a status that tells the truth.

0: all is done.  1: some of it failed, and was named.  2: nothing could be done.  130 and
143: interrupted by SIGINT or SIGTERM.
"""

from __future__ import annotations

import sys

# What users cause; RecursionError: a file that is nested too deeply.
KINDS = (ValueError, TypeError, OSError, MemoryError, RecursionError, OverflowError)
# In the text of a library's RuntimeError: no room on the disk, in memory, on the device.
NO_ROOM = ("No space left on device", "Disk quota exceeded", "RESOURCE_EXHAUSTED", "Out of memory")
LONGEST = 1000


def failed(error: Exception) -> int:
    """Print one line about an error that a user can mend and return the command's status.

    An error with an attribute `status` has that status, others 2.

    Raises:
      Exception: `error` itself, if it is a fault of the program: the traceback is wanted.
    """
    text = " ".join(str(error).split())
    known = isinstance(error, KINDS) or hasattr(error, "status")
    if not known and not (isinstance(error, RuntimeError) and any(t in text for t in NO_ROOM)):
        raise error
    if isinstance(error, (MemoryError, RecursionError)) or not text:
        text = f"{type(error).__name__}{': ' if text else ''}{text}"
    print(f"error: {text[:LONGEST]}", file=sys.stderr)
    return getattr(error, "status", 2)
