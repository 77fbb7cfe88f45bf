"""The commands: `flowsr NAME`, `python -m flowsr_jax NAME`, `python launch/NAME.py`.

Each is a module with `parser()`, its flags, and `main(argv) -> exit status`.  They import what
they need after the flags are read, so that --help and mistakes are answered at once.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from flowsr_jax import __version__
from flowsr_jax.config import nearest

NAMES = (
    "train",
    "sample",
    "rescale",
    "evaluate",
    "edit",
    "convert",
    "export",
    "prepare-data",
    "compile",
    "cascade",
    "ablate",
    "search-schedule",
)


def main() -> int:
    """Run the command that sys.argv names, and return its exit status."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print("usage: flowsr COMMAND [--help] ...\n")
        for command in NAMES:
            print(f"  {command:16} {module(command).__doc__.splitlines()[0]}")
        return 0
    if name == "--version":
        print(__version__)
        return 0
    if name not in NAMES:
        print(f"error: no command {name!r}{nearest(name, NAMES)}", file=sys.stderr)
        return 2
    sys.argv = [f"flowsr {name}", *rest]  # as if it were a program of its own
    return module(name).main()


def module(name: str) -> ModuleType:
    """Return the module of a command."""
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
