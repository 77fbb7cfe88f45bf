"""Asking a run to stop: SIGTERM and SIGINT become a flag that the loop looks at."""

from __future__ import annotations

import signal
import threading
from typing import Any

import jax

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(SystemExit):
    """The run was asked to stop, and can be resumed; `saved`: from the step it had reached.

    Leaves the process with the customary status 128 + signal: 143 for SIGTERM, 130 for
    SIGINT, as batch systems expect.
    """

    def __init__(self, number: int, step: int, saved: bool = True):
        super().__init__(128 + number)
        self.signal, self.step, self.saved = signal.Signals(number), step, saved

    def __str__(self) -> str:
        lost = "" if self.saved else ", which was NOT saved"
        return f"stopped by {self.signal.name} at step {self.step}{lost}; run again to resume"


class StopRequest:
    """A context in which the first SIGTERM or SIGINT only raises the flag.

    The second one acts as it did before.  Outside the main thread, where Python allows no
    handlers, the flag stays down.  With several processes SIGTERM is left to jax's
    preemption service, see `agreed`; SIGINT acts as it did before.
    """

    def __init__(self):
        self.received: int | None = None
        self._polls = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        main = threading.current_thread() is threading.main_thread()
        if main and jax.process_count() == 1:
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: Any) -> None:
        self.received = number
        for other, handler in self._previous.items():
            signal.signal(other, handler)

    def agreed(self) -> bool:
        """Return whether all processes shall stop now; they must ask equally often.

        Several processes get the signal at different moments, or only one gets it; jax's
        preemption service (SIGTERM only) names the first question that none of them has
        asked yet.  The answer stays True.
        """
        if jax.process_count() > 1 and self.received is None:
            from jax.experimental import multihost_utils

            # Counted from 0 in every run, not the number of the step: a signal that comes
            # before the first question names number 1, which a resumed run would be past.
            self._polls += 1
            if multihost_utils.reached_preemption_sync_point(self._polls):
                self.received = signal.SIGTERM
        return self.received is not None
