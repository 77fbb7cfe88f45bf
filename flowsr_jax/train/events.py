"""Event files for TensorBoard, where tensorboardX is installed."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping


class Events:
    """Writes scalars at once, without the thread and the queue of a SummaryWriter.

    A full disk ends that thread, and its full queue then blocks who writes.  Here the
    first error is reported, and nothing more is written.

    Args:
      folder: of the event files.
      step: events of later steps, of a run that was resumed, do not count.
      report: called with a line of text about an error.
    """

    def __init__(self, folder: str, step: int, report: Callable[[str], None]):
        self._folder, self._report, self._writer = folder, report, None
        with self._guard():
            try:
                from tensorboardX.event_file_writer import EventsWriter
                from tensorboardX.proto.event_pb2 import Event, SessionLog
                from tensorboardX.summary import scalar
            except ImportError:
                return
            self._event, self._scalar = Event, scalar
            os.makedirs(folder, exist_ok=True)
            self._writer = EventsWriter(os.path.join(folder, "events"))
            begin = SessionLog(status=SessionLog.START)
            self._put(Event(step=step + 1, session_log=begin, wall_time=time.time()))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write scalars of a step; an error is reported once."""
        if self._writer is None:  # not installed, or given up
            return
        with self._guard():
            for name, value in values.items():
                summary = self._scalar(name, value)
                self._put(self._event(step=step, summary=summary, wall_time=time.time()))
            self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        with self._guard():
            writer, self._writer = self._writer, None
            if writer:
                writer.close()

    def _put(self, event) -> None:
        self._writer.write_event(event)

    @contextlib.contextmanager
    def _guard(self):
        try:
            yield
        except Exception as error:  # whatever it is, the training goes on without events
            writer, self._writer = self._writer, None
            if writer:
                with contextlib.suppress(Exception):
                    writer.close()
            self._report(f"{self._folder}: no events any more ({type(error).__name__}: {error})")
