"""What a batch shows while it goes: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence


class Progress:
    """Lines and counts of a batch; see `progress`."""

    def __init__(self, total: int, bar=None):
        self._total, self._bar = total, bar
        self._start = time.monotonic()
        self._done = self._written = 0
        self._told = False
        self._task = None
        if bar is not None:
            self._task = bar.add_task("", total=total, now="", rate="")

    def say(self, text: str, problem: bool = False) -> None:
        """Report an event; on a terminal only problems, what went well is on the bar."""
        text = one_line(text)
        if self._bar is None:
            line = f"[{self._done + 1}/{self._total}] {text}"
            print(line, file=sys.stderr if problem else sys.stdout, flush=True)
        elif problem:
            self._bar.console.print(text, markup=False, highlight=False)

    def once(self, text: str) -> None:
        """Report something that holds for many images, the first time only."""
        if not self._told:
            self._told = True
            self.say(text, problem=self._bar is not None)

    def tick(self, name: str, done: int, total: int) -> None:
        """Show how far the image at hand is."""
        if self._bar is not None:
            now = one_line(name) if total == 1 else f"{one_line(name)}, tile {done} of {total}"
            self._bar.update(self._task, now=now)

    def finish(self, name: str, outcome: str, text: str) -> None:
        """One image is done with: "written", "skipped" or "failed"."""
        self._written += outcome == "written"
        left = self._left(self._total - self._done - 1)
        failed = outcome == "failed"
        # Messages of readers begin with the path already.
        self.say(
            f"{name}: {outcome}: {text}" + (f" ({left})" if left and not failed else ""), failed
        )
        self._done += 1
        if self._bar is not None:
            rate = ", ".join(filter(None, (self.rate(), left)))
            self._bar.update(self._task, advance=1, now="", rate=rate)

    def _left(self, count: int) -> str:
        """Time that `count` images take, if all are like those written so far."""
        if not count or not self._written:
            return ""
        each = (time.monotonic() - self._start) / self._written
        minutes, seconds = divmod(round(each * count), 60)
        return f"{minutes}:{seconds:02d} left"

    def rate(self) -> str:
        return f"{self._written / max(time.monotonic() - self._start, 1e-9):.2f} images/s"


@contextlib.contextmanager
def progress(total: int) -> Iterator[Progress]:
    """Yield the `Progress` of a batch of `total` images."""
    if not sys.stdout.isatty():
        shown = Progress(total)
        yield shown
        print(f"{total} images, {shown.rate()} written", flush=True)
        return

    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = [TextColumn(f"{{task.fields[{name}]}}", markup=False) for name in ("rate", "now")]
    with Bar(BarColumn(), MofNCompleteColumn(), *columns) as bar:
        yield Progress(total, bar)


def reports(shown: Progress, name: str, window: Sequence[int], size: Sequence[int]) -> dict:
    """Return the arguments of `image_strips` that show how it is getting on.

    Args:
      shown: where.
      name: of the image.
      window: (height, width, ...) of its windows in LR pixels.
      size: (height, width) of the image in LR pixels.
    """
    if any(n > side for n, side in zip(size, window, strict=False)):
        shown.once(f"large images are drawn in tiles, here of {window[1]}x{window[0]} LR pixels")
    return {
        "say": lambda text: shown.say(f"{name}: {text}", True),
        "tick": lambda done, total: shown.tick(name, done, total),
    }


def one_line(text: str) -> str:
    """Escape line breaks and control characters (file names may hold anything)."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
