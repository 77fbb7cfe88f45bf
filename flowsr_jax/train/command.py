"""The frame of the commands that read a config: how they end."""

from __future__ import annotations

import sys
from collections.abc import Callable

from absl import logging

from flowsr_jax.exits import failed
from flowsr_jax.train.signals import Interrupted


def run_command(work: Callable[[], int | None]) -> int:
    """Run what a command does, and return its exit status (None: 0); see flowsr_jax/exits.py.

    Raises:
      Interrupted: the run was stopped by a signal and can be resumed; this has been said.
      Exception: a fault of the program.  After days of training the place of a plain
        ValueError or TypeError is wanted too.
    """
    logging.set_verbosity(logging.FATAL)  # of orbax; what matters is reported by the loop
    try:
        return work() or 0
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        raise
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if type(error) in (ValueError, TypeError):
            raise
        return failed(error)
