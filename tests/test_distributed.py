"""Two processes over jax.distributed: signals, a killed one, resuming elsewhere.

Run as a script it is one of the processes: WORKDIR CONFIG_JSON PORT INDEX [signal].
"""

from __future__ import annotations

import copy
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from train_cases import make_pictures, registered, run_values
from virtual_devices import virtual_devices

from flowsr_jax.config import ConfigError
from flowsr_jax.train.config import resolve
from flowsr_jax.train.loop import Interrupted, train_and_evaluate
from flowsr_jax.train.mesh import initialize_distributed

ROOT = Path(__file__).parent.parent
HEARTBEAT_S = 10


@pytest.fixture(autouse=True, scope="module")
def family():
    with registered():
        yield


@pytest.fixture
def values(tmp_path):
    make_pictures(tmp_path / "train", 12)
    make_pictures(tmp_path / "valid", 2, seed=1)
    return run_values(tmp_path, ema_decay=0.5, log_every=1, mesh_data=-1)


@pytest.fixture
def start(tmp_path):
    """Start two processes with two devices each; what still runs is killed in the end."""
    started = []

    def begin(values, *arguments):
        values = copy.deepcopy(values)
        values["train"]["phases"][0]["steps"] = 100_000
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = str(free.getsockname()[1])
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = {
            **os.environ,
            "PYTHONPATH": path,
            **virtual_devices(2),
        }
        command = [sys.executable, __file__, str(tmp_path / "run"), json.dumps(values), port]
        for index in "01":
            started.append(
                subprocess.Popen(
                    [*command, index, *arguments],
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
        return started[-2:]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def wait_for_step(folder, step, processes):
    """Wait until metrics.csv has the row of a step."""
    end = time.monotonic() + 300
    while True:
        file = folder / "metrics.csv"
        rows = file.read_text().splitlines()[1:] if file.exists() else []
        if any(int(row.split(",")[0]) >= step for row in rows[:-1]):
            return
        for process in processes:
            assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


def finish(values, steps, workdir):
    """Train in this process, on one device, up to a step."""
    values = copy.deepcopy(values)
    values["train"]["mesh_data"] = 1
    values["train"]["phases"][0]["steps"] = steps
    return train_and_evaluate(resolve(values), str(workdir))


def checkpoints(workdir):
    return sorted(int(n) for n in os.listdir(workdir / "checkpoints") if n.isdigit())


def assert_both_stopped(processes):
    """Both left with 143 after the same step; return it."""
    texts = [p.communicate(timeout=300)[0] for p in processes]
    assert [p.returncode for p in processes] == [143, 143], "\n".join(texts)
    steps = [re.search(r"stopped by SIGTERM at step (\d+)", text)[1] for text in texts]
    assert steps[0] == steps[1]
    return int(steps[0])


def test_sigterm_of_one_process_stops_both_after_the_same_step(values, start, tmp_path):
    values["train"]["checkpoint_every"] = 1_000_000
    processes = start(values)
    wait_for_step(tmp_path / "run", 3, processes)
    processes[1].send_signal(signal.SIGTERM)
    step = assert_both_stopped(processes)
    assert checkpoints(tmp_path / "run") == [step]
    # One process with one device goes on as if nothing had been.
    found = finish(values, step + 2, tmp_path / "run")
    straight = finish(values, step + 2, tmp_path / "straight")
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-6), found, straight)


@pytest.mark.slow
def test_sigterm_before_the_first_step_of_a_resumed_run_is_not_lost(values, start, tmp_path):
    finish(values, 8, tmp_path / "run")
    step = assert_both_stopped(start(values, "signal"))
    assert step == 9 and checkpoints(tmp_path / "run")[-1] == 9


@pytest.mark.slow
def test_a_killed_process_ends_the_other_and_the_run_resumes(values, start, tmp_path):
    values["train"]["checkpoint_every"] = 2
    processes = start(values)
    wait_for_step(tmp_path / "run", 4, processes)
    processes[1].kill()
    # On the CPU the collective fails at once; elsewhere it waits, until the heartbeat stops.
    text = processes[0].communicate(timeout=HEARTBEAT_S + 120)[0]
    assert processes[0].returncode not in (0, 143)
    assert "another task died" in text or "Connection reset by peer" in text, text
    step = checkpoints(tmp_path / "run")[-1]
    found = finish(values, step + 2, tmp_path / "run")
    straight = finish(values, step + 2, tmp_path / "straight")
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-6), found, straight)


def test_a_url_is_no_workdir(values):
    with pytest.raises(ConfigError, match="'gs://bucket/run' is a URL"):
        train_and_evaluate(resolve(values), "gs://bucket/run")


if __name__ == "__main__":
    workdir, text, port, index = sys.argv[1:5]
    initialize_distributed(f"localhost:{port}", 2, int(index), heartbeat_s=HEARTBEAT_S)
    if index == "1" and "signal" in sys.argv[5:]:
        os.kill(os.getpid(), signal.SIGTERM)
    with registered():
        try:
            train_and_evaluate(resolve(json.loads(text)), workdir)
        except Interrupted as stop:
            print(stop)
            raise
