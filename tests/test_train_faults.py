"""What goes wrong around a run: full disks, killed processes, two runs in one folder."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from train_cases import FAMILY, make_pictures, registered, run_values, same

from flowsr_jax.config import ConfigError
from flowsr_jax.io import weights
from flowsr_jax.train import loop
from flowsr_jax.train.config import resolve
from flowsr_jax.train.events import Events
from flowsr_jax.train.lock import locked
from flowsr_jax.train.progress import MetricsFile

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True, scope="module")
def family():
    with registered():
        yield


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    make_pictures(root / "train", 4)
    make_pictures(root / "valid", 1, seed=1)
    return root


@pytest.fixture
def watchdog():
    """A run that hangs fails instead of holding up the tests."""

    def bark(*_):
        raise AssertionError("the run hangs")

    before = signal.signal(signal.SIGALRM, bark)
    signal.alarm(240)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def run(values, workdir, **overrides):
    return loop.train_and_evaluate(resolve(values, overrides), str(workdir))


def test_no_writer_can_hold_up_or_silence_a_run(pictures, tmp_path, monkeypatch, capsys, watchdog):
    """From the first checkpoint on no file can grow beyond 100 bytes, as on a full disk."""
    pytest.importorskip("tensorboardX")
    values = run_values(pictures, log_every=1, checkpoint_every=8, tensorboard=True)
    values["train"]["phases"][0]["steps"] = 48
    limit, save = resource.getrlimit(resource.RLIMIT_FSIZE), loop.save_checkpoint

    def fill_up(*arguments):
        save(*arguments)
        arguments[0].store.wait()
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))

    monkeypatch.setattr(loop, "save_checkpoint", fill_up)
    try:
        with pytest.raises(loop.NotWritten, match=r"48 steps.*model/.*table.*checkpoint") as caught:
            run(values, tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    text = capsys.readouterr().out
    assert text.count("no events any more") == 1
    assert "row of step 48 not written" in text and "48 was NOT saved" in text
    assert "last good one is 8" in text and "done:" not in text
    monkeypatch.undo()
    assert same(run(values, tmp_path / "run"), caught.value.params), "again, with room"
    assert "resuming from checkpoint 8" in capsys.readouterr().out
    assert same(weights.load(tmp_path / "run/model"), caught.value.params)


def test_without_tensorboardx_nothing_is_written_or_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX.event_file_writer", None)
    lines = []
    events = Events(str(tmp_path / "events"), 0, lines.append)
    events.write(1, {"loss": 1.0})
    events.close()
    assert not lines and not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [OSError(28, "No space left"), OverflowError("timeout")])
def test_events_are_given_up_at_the_first_error(tmp_path, monkeypatch, error):
    writer = pytest.importorskip("tensorboardX.event_file_writer").EventsWriter
    lines = []
    events = Events(str(tmp_path / "events"), 0, lines.append)
    events.write(1, {"loss": 1.0})
    assert not lines and list((tmp_path / "events").iterdir())

    def fail(*_):
        raise error

    monkeypatch.setattr(writer, "write_event", fail)
    for step in range(2, 50):
        events.write(step, {"loss": 1.0})
    events.close()
    assert len(lines) == 1 and "no events any more" in lines[0]


def test_an_exception_in_a_validation_loses_no_step(pictures, tmp_path, monkeypatch, capsys):
    values = run_values(pictures, valid_every=3, checkpoint_every=100)
    with monkeypatch.context() as patch:

        def fail(*_, **__):
            raise MemoryError

        patch.setattr(loop, "evaluate", fail)
        with pytest.raises(MemoryError):
            run(values, tmp_path / "run")
    run(values, tmp_path / "run")
    assert "resuming from checkpoint 3" in capsys.readouterr().out


def test_a_run_whose_steps_were_skipped_is_not_done(pictures, tmp_path, capsys):
    values = run_values(pictures, max_skipped=100)
    with pytest.raises(loop.TrainingDiverged, match="phase 'fit': [67] of its 8 steps gave"):
        run(values, tmp_path / "run", **{"train.phases.fit.groups[0].lr": 1e38})
    assert "done:" not in capsys.readouterr().out


def test_photographs_that_come_between_are_no_other_run(pictures, tmp_path, capsys):
    values = run_values(tmp_path, checkpoint_every=2)
    for split in ("train", "valid"):
        shutil.copytree(pictures / split, tmp_path / split)
    run(values, tmp_path / "run", **{"train.phases.fit.steps": 2})
    shutil.copy(tmp_path / "train" / "000.png", tmp_path / "train" / "new.png")
    run(values, tmp_path / "run", **{"train.phases.fit.steps": 3})
    text = capsys.readouterr().out
    assert "changed since the checkpoint: 4 -> 5 training images" in text and "done: 3" in text


def test_weights_that_are_not_finite_begin_nothing(pictures, tmp_path, monkeypatch):
    values = run_values(pictures)
    params = FAMILY.init(resolve(values).model, jax.random.key(0))
    bad = params.replace(b={**params["b"], "shift": np.float32([0, np.nan, 0])})
    weights.save(bad, tmp_path / "bad")
    message = "begins with weights of the group 'b' that are not finite"
    with pytest.raises(ConfigError, match=message):
        run(values, tmp_path / "run", **{"train.phases.fit.init_from": str(tmp_path / "bad")})


def test_what_killed_processes_left_goes_with_the_next_write(pictures, tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host, folder = socket.gethostname(), tmp_path / "run"
    folders = [folder, folder / "model", folder / "best", folder / "sheets", tmp_path / "saved"]
    for where in folders:
        where.mkdir(parents=True, exist_ok=True)
        for pid in (dead.pid, os.getpid()):
            (where / f".tmp-{host}-{pid}-0123456789abcdef").write_bytes(b"x")
    run(run_values(pictures), folder)
    params = weights.load(folder)
    weights.save(params, tmp_path / "saved")
    for where in folders:
        left = [p.name for p in where.glob(".tmp-*")]
        assert left == [f".tmp-{host}-{os.getpid()}-0123456789abcdef"], where


def test_one_run_per_workdir(pictures, tmp_path):
    values = run_values(pictures)
    (tmp_path / "run").mkdir()
    with (
        locked(str(tmp_path / "run")),
        pytest.raises(ConfigError, match=rf"in use: process {os.getpid()} on .* trains there"),
    ):
        run(values, tmp_path / "run")
    code = f"""
import sys, time
from flowsr_jax.train.lock import locked
with locked({str(tmp_path / "run")!r}):
    print("held", flush=True)
    time.sleep(600)
"""
    job = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=_environment())
    assert job.stdout.readline() == b"held\n"
    with (
        pytest.raises(ConfigError, match=f"process {job.pid} on"),
        locked(str(tmp_path / "run")),
    ):
        pass
    job.kill()
    job.wait()
    with locked(str(tmp_path / "run")):  # the lock of a killed process is none
        pass


def test_workers_end_with_a_killed_parent(pictures, tmp_path):
    script = tmp_path / "load.py"
    script.write_text(f"""
import multiprocessing, time
from flowsr_jax.data import make_loader, make_source
from flowsr_jax.data.config import DataConfig
if __name__ == "__main__":
    config = DataConfig(source="folder", train_dir={str(pictures / "train")!r}, patch_size=8)
    loader = make_loader(make_source(config, "train"), config, batch_size=2, seed=0, workers=1)
    next(loader)
    print(*(p.pid for p in multiprocessing.active_children()), flush=True)
    time.sleep(600)
""")
    job = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, env=_environment())
    workers = [int(pid) for pid in job.stdout.readline().split()]
    assert workers
    job.kill()
    job.wait()
    deadline = time.monotonic() + 120
    while any(_lives(pid) for pid in workers):
        assert time.monotonic() < deadline, "the workers live on"
        time.sleep(0.1)


def _lives(pid: int) -> bool:
    try:  # a zombie has ended, whether or not somebody asks for its status
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}


@pytest.mark.parametrize(
    "damage",
    [
        b"\xff\xfe\x00\n",
        b"4,fit,4," + b"9" * 200_000 + b"\n",
        b"4,fit,4,\xe2\x82\n5,fi",
        b"\0\0\0\n",
    ],
)
def test_a_damaged_table_of_metrics_is_read_as_far_as_it_goes(tmp_path, damage):
    path = tmp_path / "metrics.csv"
    file = MetricsFile(str(path))
    for step in (1, 2, 3):
        file.write({"step": step, "phase": "fit", "phase_step": step, "loss": 0.5})
    path.write_bytes(path.read_bytes() + damage)
    file = MetricsFile(str(path), 3)
    file.write({"step": 4, "phase": "fit", "phase_step": 4, "loss": 0.25})
    lines = path.read_text().splitlines()
    assert lines[0] == "step,phase,phase_step,loss"
    assert [line.split(",")[0] for line in lines[1:]] == ["1", "2", "3", "4"]
