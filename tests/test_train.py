"""Whole runs of a tiny family: resuming, stopping, validation, phases, meshes."""

from __future__ import annotations

import copy
import csv
import dataclasses
import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from train_cases import FAMILY, TinyConfig, make_pictures, registered, run_values, same
from virtual_devices import virtual_devices

from flowsr_jax.config import ConfigError
from flowsr_jax.data import make_source, valid_pairs
from flowsr_jax.io import weights
from flowsr_jax.math.resize import imresize
from flowsr_jax.metrics import psnr, to_uint8
from flowsr_jax.models.base import View
from flowsr_jax.train import evaluate as evaluation
from flowsr_jax.train import loop
from flowsr_jax.train.config import resolve
from flowsr_jax.train.loop import Interrupted, TrainingDiverged, train_and_evaluate
from flowsr_jax.train.progress import MetricsFile

ROOT = Path(__file__).parent.parent
GROUPS = [{"name": "a", "lr": 1e-2}, {"name": "b", "lr": 1e-2}]


@pytest.fixture(autouse=True, scope="module")
def family():
    with registered():
        yield


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    make_pictures(root / "train", 12)
    make_pictures(root / "valid", 3, seed=1)
    return root


@pytest.fixture
def values(pictures):
    return run_values(pictures)


def run(values, workdir, **overrides):
    return train_and_evaluate(resolve(copy.deepcopy(values), overrides), str(workdir))


def spawn(values, workdir, **environment):
    command = [sys.executable, str(ROOT / "tests" / "train_cases.py"), str(workdir)]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [*command, json.dumps(values)],
        env={**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def rows_of(workdir):
    with open(Path(workdir) / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def training_rows(workdir):
    """Rows of training steps without the clock."""
    keep = [r for r in rows_of(workdir) if r["loss"]]
    return [{k: v for k, v in r.items() if k != "images_per_s"} for r in keep]


@pytest.fixture(scope="module")
def straight(pictures, tmp_path_factory):
    """A run of 8 steps without interruption: (workdir, weights)."""
    workdir = tmp_path_factory.mktemp("straight") / "run"
    return workdir, run(run_values(pictures, ema_decay=0.9), workdir)


def test_a_run_leaves_what_the_design_says(straight, pictures):
    workdir, params = straight
    assert sorted(os.listdir(workdir / "checkpoints")) == ["4", "8"]
    assert same(weights.load(workdir / "model"), params)
    config = resolve(json.loads((workdir / "config.json").read_text()))
    assert config == resolve(run_values(pictures, ema_decay=0.9))
    assert same(weights.load(workdir / "best"), params), "the only validation"
    losses = [(int(r["step"]), float(r["loss"])) for r in training_rows(workdir)]
    assert [step for step, _ in losses] == [2, 4, 6, 8] and losses[-1][1] < losses[0][1]
    assert {"lr/a", "lr/b", "grad_norm", "l1", "skipped_total"} <= set(rows_of(workdir)[0])
    sheet = Image.open(workdir / "sheets" / "00000008.png")
    assert sheet.size[0] > 6 * 24 and sheet.size[1] > 2 * 24


def test_the_table_is_what_the_metrics_say(straight, pictures):
    workdir, params = straight
    table = json.loads((workdir / "result.json").read_text())
    rows = {row["view"]: row for row in table["rows"]}
    assert list(rows) == ["bicubic", "mean", "draw"] and table["step"] == 8
    expected, bicubic, bits, gaussian = [], [], [], []
    for name in ("000.png", "001.png"):
        hr = np.asarray(Image.open(pictures / "valid" / name))
        lr = imresize(hr, 1 / 2)
        bicubic.append(psnr(imresize(lr, 2), hr))
        x = lr[None].astype(np.float32) / 255
        image = np.asarray(FAMILY.views(None, "mse")[0].sample(params, x, None))[0]
        expected.append(psnr(to_uint8(image), hr))
        mse = np.mean((255.0 * image - hr) ** 2)
        gaussian.append(0.5 * np.log2(2 * np.pi * np.e * mse))
        (z,), log_prob = FAMILY.encode(params, hr[None].astype(np.float32) / 255, x)
        bits.append(-float(log_prob[0]) / (np.log(2) * z.size) + np.log2(255))
    assert rows["mean"]["psnr"] == pytest.approx(np.mean(expected), abs=1e-3)
    assert rows["bicubic"]["psnr"] == pytest.approx(np.mean(bicubic), abs=1e-6)
    assert table["bits_per_dim"] == pytest.approx(np.mean(bits), abs=1e-4)
    assert table["gaussian_bits_per_dim"] == pytest.approx(np.mean(gaussian), abs=1e-4)
    # 0.05 of noise, two draws: the mean deviation of a pair is 0.05 * 255 / sqrt(pi).
    assert rows["draw"]["diversity"] == pytest.approx(7.2, rel=0.2)
    assert rows["mean"]["diversity"] is None and rows["draw"]["draws"] == 2
    text = (workdir / "result.md").read_text()
    assert f"| mean | {rows['mean']['psnr']:.2f} |" in text and "bits/dim" in text


def test_resuming_after_kill_9_is_bit_identical(straight, pictures, tmp_path):
    values = run_values(pictures, ema_decay=0.9, log_every=1, checkpoint_every=2)
    workdir = tmp_path / "run"
    slow = copy.deepcopy(values)
    slow["train"]["phases"][0]["steps"] = 100_000
    process = spawn(slow, workdir)
    try:
        wait_for(lambda: has_checkpoint(workdir, 2), process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    step = max(int(n) for n in os.listdir(workdir / "checkpoints") if n.isdigit())
    with open(workdir / "metrics.csv", "a") as file:
        file.write(f"{step + 5},fit,{step + 5},1\n{step},fi")  # written ahead, and cut short
    total = step + 3
    values["train"]["phases"][0]["steps"] = total
    params = run(values, workdir)
    expected = run(values, tmp_path / "straight")
    assert same(params, expected)
    assert training_rows(workdir) == training_rows(tmp_path / "straight")
    assert json.loads((workdir / "result.json").read_text()) == json.loads(
        (tmp_path / "straight" / "result.json").read_text()
    )


def has_checkpoint(workdir, step):
    folder = workdir / "checkpoints"
    return folder.is_dir() and any(n.isdigit() and int(n) >= step for n in os.listdir(folder))


def wait_for(condition, process, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_save_and_leave(pictures, tmp_path, number, status):
    values = run_values(pictures, checkpoint_every=1_000_000, log_every=1)
    values["train"]["phases"][0]["steps"] = 100_000
    process = spawn(values, tmp_path / "run")
    wait_for(lambda: (tmp_path / "run" / "metrics.csv").exists(), process)
    wait_for(lambda: len(rows_of(tmp_path / "run")) > 2, process)
    process.send_signal(number)
    text = process.communicate(timeout=60)[0]
    assert process.returncode == status, text
    (step,) = (int(n) for n in os.listdir(tmp_path / "run" / "checkpoints"))
    assert weights.load(tmp_path / "run" / "model")
    # It goes on as if nothing had been.
    values["train"]["phases"][0]["steps"] = step + 2
    assert same(run(values, tmp_path / "run"), run(values, tmp_path / "straight"))


def test_a_signal_during_validation_ends_it(values, tmp_path, monkeypatch):
    real, sent = evaluation.lr_psnr, []

    def measure(*arguments):
        if not sent:  # a second signal would end the process
            sent.append(os.kill(os.getpid(), signal.SIGTERM))
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "lr_psnr", measure)
        with pytest.raises(Interrupted) as stop:
            run(values, tmp_path / "run")
    assert (stop.value.code, stop.value.step) == (143, 8) and "SIGTERM at step 8" in str(stop.value)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert not (tmp_path / "run" / "result.json").exists()
    run(values, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["step"] == 8


def test_a_finished_run_only_returns_its_weights(straight, pictures, capsys):
    workdir, params = straight
    before = sorted(os.listdir(workdir / "checkpoints")), training_rows(workdir)
    assert same(run(run_values(pictures, ema_decay=0.9), workdir), params)
    assert before == (sorted(os.listdir(workdir / "checkpoints")), training_rows(workdir))
    assert "resuming from checkpoint 8" in capsys.readouterr().out


def test_another_configuration_is_refused(straight, pictures):
    with pytest.raises(ConfigError, match=r"ema_decay: 0\.9 -> 0\.0"):
        run(run_values(pictures), straight[0])


def test_phases_follow_each_other_and_init_from_data_runs_once(values, tmp_path, monkeypatch):
    first = {"name": "one", "loss": "mse", "steps": 3, "groups": GROUPS[:1]}
    second = {
        "name": "two", "loss": "mse", "steps": 4, "init_from_data": True, "loss_options": {},
        "groups": [{"name": "b", "lr": 0.0}],
    }  # fmt: skip
    values["train"] |= {"phases": [first, second], "checkpoint_every": 2, "log_every": 1}
    taken = []
    real = loop.Run.next_batch
    monkeypatch.setattr(loop.Run, "next_batch", lambda self: taken.append(real(self)) or taken[-1])
    params = run(values, tmp_path / "run")
    # The batch of the initialisation is also that of the phase's first step.
    assert len(taken) == 7
    batch = {k: np.asarray(v, np.float32) / 255 for k, v in taken[3].items()}
    expected = FAMILY.init_from_data(params, batch, None)["b"]
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), expected, params["b"])
    phases = [(r["phase"], r["phase_step"]) for r in training_rows(tmp_path / "run")]
    assert phases == [("one", str(i)) for i in (1, 2, 3)] + [("two", str(i)) for i in (1, 2, 3, 4)]
    # Resuming in the middle of the second phase does not initialise again.
    for step in ("7",):
        os.rename(tmp_path / "run" / "checkpoints" / step, tmp_path / step)
    taken.clear()
    assert same(run(values, tmp_path / "run"), params) and len(taken) == 2


def test_a_group_wakes_up_and_the_program_is_compiled_twice(values, tmp_path, monkeypatch):
    made = []
    real = loop.make_step
    monkeypatch.setattr(loop, "make_step", lambda *a: made.append(real(*a)) or made[-1])
    values["train"]["phases"][0]["groups"] = [GROUPS[0], {**GROUPS[1], "from_step": 0.5}]
    run(values, tmp_path / "run", **{"train.log_every": 1})
    rates = [float(r["lr/b"]) for r in training_rows(tmp_path / "run")]
    assert [r > 0 for r in rates] == [False] * 4 + [True] * 4
    assert [f._cache_size() for f in made] == [1, 1]


def test_weights_are_taken_over_from_another_run(straight, values, tmp_path):
    workdir, params = straight
    phase = values["train"]["phases"][0]
    phase |= {"init_from": str(workdir), "init_groups": ["b"], "steps": 1}
    phase["groups"] = [{"name": "a", "lr": 0.0}]
    found = run(values, tmp_path / "run")
    assert same(found["b"], params["b"]) and not same(found["a"], params["a"])
    for change, message in (
        ({"init_groups": ["c"]}, "it has no group 'c'"),
        ({"init_from": str(tmp_path / "nowhere")}, "nowhere.*cannot be read"),
    ):
        wrong = copy.deepcopy(values)
        wrong["train"]["phases"][0] |= change
        with pytest.raises(ConfigError, match=message):
            run(wrong, tmp_path / "wrong")
    with pytest.raises(ConfigError, match=r"group 'a': \['bias'\] is \(3,\) there and \(5,\)"):
        run(values, tmp_path / "wide", **{"model.width": 5, "train.phases[0].init_groups": ["a"]})


def test_a_diverging_run_stops_and_keeps_its_last_good_checkpoint(values, tmp_path, capsys):
    phase = values["train"]["phases"][0]
    phase |= {"loss": "broken", "loss_options": {"after": 5}, "steps": 50}
    values["train"] |= {"max_skipped": 4, "checkpoint_every": 2}
    with pytest.raises(TrainingDiverged, match="'fit', step 10: 5 steps in a row"):
        run(values, tmp_path / "run")
    assert sorted(os.listdir(tmp_path / "run" / "checkpoints")) == ["2", "4"]
    lines = capsys.readouterr().out
    assert "step 6: loss nan" in lines and "step 6: not saved" in lines
    values["train"]["max_skipped_total"] = 2
    phase |= {"loss_options": {"chance": 0.4}}
    with pytest.raises(TrainingDiverged, match="3 in all"):
        run(values, tmp_path / "total")


def test_a_full_disk_does_not_end_the_run(straight, values, tmp_path, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    values["train"]["ema_decay"] = 0.9
    with monkeypatch.context() as patch:
        patch.setattr(loop.weights, "save", full)
        patch.setattr(MetricsFile, "write", full)
        patch.setattr(loop, "write_report", full)
        # The steps are made, and the run does not say that all is done.
        with pytest.raises(loop.NotWritten, match=r"8 steps are made.*model/.*table") as caught:
            run(values, tmp_path / "run")
    assert same(caught.value.params, straight[1])
    text = capsys.readouterr().out
    assert text.count("No space left") >= 3 and "done:" not in text
    assert same(run(values, tmp_path / "run"), straight[1]), "with room again"
    assert same(weights.load(tmp_path / "run/model"), straight[1])


def test_one_and_eight_devices_agree(values, tmp_path):
    values["model"]["width"] = 4
    meshes = {"eight": {"mesh_data": -1}, "split": {"mesh_data": 4, "mesh_fsdp": 2}}
    jobs = []
    for name, mesh in meshes.items():
        other = copy.deepcopy(values)
        other["train"] |= mesh
        jobs.append(spawn(other, tmp_path / name, **virtual_devices(8)))
    expected = run(values, tmp_path / "one")
    for name, job in zip(meshes, jobs, strict=True):
        text = job.communicate(timeout=120)[0]
        assert job.returncode == 0, text
        found = weights.load(tmp_path / name / "model")
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-6), found, expected)
    assert "fsdp" in (tmp_path / "split/checkpoints/8/state/_sharding").read_text()
    # A checkpoint of eight devices goes on with one.
    values["train"]["phases"][0]["steps"] = 10
    a, b = (run(values, tmp_path / name) for name in ("one", "split"))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-6), a, b)


def test_a_mesh_that_does_not_exist_is_refused(values, tmp_path):
    with pytest.raises(ConfigError, match="1000 .* devices asked"):
        run(values, tmp_path / "run", **{"train.mesh_data": 1000})


def test_images_that_are_not_finite_are_counted(pictures, values):
    def spoiled(params, lr, key):
        image = FAMILY.views(None, "mse")[0].sample(params, lr, key)
        return image.at[:, 0, 0, 0].set(np.nan).at[:, 0, 1, :].set(np.inf)

    config = resolve(values)
    pairs = valid_pairs(make_source(config.data, "valid"), config.data, count=2)
    params = FAMILY.init(TinyConfig(), jax.random.key(0))
    report = evaluation.evaluate(params, FAMILY, [View("v", spoiled)], pairs, jax.random.key(0))
    assert [row["nonfinite"] for row in report.rows] == [0, 8] and report.bits_per_dim is None
    assert np.isfinite(report.rows[1]["psnr"])
    row = report.rows[1]
    assert report.score("auto") == row["psnr"] and report.score("ssim") == row["ssim"]
    assert report.score("bits_per_dim") is None
    assert dataclasses.replace(report, bits_per_dim=3.0).score("auto") == -3.0
    assert dataclasses.replace(report, bits_per_dim=np.nan).score("auto") is None


def test_validation_compiles_every_view_once_per_shape(pictures, values):
    config = resolve(values)
    pairs = valid_pairs(make_source(config.data, "valid"), config.data, count=2)
    params = FAMILY.init(TinyConfig(), jax.random.key(0))
    traces = []

    def counted(params, lr, key):
        traces.append(1)
        return FAMILY.sample(params, lr, key)

    @jax.jit
    def shared(params, lr, key, *, temperature):
        traces.append(1)
        return temperature * FAMILY.sample(params, lr, key)

    plain = [View("plain", counted, stochastic=True)]
    parts = [View(str(t), functools.partial(shared, temperature=t)) for t in (0.5, 1.0)]
    for views in (plain, parts):
        for _ in range(2):
            evaluation.evaluate(params, FAMILY, views, pairs, jax.random.key(0), 2)
        assert len(traces) == 1
        traces.clear()


def test_the_metrics_file_takes_new_columns_and_drops_late_rows(tmp_path):
    path = str(tmp_path / "metrics.csv")
    file = MetricsFile(path)
    for step, row in enumerate([{"loss": 1.0}, {"loss": 2.0, "x": 3.0}, {"y": 4.0}], start=1):
        file.write({"step": step, "phase": "p", "phase_step": step, **row})
    rows = rows_of(tmp_path)
    assert [(r["step"], r["loss"], r["x"], r["y"]) for r in rows] == [
        ("1", "1.0", "", ""),
        ("2", "2.0", "3.0", ""),
        ("3", "", "", "4.0"),
    ]
    with open(path, "a") as text:
        text.write("2,p,2,5.0")  # cut short by a kill: the line has no end
    MetricsFile(path, 2)
    assert rows_of(tmp_path) == rows[:2]
    MetricsFile(path, 0)
    assert rows_of(tmp_path) == []


def test_the_command_line_answers_mistakes_in_one_line(pictures, tmp_path):
    config = tmp_path / "tiny_run.py"
    config.write_text(
        "import ml_collections\n"
        "def get_config(arg=''):\n"
        "    if arg: raise ValueError('there is no variant ' + arg)\n"
        f"    return ml_collections.ConfigDict({run_values(pictures)!r})\n"
    )
    (tmp_path / "file").write_text("")
    bare, wrong = tmp_path / "bare.py", tmp_path / "wrong.py"
    bare.write_text("x = 1\n")
    wrong.write_text("import no_such_module\n")
    arguments_of_all, expected = [], []
    for arguments, message in (
        ([f"--config={config}", "--config.train.batchsize=4"], r"mean 'batch_size'"),
        ([f"--config={config}", "--config.train.phases.fti.steps=4"], r"mean 'fit'"),
        ([f"--config={config}", "stray"], r"unknown argument 'stray'"),
        ([f"--config={config}:tny"], r"there is no variant tny"),
        ([f"--confg={config}"], r"arguments are required: --config"),
        (["--config=nowhere.py"], r"nowhere\.py"),
        ([f"--config={config}", "--workdr=x"], r"'--workdr=x'; did you mean '--workdir'"),
        (["--config=glow_quickstat"], r"no config of that name; did you mean 'glow_quickstart'"),
        ([f"--config={config}", f"--workdir={tmp_path / 'file'}"], r"file: cannot be written"),
        ([f"--config={config}", "--workdir=/proc/x"], r"/proc/x: cannot be written"),
        ([f"--config={config}", f"--workdir={'x' * 300}"], r"x: cannot be written .*too long"),
        ([f"--config={config}", "--distributed"], r"no cluster was found"),
        ([f"--config={bare}"], r"get_config"),
        ([f"--config={wrong}"], r"no_such_module"),
    ):
        arguments_of_all.append(arguments)
        expected.append(message)
    # One process imports, and forks for each command line.
    code = f"""
import json, os, sys
sys.path[:0] = [{str(ROOT / "tests")!r}, {str(ROOT / "launch")!r}]
import train_cases, train
for number, arguments in enumerate({arguments_of_all!r}):
    if not os.fork():
        os.dup2(os.open(f"{tmp_path}/{{number}}.txt", os.O_CREAT | os.O_WRONLY), 2)
        sys.argv = ["train.py", *arguments]
        try:
            with train_cases.registered():
                status = train.main()
        except SystemExit as stop:
            status = stop.code
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    for number, (message, status) in enumerate(zip(expected, done.stdout.split(), strict=True)):
        text = (tmp_path / f"{number}.txt").read_text()
        assert status == "2", text
        assert re.search(message, text) and "Traceback" not in text
        assert len(text.strip().splitlines()) == 1, text
