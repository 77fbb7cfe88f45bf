"""The registries, and a package that adds to them: examples/plugin in an environment of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import flowsr_jax
from flowsr_jax import Metric, registry
from flowsr_jax.config import ConfigError
from flowsr_jax.data import DataConfig
from flowsr_jax.data.config import SOURCES, SourceKind
from flowsr_jax.metrics.columns import METRICS, cell, measure_metrics
from flowsr_jax.registry import Registry

ROOT = Path(__file__).parents[1]


class TestRegistry:
    def test_items_and_places_of_items(self):
        table: Registry = Registry("number")
        table.register("pi", 3.14)
        table.register("tau", "math:tau")
        assert table.get("pi") == 3.14 and table.get("tau") == pytest.approx(6.28, abs=0.01)
        assert table.names() == ("pi", "tau") and "pi" in table and "e" not in table

    def test_a_name_is_taken_once(self):
        table: Registry = Registry("number")
        table.register("pi", 3.14)
        table.register("pi", 3.14)  # the same again, as a module that is imported anew does
        with pytest.raises(ValueError, match="the number 'pi' is there already"):
            table.register("pi", 3.15)
        with pytest.raises(ValueError, match="model family 'sr3' is there already"):
            flowsr_jax.register_family("sr3", object())
        with pytest.raises(ValueError, match="data source 'folder' is there already"):
            flowsr_jax.register_source("folder", SourceKind(lambda *_: None))
        for name in ("psnr", "ms_ssim"):
            with pytest.raises(ValueError, match=name):
                flowsr_jax.register_metric(name, Metric("x", 1, lambda a, b: 0.0))

    def test_the_nearest_name(self):
        table: Registry = Registry("number")
        table.register("seven", 7)
        with pytest.raises(ValueError, match="unknown number 'sevn'.*did you mean 'seven'"):
            table.get("sevn")

    def test_using_ends(self):
        table: Registry = Registry("number")
        table.register("one", 1)
        with table.using("one", 11), table.using("two", 2):
            assert table.get("one") == 11 and "two" in table
        assert table.get("one") == 1 and "two" not in table


def test_a_broken_plugin_is_named_and_the_others_load(monkeypatch):
    table: Registry = Registry("number")

    class Point:
        def __init__(self, name, load):
            self.name, self.value, self.load = name, f"{name}_module", load

    def broken():
        raise ImportError("no module named torch")

    points = [Point("bad", broken), Point("good", lambda: lambda: table.register("nine", 9))]
    monkeypatch.setattr(registry._Plugins, "loaded", False)
    monkeypatch.setattr(registry.importlib.metadata, "entry_points", lambda group: points)
    with pytest.warns(UserWarning, match="plug-in 'bad' .*cannot be loaded: ImportError: no mod"):
        assert table.get("nine") == 9
    assert table.names() == ("nine",)  # nothing is loaded twice


def test_metrics_with_and_without_a_reference():
    images, hr = [np.full((4, 4, 3), v, np.uint8) for v in (3, 5)], np.zeros((4, 4, 3), np.uint8)
    level = Metric("level", 1, lambda image: float(image.mean()), reference=False)
    error = Metric("error", 2, lambda image, hr: float((image - hr).mean()), higher=False)
    with METRICS.using("level", level), METRICS.using("error", error):
        names = ("level", "error")
        assert measure_metrics(names, images, hr) == {"level": 4.0, "error": 4.0}
        assert measure_metrics(names, images, None) == {"level": 4.0, "error": None}
        assert cell("level", 4.0) == "4.0" and cell("error", None) == ""


def test_a_source_says_what_it_reads():
    class Grey:
        fields = ("hr",)

    kind = SourceKind(lambda config, split, size: Grey() if split == "train" else None)
    with SOURCES.using("grey", kind):
        assert DataConfig(source="grey").source == "grey"
        with pytest.raises(ConfigError, match="train_dir = 'x' is not read by source = 'grey'"):
            DataConfig(source="grey", train_dir="x")
        assert isinstance(flowsr_jax.data.make_source(DataConfig(source="grey"), "train"), Grey)
        valid = flowsr_jax.data.make_source(DataConfig(source="grey"), "valid")
        assert isinstance(valid, flowsr_jax.data.EmbeddedSource)


RUN = """
import json, os, sys
import jax
jax.config.update("jax_disable_most_optimizations", True)
sys.path[:0] = [sys.argv[1], "source"]
import flowsr_jax
from flowsr_jax.train.config import resolve
from flowsr_jax.train.loop import train_and_evaluate
assert "flowsr_edsr" not in sys.modules
from edsr_npz import get_config
small = {
    "model.width": 4, "model.blocks": 1, "data.train_dir": "a.npz", "data.valid_dir": "a.npz",
    "data.patch_size": 16, "train.batch_size": 4, "train.valid_images": 2,
    "train.phases.l1.steps": 3,
}
train_and_evaluate(resolve(get_config(), small), "run")
"""
COMMANDS = """
import sys
import jax
jax.config.update("jax_disable_most_optimizations", True)
sys.path.insert(0, sys.argv[1])
import evaluate, export, sample
assert sample.main(["-n", "run", "-i", "photos", "-o", "out"]) == 0
assert evaluate.main(["-n", "run", "-i", "photos", "-o", "table", "--metrics", "gmsd"]) == 0
assert export.main(["run", "exported", "--size=16x16", "--batch=1", "--platforms=cpu"]) == 0
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """(folder to work in, variables of a process that has the plug-in installed)."""
    pytest.importorskip("flit_core")
    root = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(ROOT / "examples" / "plugin", root / "source")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--no-index", "--target", root / "site", source], check=True)
    rng = np.random.default_rng(0)
    np.savez(root / "a.npz", images=rng.integers(0, 256, (6, 32, 32, 3), np.uint8))
    (root / "photos").mkdir()
    from flowsr_jax.files.images import write_png

    write_png(root / "photos" / "a.png", rng.integers(0, 256, (32, 32, 3), np.uint8))
    paths = [str(root / "site"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return root, {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "JAX_PLATFORMS": "cpu"}


def test_the_example_trains_samples_evaluates_and_exports(environment):
    root, variables = environment
    for code in (RUN, COMMANDS):
        call = [sys.executable, "-c", code, str(ROOT / "launch")]
        done = subprocess.run(call, cwd=root, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    assert "| view | PSNR | SSIM | LR-PSNR | GMSD |" in (root / "run" / "result.md").read_text()
    rows = json.loads((root / "run" / "result.json").read_text())["rows"]
    assert [row["view"] for row in rows] == ["bicubic", "EDSR"] and rows[1]["gmsd"] > 0
    assert (root / "out" / "a.png").is_file()
    table = json.loads((root / "table" / "summary.json").read_text())["rows"]
    assert [row["method"] for row in table] == ["bicubic", "edsr"] and table[1]["gmsd"] > 0
    assert "gmsd" in (root / "table" / "per_image.csv").read_text().splitlines()[0]
    assert json.loads((root / "exported" / "export.json").read_text())["family"] == "edsr"
