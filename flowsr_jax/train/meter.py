"""Looking at the metrics of steps without holding up the device."""

from __future__ import annotations

import collections
import math

import jax
import numpy as np

from flowsr_jax.train.config import TrainConfig
from flowsr_jax.train.progress import Progress, summary
from flowsr_jax.train.state import TrainState

# Steps handed to the device before the results of an old one are waited for: enough to
# keep it busy, few enough that batches do not pile up.
AHEAD = 2
NOT_FINITE = (
    "gave a loss, gradient or weight that is not finite; the last good checkpoint is kept. Lower "
    "the learning rate, lengthen its warm-up, or set train.clip_norm"
)


class TrainingDiverged(RuntimeError):
    """Too many steps, in a row or in all, had a loss, gradient or weight that is not finite."""

    status = 1


class Meter:
    """Collects the metrics of a phase: means for the log, and the watch over bad steps.

    Args:
      progress: gets a row every `train.log_every` steps.
      train: limits of skipped steps.
      phase: its name; `offset`: steps of the phases before.
    """

    def __init__(self, progress: Progress, train: TrainConfig, phase: str, offset: int):
        self._progress, self._train, self._phase, self._offset = progress, train, phase, offset
        self._pending: collections.deque = collections.deque()
        self._window: list[dict[str, float]] = []
        self._skipped = 0

    def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Take the metrics of a step just dispatched; look at those of older ones."""
        self._pending.append((step, metrics))
        while len(self._pending) > AHEAD:
            self._look()

    def drain(self) -> int:
        """Look at all steps; return how many in a row were skipped up to now.

        Raises:
          TrainingDiverged: there were too many.
        """
        while self._pending:
            self._look()
        return self._skipped

    def end(self, state: TrainState) -> None:
        """Raise TrainingDiverged at the end of a phase that skipped half of its steps."""
        total, steps = int(state.skipped_total), int(state.step)
        if 2 * total >= steps:
            raise TrainingDiverged(
                f"phase {self._phase!r}: {total} of its {steps} steps {NOT_FINITE}"
            )

    def _look(self) -> None:
        step, metrics = self._pending.popleft()
        metrics = {k: float(v) for k, v in jax.device_get(metrics).items()}
        number, train = self._offset + step, self._train
        self._skipped, total = int(metrics["skipped"]), int(metrics["skipped_total"])
        if self._skipped:
            self._progress.message(
                f"step {number}: {summary(metrics)}: step skipped ({self._skipped} in a row)"
            )
        if self._skipped > train.max_skipped or total > train.max_skipped_total:
            raise TrainingDiverged(
                f"phase {self._phase!r}, step {number}: {self._skipped} steps in a row and {total} "
                f"in all {NOT_FINITE}"
            )
        self._window.append(metrics)
        self._progress.advance(number)
        if step % train.log_every == 0:
            self._progress.log(number, self._phase, step, _means(self._window))
            self._window = []


def _means(window: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean of every metric over its finite values; of counters the last."""
    means = {}
    first = [k for k in ("loss", "grad_norm") if k in window[-1]]
    for name in dict.fromkeys([*first, *window[-1]]):
        values = [m[name] for m in window if name in m]
        finite = [v for v in values if math.isfinite(v)]
        last = name.startswith(("lr/", "skipped"))
        means[name] = values[-1] if last else float(np.mean(finite)) if finite else math.nan
    return means
