"""The command as a process: a disk that is full, and a kill in the middle of a batch."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import flowsr_jax
from flowsr_jax.files.images import read_rgb, write_png
from flowsr_jax.models import get_family
from flowsr_jax.models.rrdb.config import RRDBConfig

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, ROOT / "launch" / "sample.py"]
ENV = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
LIMITED = (
    "import os, resource, sys\n"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
    "os.execv(sys.argv[1], sys.argv[1:])\n"
)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    config = RRDBConfig(scale=2, nf=3, gc=2, nb=1, residual=True)
    flowsr_jax.save(get_family("rrdb").init(config, jax.random.key(0)), folder)
    return folder


def _photos(folder, sizes):
    folder.mkdir()
    for i, side in enumerate(sizes):
        rgb = np.random.default_rng(i).integers(0, 256, (side, side, 3), dtype=np.uint8)
        write_png(folder / f"{i}.png", rgb)
    return folder


def test_a_full_disk_fails_the_image_only(tmp_path, model):
    """A limit on the size of files stands in for the disk: writing fails half-way."""
    photos, out = _photos(tmp_path / "in", [10, 100, 12]), tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *COMMAND, "-i", photos, "-o", out, "-n", model],
        capture_output=True,
        text=True,
        env=ENV,
    )
    print(done.stderr)
    assert done.returncode == 1
    assert done.stderr == (
        f"[2/3] 1.png: failed: {out / '1.png'}: cannot be written (File too large)\n"
    )
    assert done.stdout.splitlines()[-1] == "2 written, 0 skipped, 1 failed"
    assert sorted(os.listdir(out)) == ["0.png", "2.png"]


def test_a_killed_batch_is_completed_by_the_next_run(tmp_path, model):
    photos, out = _photos(tmp_path / "in", [400] * 6), tmp_path / "out"
    call = [*COMMAND, "-i", photos, "-o", out, "-n", model, "--tile", "128"]
    process = subprocess.Popen(call, env=ENV, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (out / "1.png").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL  # it had not finished
    finished = {p.name: p.stat().st_mtime_ns for p in out.glob("*.png")}
    assert 2 <= len(finished) < 6
    again = subprocess.run(call, env=ENV, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[-1] == (
        f"{6 - len(finished)} written, {len(finished)} skipped, 0 failed"
    )
    assert sorted(os.listdir(out)) == [f"{i}.png" for i in range(6)]  # nothing half-written
    for path in out.iterdir():
        assert read_rgb(path).shape == (800, 800, 3)
        assert finished.get(path.name, path.stat().st_mtime_ns) == path.stat().st_mtime_ns
