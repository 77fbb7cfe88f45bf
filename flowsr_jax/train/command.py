"""The frame of commands that take --config=FILE[:variant] and --config.x.y=... (absl flags)."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from absl import app, flags

from flowsr_jax.config import ConfigError
from flowsr_jax.exits import failed
from flowsr_jax.train.overrides import split_overrides
from flowsr_jax.train.signals import Interrupted


def run_command(main: Callable[[list[str], dict[str, Any]], None], argv: list[str]) -> None:
    """Parse the flags, call main(rest of argv, overrides), and end with the right status.

    The folder above the command's, which holds `configs/`, joins the import path.  What the
    user can mend is one line; see flowsr_jax/exits.py for the statuses.
    """
    script = os.path.abspath(argv[0])
    sys.argv, overrides = split_overrides(argv)  # config_flags looks there for its own
    sys.path.append(os.path.dirname(os.path.dirname(script)))
    try:
        app.run(lambda args: main(args, overrides), argv=sys.argv, flags_parser=_parse)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        raise
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if type(error) in (ValueError, TypeError):
            raise  # after days of training: a fault of the program, with its place
        sys.exit(failed(error))


def _parse(argv: list[str]) -> list[str]:
    for file in (a.split("=")[1].split(":")[0] for a in argv if a.startswith("--config=")):
        if not os.path.isfile(file):
            raise ConfigError(f"--config={file}: no such file")
    try:
        return flags.FLAGS(argv)
    except Exception as error:  # the config file's own, too; a traceback comes before the reason
        reason = (str(error).strip().splitlines() or [""])[-1].strip()
        kind = "" if isinstance(error, flags.Error) else f"{type(error).__name__}: "
        raise ConfigError(f"{kind}{reason}") from None
