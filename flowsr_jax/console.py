"""What commands show: one line for everything, a live bar on a terminal, one frame for all."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator

from flowsr_jax.exits import failed

DONE, SOME_FAILED, INTERRUPTED = 0, 1, 130


class UsageError(ValueError):
    """A request that cannot be carried out at all; one line."""


@dataclasses.dataclass(frozen=True)
class Summary:
    """What became of the input files (counts)."""

    written: int
    skipped: int
    failed: int


def run_command(work: Callable[[], Summary | int | None], interrupted: str) -> int:
    """Run what a command does, and return its exit status; see `exits`.

    Args:
      work: does it; returns the counts (which are shown), an exit status, or None for done.
      interrupted: what is kept when Ctrl-C is pressed.

    Raises:
      Exception: a fault of the program.
    """
    try:
        result = work()
    except Exception as error:
        return failed(error)
    except KeyboardInterrupt:
        print(f"interrupted; {interrupted}", file=sys.stderr)
        return INTERRUPTED
    if isinstance(result, Summary):
        print(f"{result.written} written, {result.skipped} skipped, {result.failed} failed")
        return SOME_FAILED if result.failed else DONE
    return result or DONE


def check_seed(seed: object, error: type[Exception] = UsageError) -> None:
    """Raise `error` unless the seed is a whole number from 0 to 2**32 - 1."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise error(f"seed = {seed!r} must be a whole number from 0 to 2**32 - 1")


def one_line(text: str) -> str:
    """Escape line breaks and control characters (file names may hold anything)."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def duration(seconds: float) -> str:
    """Return a time as h:mm:ss, or m:ss below an hour."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class Bar:
    """A live progress bar on a terminal, with a text behind it; lines go above it.

    Args:
      total: steps, or None while that is not known.
      done: steps that are made already.
    """

    def __init__(self, total: int | None, done: int = 0):
        # Only a terminal needs it, and importing it takes a moment.
        from rich import progress

        self._bar = progress.Progress(
            progress.BarColumn(bar_width=24),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TextColumn("{task.description}", markup=False),
        )
        self._task = self._bar.add_task("", total=total, completed=done)
        self._bar.start()

    def advance(self, done: int, total: int | None = None) -> None:
        """Say how many steps are made, and perhaps of how many."""
        more = {} if total is None else {"total": total}
        self._bar.update(self._task, completed=done, **more)

    def describe(self, text: str) -> None:
        """Show a text behind the bar."""
        self._bar.update(self._task, description=text)

    def print(self, text: str) -> None:
        """Show a line above the bar."""
        self._bar.console.print(text, markup=False, highlight=False)

    def stop(self) -> None:
        """Leave the bar as it is."""
        self._bar.stop()


class Progress:
    """How far a batch of images is; see `progress`."""

    def __init__(self, total: int, bar: Bar | None = None):
        self._total, self._bar = total, bar
        self._start = time.monotonic()
        self._done = self._worked = 0
        self._told: set[str] = set()

    def say(self, text: str, problem: bool = False) -> None:
        """Report an event; on a terminal only problems, what goes well is on the bar."""
        text = one_line(text)
        if self._bar is None:
            line = f"[{min(self._done + 1, self._total)}/{self._total}] {text}"
            print(line, file=sys.stderr if problem else sys.stdout, flush=True)
        elif problem:
            self._bar.print(text)

    def once(self, text: str) -> None:
        """Report something that holds for many images, the first time only."""
        if text not in self._told:
            self._told.add(text)
            if self._bar is None:
                self.say(text)
            else:
                self._bar.print(one_line(text))

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """Leave what happens inside out of the images per second and the time left."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self._start += time.monotonic() - begin

    def tick(self, name: str, done: int, total: int) -> None:
        """Show how far the image at hand is."""
        if self._bar is not None:
            part = "" if total == 1 else f", tile {done} of {total}"
            self._bar.describe(f"{self.pace()}  {one_line(name)}{part}")

    def finish(self, text: str, problem: bool = False, worked: bool = True) -> None:
        """One image is done with.

        Args:
          text: about it.
          problem: it failed.
          worked: it took the time that the others are expected to take.
        """
        self._worked += worked and not problem
        pace = self.pace(self._total - self._done - 1)
        # Of what fails, the reason stands at the end.
        self.say(text if problem or not pace else f"{text} ({pace})", problem)
        self._done += 1
        if self._bar is not None:
            self._bar.advance(self._done)
            self._bar.describe(f"{pace}  {one_line(text)}")

    def pace(self, left: int | None = None) -> str:
        """Return images per second and the time left, or "" before the first image."""
        if not self._worked:
            return ""
        left = self._total - self._done if left is None else left
        each = max(time.monotonic() - self._start, 1e-9) / self._worked
        return f"{1 / each:.2f} images/s" + (f", {duration(each * left)} left" if left else "")

    def end(self) -> None:
        """Report the batch as a whole."""
        pace = self.pace(0)
        if self._bar is None:
            images = "1 image" if self._total == 1 else f"{self._total} images"
            print(images + (f", {pace}" if pace else ""), flush=True)


@contextlib.contextmanager
def progress(total: int) -> Iterator[Progress]:
    """Yield the `Progress` of a batch of `total` images: a bar on a terminal, lines elsewhere."""
    bar = Bar(total) if sys.stdout.isatty() else None
    shown = Progress(total, bar)
    try:
        yield shown
        shown.end()
    finally:
        if bar:
            bar.stop()
