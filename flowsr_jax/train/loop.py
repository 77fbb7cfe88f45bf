"""The training loop: phases, resuming, validation, checkpoints, signals.

    flowsr train --config=configs/x.py --workdir=runs/x

or, from Python, `train_and_evaluate(resolve(get_config()), "runs/x")`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from flowsr_jax.config import ConfigError
from flowsr_jax.data import Source, make_loader, make_source, valid_pairs
from flowsr_jax.files.atomic import atomic_write, remove_leftovers, require_writable
from flowsr_jax.files.sheet import cut, write_sheet
from flowsr_jax.io import weights
from flowsr_jax.io.compilation_cache import use_compilation_cache
from flowsr_jax.models.base import Family, Params, get_family
from flowsr_jax.train import mesh as meshes
from flowsr_jax.train.begin import begin_phase, restore
from flowsr_jax.train.checkpoint import Checkpoints, make_meta
from flowsr_jax.train.config import Config
from flowsr_jax.train.evaluate import evaluate
from flowsr_jax.train.lock import locked
from flowsr_jax.train.meter import Meter, TrainingDiverged
from flowsr_jax.train.preflight import check_run, explained
from flowsr_jax.train.progress import Progress
from flowsr_jax.train.report import Report, write_report
from flowsr_jax.train.signals import Interrupted, StopRequest
from flowsr_jax.train.state import TrainState
from flowsr_jax.train.step import active_groups, make_step

__all__ = ["Interrupted", "NotWritten", "TrainingDiverged", "train_and_evaluate"]


class NotWritten(OSError):
    """The training is through, but something that it leaves could not be written.

    Attributes:
      params: the final weights.
    """

    status = 1

    def __init__(self, text: str, params: Params):
        super().__init__(text)
        self.params = params


@dataclasses.dataclass(frozen=True)
class Run:
    """What the parts of a run share.

    Nothing in it changes but the loader's position and `unwritten`, {what: why} of the
    files whose newest version could not be written.
    """

    config: Config
    workdir: str
    family: Family
    mesh: Mesh
    loader: Any
    pairs: Sequence[Any]
    store: Checkpoints
    progress: Progress
    request: StopRequest
    unwritten: dict[str, str] = dataclasses.field(default_factory=dict)

    def key(self, purpose: int, index: int = 0) -> jax.Array:
        """Return the random key of a purpose: 0 weights, 1 data init, 2 steps, 3 validation."""
        make = jax.jit(_key, out_shardings=meshes.replicated(self.mesh))
        return make(np.uint32(self.config.seed), purpose, index)

    def next_batch(self) -> dict[str, jax.Array]:
        """Return the next global batch, on the devices."""
        return meshes.global_batch(self.mesh, next(self.loader))

    @contextlib.contextmanager
    def writes(self, what: str) -> Iterator[None]:
        """Report an OSError of the block, go on, and know at the end that `what` is not there."""
        try:
            yield
            self.unwritten.pop(what, None)
        except OSError as error:
            self.unwritten[what] = str(error)
            self.progress.message(f"{what} NOT written ({error})")

    def path(self, *names: str) -> str:
        """Return a path in the workdir."""
        return os.path.join(self.workdir, *names)


def _key(seed: jax.Array, purpose: int, index: int) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), purpose), index)


def train_and_evaluate(
    config: Config,
    workdir: str,
    *,
    source: Source | None = None,
    valid_source: Source | None = None,
) -> Params:
    """Train, validate and export a model; resume if `workdir` holds checkpoints.

    A resumed run continues bit for bit: weights, optimiser, averages, random keys and the
    position in the data are those of the run that was not interrupted.

    Args:
      config: from `flowsr_jax.train.config.resolve`.
      workdir: the folder of the run, the same one for all processes; docs/design.md
        lists what it will hold.
      source, valid_source: training and validation images, in place of those that
        `config.data` names.

    Returns:
      The final (averaged) weights, as exported to `workdir`/model.

    Raises:
      ConfigError: the configuration fits neither the model, the devices, the data nor the
        checkpoints found; or `workdir` is a URL.
      CheckpointError: there are checkpoints, and none can be read.
      TrainingDiverged: names the bad steps; the last good checkpoint stays.
      NotWritten: the last checkpoint, the weights or the table are not there (a full disk);
        run again to write them.
      OSError: the workdir cannot be written to.
      Interrupted: SIGTERM or SIGINT came; the run was saved (a SystemExit, status 143/130).
    """
    if "://" in workdir:  # abspath would make it a folder "gs:" on this machine
        raise ConfigError(
            f"workdir = {workdir!r} is a URL: mount the bucket and give the folder (docs/tpu.md)"
        )
    workdir = os.path.abspath(workdir)
    require_writable(workdir)
    remove_leftovers(os.path.join(workdir, "sheets"))
    if (cache := config.train.compilation_cache) is not None:
        beside = os.path.join(os.path.dirname(workdir), ".cache", "jax")
        use_compilation_cache(beside if cache == "auto" else cache)
    first, train = jax.process_index() == 0, config.train
    family = get_family(config.model.family)
    mesh = meshes.make_mesh(train.mesh_data, train.mesh_fsdp)
    meshes.check_batch(train.batch_size, train.accumulate, mesh)
    pairs = valid_pairs(
        make_source(config.data, "valid") if valid_source is None else valid_source,
        config.data,
        multiple=family.multiple(config.model),
        count=train.valid_images,
        crop=train.valid_crop,
    )
    offsets = [sum(p.steps for p in train.phases[:i]) for i in range(len(train.phases) + 1)]

    source = make_source(config.data, "train") if source is None else source
    folder = os.path.join(workdir, "checkpoints")
    with (
        locked(workdir) if first else contextlib.nullcontext(),
        StopRequest() as request,
        Progress(workdir, train.batch_size, train.tensorboard, active=first) as progress,
        Checkpoints(folder, train.keep, progress.message) as store,
        make_loader(
            source,
            config.data,
            batch_size=train.batch_size // jax.process_count(),
            seed=config.seed,
            shard=(jax.process_index(), jax.process_count()),
        ) as loader,
    ):
        run = Run(config, workdir, family, mesh, loader, pairs, store, progress, request)
        state, phase = restore(run)
        check_run(config, family, mesh, source, pairs, -1 if state is None else phase)
        batch = None
        progress.start(offsets[phase] + (int(state.step) if state else 0), offsets[-1])
        for note in family.notes(config.model):
            progress.message(note)
        if first:
            write_json(run.path("config.json"), config.to_dict())
        for index in range(phase, len(train.phases)):
            if state is None or index > phase:
                with explained(config, train.phases[index]):
                    state, batch = begin_phase(run, index, state)
            state = train_phase(run, index, offsets[index], state, batch)
        params = jax.tree.map(jnp.asarray, export(run, state, "model"))
        store.wait()
        if store.failed:
            run.unwritten["the last checkpoint was"] = "see above"
        if run.unwritten:
            missing = "; ".join(
                f"{what} not written ({why})" for what, why in run.unwritten.items()
            )
            raise NotWritten(f"{offsets[-1]} steps are made, but {missing}; run again", params)
        progress.message(f"done: {offsets[-1]} steps, weights in {run.path('model')}")
    return params


def train_phase(
    run: Run, index: int, offset: int, state: TrainState, batch: dict[str, jax.Array] | None
) -> TrainState:
    """Make the remaining steps of a phase.

    Args:
      run: the run; `index`: of the phase; `offset`: steps of the phases before.
      state: where the phase stands; donated.
      batch: the batch of the next step, if it was already taken from the loader.
    """
    train = run.config.train
    phase = train.phases[index]
    views = run.family.views(run.config.model, phase.loss)
    key = run.key(2, index)
    meter = Meter(run.progress, train, phase.name, offset)
    steps: dict[tuple[str, ...], Any] = {}
    step = int(state.step)
    if step == phase.steps:  # resumed at the end: the table may not have been made
        meter.end(state)
        validate(run, views, state, index, offset + step)
    while step < phase.steps:
        active = active_groups(phase, state.params, step)
        batch = run.next_batch() if batch is None else batch
        if active in steps:
            state, metrics = steps[active](state, batch, key)
        else:
            steps[active] = make_step(run.family, phase, train, run.mesh, active)
            with run.progress.pause(), explained(run.config, phase):  # it compiles
                state, metrics = steps[active](state, batch, key)
        batch, step = None, step + 1
        meter.add(step, metrics)

        stop, last = run.request.agreed(), step == phase.steps
        show = not stop and (last or (train.valid_every and step % train.valid_every == 0))
        if not (stop or show or step % train.checkpoint_every == 0):
            continue
        skipped = meter.drain()  # raises TrainingDiverged before anything is overwritten
        if last:
            meter.end(state)
        number = offset + step
        with run.progress.pause():
            # First of all: whatever a validation meets, these steps are not lost.
            save_checkpoint(run, index, number, step, state, skipped)
            export(run, state, "model")
            report = validate(run, views, state, index, number) if show else None
            score = report.score(train.best) if report and not skipped else None
            if score is not None and run.store.rank(number, index, score):
                export(run, state, "best")
        if run.request.agreed():
            run.store.wait()
            raise Interrupted(run.request.received, number, saved=not run.store.failed)
    return state


def validate(
    run: Run, views: Sequence[Any], state: TrainState, index: int, step: int
) -> Report | None:
    """Measure the averaged weights; write the table and the sheet.  None if interrupted."""
    train, rows = run.config.train, []

    def show(pair: Any, images: Any) -> None:
        if len(rows) < train.sheet_images:
            rows.append((pair["name"], cut(pair, images)))

    report = evaluate(
        state.weights, run.family, views, run.pairs, run.key(3), train.valid_draws,
        metrics=train.metrics, show=show, stop=run.request.agreed,
    )  # fmt: skip
    if report is None or jax.process_index() != 0:
        return report
    phase = train.phases[index]
    about = {"name": run.config.name, "phase": phase.name, "step": step}
    run.progress.record(step, phase.name, int(state.step), report.scalars())
    run.progress.message(f"[{phase.name}] step {step}  {report}")
    with run.writes("the table of the last validation was"):
        write_report(report, run.workdir, about)
    with run.writes("the pictures of the last validation were"):
        if rows:
            write_sheet(run.path("sheets", f"{step:08d}.png"), rows)
    return report


def save_checkpoint(
    run: Run, index: int, number: int, step: int, state: TrainState, skipped: int
) -> None:
    """Begin to save the state, unless the last step was a bad one."""
    if skipped:
        # Weights that give no finite loss must not push out the last good ones.
        run.progress.message(f"step {number}: not saved, the last {skipped} steps were skipped")
        return
    meta = make_meta(run.config.to_dict(), index, step, run.loader.get_state())
    run.store.save(number, state, meta)


def export(run: Run, state: TrainState, folder: str) -> Params:
    """Write the averaged weights to a folder of the workdir and return them, on the host."""
    params = meshes.gather(run.mesh, state.weights)
    if jax.process_index() == 0:
        with run.writes(f"the weights in {folder}/ were"):
            weights.save(params, run.path(folder))
    return params


def write_json(path: str, record: Any) -> None:
    """Write a JSON file that is whole or not there."""
    with atomic_write(path) as file:
        file.write((json.dumps(record, indent=1) + "\n").encode())
