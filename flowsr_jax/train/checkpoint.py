"""Checkpoints of a run: orbax underneath, and what a long run needs around it.

A checkpoint holds the state's arrays and one JSON record (the configuration, the
phase, the position of the data, versions, checksums of all arrays and of itself).  Saves
are asynchronous.  A save that fails is reported and costs nothing else: older checkpoints
go only after a newer one is complete.  A checkpoint that cannot be read, or whose checksums
differ, is put aside and the one before is used.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from flowsr_jax.config import ConfigError
from flowsr_jax.extras import require
from flowsr_jax.files.atomic import atomic_write
from flowsr_jax.train.state import TrainState

# Part of the names that orbax gives to what is not yet complete.
HALF_WRITTEN = ".orbax-checkpoint-tmp"
BEST = "-best.json"  # beside the folder: which checkpoint had the best validation


class CheckpointError(RuntimeError):
    """No checkpoint of a run can be read."""

    status = 2


class Checkpoints:
    """The checkpoints of one workdir; a context manager that waits for the last save.

    Args:
      folder: where they lie (made if absent).
      keep: how many of the newest are kept; the best one (`rank`) is kept besides.
      report: called with a line of text about anything out of the ordinary.
    """

    def __init__(self, folder: str, keep: int, report: Callable[[str], None] = print):
        require("orbax")
        import orbax.checkpoint as ocp

        self._ocp, self._report = ocp, report
        self._folder = os.path.abspath(folder)
        self._keep, self._best = keep, _read_best(self._folder)
        self._options = ocp.CheckpointManagerOptions(preservation_policy=self)
        self._sweep()

        class Manager(ocp.CheckpointManager):
            def reached_preemption(self, step: int) -> bool:
                return False  # orbax's questions, some from a thread, would count with ours

        self._manager = Manager(self._folder, options=self._options)
        self._last: int | None = None
        self.failed = False

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

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Return which checkpoints stay, as orbax's preservation policies do."""
        newest = {c.step for c in checkpoints[-self._keep :]}
        return [c.step in newest or c.step == self._best.get("step") for c in checkpoints]

    def rank(self, step: int, phase: int, score: float) -> bool:
        """Return whether a checkpoint is the best up to now, which then is kept.

        Args:
          step: number of the checkpoint.
          phase: index of its phase; scores of different phases mean different things, and
            the later phase is better.
          score: higher is better.
        """
        self.wait()
        here = self._manager.all_steps()
        best = self._best if self._best.get("step") in here else {}
        if step not in here or (best and (best["phase"], best["score"]) >= (phase, score)):
            return False
        self._best = {"step": step, "phase": phase, "score": score}
        if jax.process_index() == 0:
            try:
                with atomic_write(self._folder + BEST) as file:
                    file.write(json.dumps(self._best).encode())
            except OSError as error:
                self._report(f"{self._folder}{BEST} was not written ({error})")
        return True

    def save(self, step: int, state: TrainState, meta: dict[str, Any]) -> bool:
        """Begin to save; return False (after a report) if that cannot be done.

        Args:
          step: number of the checkpoint; one that exists is left as it is.
          state: the arrays; may be donated as soon as this returns.
          meta: JSON-ready record, see `make_meta`.
        """
        self.wait()
        if step in self._manager.all_steps():
            return True
        ocp = self._ocp
        meta = {**meta, "checksums": checksums(state)}
        meta["checksum"] = _record_checksum(meta)
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(_flat(state)), meta=ocp.args.JsonSave(meta)
        )
        try:
            saved = self._manager.save(step, args=items)
        except Exception as error:
            self._failed(step, error)
            return False
        self._last, self.failed = (step, False) if saved else (None, True)
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
        if meta.get("checksum", _record_checksum(meta)) != _record_checksum(meta):
            raise ValueError("its meta record is damaged: another checksum")
        wanted = target(meta)
        composite = ocp.args.Composite(state=ocp.args.StandardRestore(_flat(wanted)))
        flat = self._manager.restore(step, args=composite)["state"]
        leaves = [flat[name] for name in _flat(wanted)]
        state = jax.tree.unflatten(jax.tree.structure(wanted), leaves)
        if "checksums" in meta:  # checkpoints of earlier versions have none
            found = checksums(state)
            damaged = [name for name in found if found[name] != meta["checksums"].get(name)]
            if damaged:
                raise ValueError(
                    f"damaged: {len(damaged)} arrays with another checksum, {damaged[0]} first"
                )
        return state, meta

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
        self._last, self.failed = None, True
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


def checksums(state: TrainState) -> dict[str, int]:
    """Return {path: checksum} of all arrays; the same on every mesh and device.

    Computed where the arrays lie: nothing is copied to the host.  One after the other: sums of
    split arrays that run at the same time can wait for each other for ever on CPU devices.
    """
    return {k: int(_checksum(v)) for k, v in _flat(state).items()}


@jax.jit
def _checksum(x: jax.Array) -> jax.Array:
    """Return the sum of an array's words, each times an odd number of its own, modulo 2**32.

    A change of one word always changes it: odd numbers have inverses.
    """
    x = x.astype(jnp.uint8) if x.dtype == bool else x
    word = {1: jnp.uint8, 2: jnp.uint16}.get(x.dtype.itemsize, jnp.uint32)
    words = jax.lax.bitcast_convert_type(x, word).astype(jnp.uint32)
    odd = 2 * jnp.arange(words.size, dtype=jnp.uint32).reshape(words.shape) + 1
    return jnp.sum(words * odd, dtype=jnp.uint32)


def _record_checksum(meta: Mapping[str, Any]) -> int:
    rest = {k: v for k, v in meta.items() if k != "checksum"}
    return zlib.crc32(json.dumps(rest, sort_keys=True).encode())


def _read_best(folder: str) -> dict[str, Any]:
    try:
        with open(folder + BEST, encoding="utf-8") as file:
            best = json.load(file)
        return {"step": int(best["step"]), "phase": best["phase"], "score": float(best["score"])}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def _line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:300] if text else ''}"


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
