"""What a run shows while it goes: metrics.csv, a progress bar or plain lines, events."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from flowsr_jax.console import Bar, duration
from flowsr_jax.train.events import Events

KEYS = ("step", "phase", "phase_step")


class MetricsFile:
    """A CSV file that only grows, except that resuming drops the rows after `step`.

    Args:
      path: the file; made at the first row.
      step: rows of later steps (and a half-written last one) are dropped; 0 begins
        a new file.
    """

    def __init__(self, path: str, step: int = 0):
        self._path = path
        self._fields: list[str] = []
        rows = self._read(step) if os.path.exists(path) else []
        self._rewrite(rows, list(KEYS) if not self._fields else self._fields)

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row; unknown columns are added to the header."""
        fields = [*self._fields, *(k for k in row if k not in self._fields)]
        if fields != self._fields:
            self._rewrite(self._read(None), fields)
        with open(self._path, "a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._fields, restval="").writerow(row)

    def _read(self, last: int | None) -> list[dict[str, str]]:
        # A kill can cut a line, and a letter of it: what follows the last line end, or is no
        # text, does not count.
        with open(self._path, newline="", encoding="utf-8", errors="replace") as file:
            text = file.read().replace("\0", "")
            reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
            self._fields = list(reader.fieldnames or [])
            rows = []
            with contextlib.suppress(csv.Error):  # a line beyond csv's limit: damaged from there on
                rows.extend(r for r in reader if (r.get("step") or "").isdecimal())
        return rows if last is None else [r for r in rows if int(r["step"]) <= last]

    def _rewrite(self, rows: list[dict[str, str]], fields: list[str]) -> None:
        self._fields = fields
        with open(self._path + ".tmp", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fields, restval="")
            writer.writeheader()
            writer.writerows(rows)
        os.replace(self._path + ".tmp", self._path)


class Progress:
    """Shows and records the progress of a run; a context manager.

    Args:
      workdir: where metrics.csv (and events/) go.
      batch_size: images of one step.
      tensorboard: write event files as well, where tensorboardX is installed.
      active: False on all processes but the first: nothing is shown or written.
      stream: where lines go; a terminal gets a progress bar.
    """

    def __init__(
        self,
        workdir: str,
        batch_size: int,
        tensorboard: bool = False,
        *,
        active: bool = True,
        stream: TextIO | None = None,
    ):
        self._workdir, self._batch, self._active = workdir, batch_size, active
        self._stream = stream or sys.stdout
        self._tensorboard = tensorboard and active
        self._file: MetricsFile | None = None
        self._bar: Bar | None = None
        self._events: Events | None = None
        self._total = self._from = 0
        self._since, self._paused = time.perf_counter(), 0.0

    def start(self, step: int, total: int) -> None:
        """Begin to record: `step` of `total` steps are made already."""
        self._from, self._total = step, total
        if self._active:
            self._file = MetricsFile(os.path.join(self._workdir, "metrics.csv"), step)
        if self._active and self._stream.isatty():
            self._bar = Bar(total, step)
        if self._tensorboard:
            self._events = Events(os.path.join(self._workdir, "events"), step, self.message)
        self._since = time.perf_counter()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._bar:
            self._bar.stop()
        if self._events:
            self._events.close()

    def message(self, text: str) -> None:
        """Show one line of text."""
        if self._bar:
            self._bar.print(text)
        elif self._active:
            print(text, file=self._stream, flush=True)

    def advance(self, step: int) -> None:
        """Move the bar."""
        if self._bar:
            self._bar.advance(step)

    @contextlib.contextmanager
    def pause(self):
        """Leave what happens inside (validation, saving) out of the images per second."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._paused += time.perf_counter() - begin

    def log(self, step: int, phase: str, phase_step: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of a training step and show speed and time left."""
        spent = time.perf_counter() - self._since - self._paused
        rate = (step - self._from) / max(spent, 1e-9)
        self._since, self._from, self._paused = time.perf_counter(), step, 0.0
        speed = {"images_per_s": round(rate * self._batch, 3)}
        self.record(step, phase, phase_step, {**metrics, **speed})
        left = duration((self._total - step) / rate) if rate else "?"
        skipped = metrics.get("skipped_total", 0)
        note = f"  {skipped:.0f} skipped" if skipped else ""
        text = f"{summary(metrics)}{note}  {rate * self._batch:.1f} images/s  {left} left"
        if self._bar:
            self._bar.describe(f"{phase} {text}")
        else:
            self.message(f"[{phase}] step {step}/{self._total}  {text}")

    def record(self, step: int, phase: str, phase_step: int, values: Mapping[str, float]) -> None:
        """Append one row to metrics.csv (a full disk is reported, not fatal)."""
        if self._file is None:
            return
        try:
            self._file.write({"step": step, "phase": phase, "phase_step": phase_step, **values})
        except OSError as error:
            self.message(f"metrics.csv: row of step {step} not written ({error})")
        if self._events:
            self._events.write(step, values)


def summary(metrics: Mapping[str, float]) -> str:
    """Return the losses and gradient norms among metrics as text."""
    shown = [k for k in metrics if k.rpartition("/")[2] in ("loss", "grad_norm")]
    shown.sort(key=lambda k: ("/" in k, k.rpartition("/")[0], k.endswith("grad_norm")))
    return "  ".join(f"{k} {metrics[k]:.4g}" for k in shown)
