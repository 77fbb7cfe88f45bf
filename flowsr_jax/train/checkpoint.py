"""Checkpoints of a run: orbax underneath, and what a long run needs around it.

A checkpoint holds the state's arrays and one JSON record (the configuration, the
phase, the position of the data, versions).  Saves are asynchronous.  A save that fails
is reported and costs nothing else: older checkpoints go only after a newer one is
complete.  A checkpoint that cannot be read is put aside and the one before is used.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from typing import Any

import jax

from flowsr_jax.config import ConfigError
from flowsr_jax.train.state import TrainState

# Part of the names that orbax gives to what is not yet complete.
HALF_WRITTEN = ".orbax-checkpoint-tmp"


class CheckpointError(RuntimeError):
    """No checkpoint of a run can be read."""


class Checkpoints:
    """The checkpoints of one workdir; a context manager that waits for the last save.

    Args:
      folder: where they lie (made if absent).
      keep: how many of the newest are kept; the one of the best score is kept besides.
      report: called with a line of text about anything out of the ordinary.
    """

    def __init__(self, folder: str, keep: int, report: Callable[[str], None] = print):
        import orbax.checkpoint as ocp
        from orbax.checkpoint import checkpoint_managers as policies

        self._ocp, self._report = ocp, report
        self._folder = os.path.abspath(folder)
        newest = policies.LatestN(keep)
        best_one = policies.BestN(
            # Scores of different phases mean different things: the later phase is better.
            get_metric_fn=lambda metrics: (metrics["phase"], metrics["score"]),
            n=1,
            keep_checkpoints_without_metrics=False,
        )
        self._options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy([newest, best_one])
        )
        self._sweep()

        class Manager(ocp.CheckpointManager):
            def reached_preemption(self, step: int) -> bool:
                return False  # orbax's questions, some from a thread, would count with ours

        self._manager = Manager(self._folder, options=self._options)
        self._last: int | None = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: Any) -> None:
        self.wait()
        self._sweep()
        try:
            self._manager.close()
        except Exception as error:  # the failed save was reported already
            self._report(f"closing the checkpoints: {_line(error)}")

    def steps(self) -> list[int]:
        """Return the steps of the complete checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    def save(
        self,
        step: int,
        state: TrainState,
        meta: dict[str, Any],
        score: float | None = None,
    ) -> bool:
        """Begin to save; return False (after a report) if that cannot be done.

        Args:
          step: number of the checkpoint; one that exists is left as it is.
          state: the arrays; may be donated as soon as this returns.
          meta: JSON-ready record, see `make_meta`.
          score: ranks this checkpoint among those of its phase; higher is better.
        """
        self.wait()
        if step in self._manager.all_steps():
            return True
        ocp = self._ocp
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(_flat(state)), meta=ocp.args.JsonSave(meta)
        )
        metrics = None if score is None else {"phase": meta["phase"], "score": score}
        try:
            saved = self._manager.save(step, args=items, metrics=metrics)
        except Exception as error:
            self._failed(step, error)
            return False
        self._last = step if saved else None
        return saved

    def wait(self) -> bool:
        """Wait for the save under way; report and return False if it failed."""
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except Exception as error:
            self._failed(self._last, error)
            return False
        return True

    def restore(
        self, target: Callable[[dict[str, Any]], TrainState]
    ) -> tuple[TrainState, dict[str, Any]] | None:
        """Return the newest readable (state, meta), or None if there is no checkpoint.

        Args:
          target: maps a checkpoint's meta to the state wanted, with ShapeDtypeStructs
            that carry shardings as leaves (any mesh); may raise ConfigError.

        Raises:
          ConfigError: from `target`.
          CheckpointError: there are checkpoints and none can be read.
        """
        broken: list[tuple[int, Exception]] = []
        for step in reversed(self.steps()):
            try:
                found = self._read(step, target)
            except ConfigError:
                raise
            except Exception as error:
                self._report(f"checkpoint {step} cannot be read: {_line(error)}")
                broken.append((step, error))
                continue
            for bad, _ in broken:
                self._put_aside(bad)
            self._report(f"resuming from checkpoint {step}")
            return found
        if broken:
            step, error = broken[0]
            raise CheckpointError(
                f"none of the {len(broken)} checkpoints in {self._folder} can be read; "
                f"{step}: {_line(error)}"
            )
        return None

    def _read(self, step: int, target: Callable) -> tuple[TrainState, dict[str, Any]]:
        ocp = self._ocp
        composite = ocp.args.Composite(meta=ocp.args.JsonRestore())
        meta = self._manager.restore(step, args=composite)["meta"]
        if meta is None:
            raise ValueError("its meta record is missing")
        wanted = target(meta)
        composite = ocp.args.Composite(state=ocp.args.StandardRestore(_flat(wanted)))
        flat = self._manager.restore(step, args=composite)["state"]
        leaves = [flat[name] for name in _flat(wanted)]
        return jax.tree.unflatten(jax.tree.structure(wanted), leaves), meta

    def _put_aside(self, step: int) -> None:
        """Move an unreadable checkpoint out of the way of a new one of its number."""
        if jax.process_index() == 0:
            aside = f"{self._folder}-unreadable"
            os.makedirs(aside, exist_ok=True)
            goal, n = os.path.join(aside, str(step)), 0
            while os.path.exists(goal):
                goal, n = os.path.join(aside, f"{step}.{n + 1}"), n + 1
            os.rename(os.path.join(self._folder, str(step)), goal)
        self._manager.reload()

    def _sweep(self) -> None:
        """Remove half-written checkpoints, those of a killed process as well.

        orbax's own clean-up fails when a writer of a failed save is still at work; here
        what is left then goes at the next occasion.
        """
        if jax.process_index() == 0 and os.path.isdir(self._folder):
            for name in os.listdir(self._folder):
                if HALF_WRITTEN in name:
                    shutil.rmtree(os.path.join(self._folder, name), ignore_errors=True)

    def _failed(self, step: int | None, error: Exception) -> None:
        self._last = None
        self._manager.reload()  # forget the failed one and what it was to replace
        self._sweep()  # a full disk needs the room
        kept = self.steps()
        have = f"the last good one is {kept[-1]}" if kept else "there is no older one"
        self._report(f"checkpoint {step} was NOT saved ({_line(error)}); {have}")


def make_meta(config: dict[str, Any], phase: int, step: int, data: Any) -> dict[str, Any]:
    """Return the JSON record of a checkpoint.

    Args:
      config: the plain configuration; `phase`: index of the phase; `step`: steps in it.
      data: the loader's state (plain numbers and strings).
    """
    versions = {name: _version(name) for name in ("jax", "orbax-checkpoint", "flowsr_jax")}
    record = {"config": config, "phase": phase, "step": step, "data": data, "versions": versions}
    return json.loads(json.dumps(record))  # tuples become lists now, as they will on reading


def _flat(state: TrainState) -> dict[str, Any]:
    """Return {path: leaf}: free of custom nodes, so any code version can name a part."""
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    return {jax.tree_util.keystr(p, simple=True, separator="."): leaf for p, leaf in leaves}


def _line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:300] if text else ''}"


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
