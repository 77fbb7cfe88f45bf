"""How far an evaluation is: a live bar on a terminal, one line per image elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

from flowsr_jax.upscaling.progress import one_line


class Progress:
    """Lines and counts of an evaluation; see `progress`."""

    def __init__(self, total: int, bar=None):
        self._total, self._bar, self._done = total, bar, 0
        self._start = time.monotonic()
        self._task = None if bar is None else bar.add_task("", total=total)

    def say(self, text: str) -> None:
        """Report an event that is not the end of an image."""
        if self._bar is None:
            print(f"[{self._done + 1}/{self._total}] {one_line(text)}", file=sys.stderr, flush=True)
        else:
            self._bar.console.print(one_line(text), markup=False, highlight=False)

    def finish(self, text: str, problem: bool = False) -> None:
        """Report the end of an image; on a terminal only problems stay on the screen."""
        self._done += 1
        text = one_line(text)
        if self._bar is not None:
            if problem:
                self._bar.console.print(text, markup=False, highlight=False)
            self._bar.update(self._task, advance=1, description=f"{self._pace()}  {text}")
        elif problem:
            print(f"[{self._done}/{self._total}] {text}", file=sys.stderr, flush=True)
        else:
            print(f"[{self._done}/{self._total}] {text}  ({self._pace()})", flush=True)

    def _pace(self) -> str:
        spent = max(time.monotonic() - self._start, 1e-9)
        minutes, seconds = divmod(round(spent * (self._total - self._done) / self._done), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{self._done / spent:.2f} images/s, {hours}:{minutes:02d}:{seconds:02d} left"


@contextlib.contextmanager
def progress(total: int) -> Iterator[Progress]:
    """Yield the `Progress` of an evaluation of `total` images."""
    if not sys.stdout.isatty():
        yield Progress(total)
        return

    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    with Bar(
        BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}", markup=False)
    ) as bar:
        yield Progress(total, bar)
