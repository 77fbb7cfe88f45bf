"""The frame of commands that take --config=FILE[:variant] and --config.x.y=... (absl flags)."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from absl import app, flags

from flowsr_jax.train.overrides import split_overrides


def run_command(main: Callable[[list[str], dict[str, Any]], None], argv: list[str]) -> None:
    """Parse the flags and call main(rest of argv, overrides); a wrong flag is one line.

    The folder above the command's, which holds `configs/`, joins the import path.
    """
    script = os.path.abspath(argv[0])
    sys.argv, overrides = split_overrides(argv)  # config_flags looks there for its own
    sys.path.append(os.path.dirname(os.path.dirname(script)))
    app.run(lambda args: main(args, overrides), argv=sys.argv, flags_parser=_parse)


def _parse(argv: list[str]) -> list[str]:
    for file in (a.split("=")[1].split(":")[0] for a in argv if a.startswith("--config=")):
        if not os.path.isfile(file):
            sys.exit(f"error: --config={file}: no such file")
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:  # config_flags puts a traceback before the reason
        sys.exit(f"error: {str(error).strip().splitlines()[-1].strip()}")
