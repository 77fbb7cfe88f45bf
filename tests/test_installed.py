"""The wheel outside the repository: its files, its commands, and what each extra brings.

The environments hold the wheel and the packages that its metadata asks for, and nothing else:
links into the environment of the tests, so that nothing is fetched.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("flowsr_jax", "configs")
FILES = ("setup.cfg", "setup.py", "pyproject.toml", "README.md", "LICENSE")
VARIABLES = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
SETUPTOOLS = int(importlib.metadata.version("setuptools").split(".")[0])
pytestmark = pytest.mark.skipif(SETUPTOOLS < 77, reason="building needs setuptools 77")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy, since building writes beside the sources."""
    folder = tmp_path_factory.mktemp("build")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name)
    for name in FILES:
        shutil.copy(ROOT / name, folder / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps"]
    subprocess.run([*command, "--no-index", "-w", folder / "dist", folder], check=True)
    return next((folder / "dist").glob("*.whl"))


def asked_for(own, extras):
    """Return {name: distribution} of what an installation with these extras brings."""
    found, waiting = {}, [(own, frozenset(extras))]
    seen = set(waiting)
    for dist, wanted in waiting:
        for requirement in map(Requirement, dist.requires or ()):
            marker = requirement.marker
            if marker and not any(marker.evaluate({"extra": e}) for e in ("", *wanted)):
                continue
            name = canonicalize_name(requirement.name)
            if name != "flowsr-jax":
                found[name] = importlib.metadata.distribution(name)
            item = (found.get(name, own), frozenset(requirement.extras))
            if (name, item[1]) not in seen:
                seen.add((name, item[1]))
                waiting.append(item)
    return found


def environment(folder, wheel, *extras):
    """Return a function that runs a command of a new environment in an empty folder."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-index"]
    subprocess.run([*pip, "--no-deps", wheel], check=True, env=VARIABLES)
    site = next(folder.glob("lib/python*/site-packages"))
    own = importlib.metadata.Distribution.at(next(site.glob("*.dist-info")))
    for dist in asked_for(own, extras).values():
        for top in {file.parts[0] for file in dist.files} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(dist.locate_file(top)).resolve())
    (folder / "empty").mkdir()

    def run(*arguments, status=0):
        done = subprocess.run(
            arguments, cwd=folder / "empty", capture_output=True, text=True, check=False,
            env={**VARIABLES, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"},
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout if status == 0 else done.stderr

    return run


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    file = tmp_path_factory.mktemp("photo") / "a.png"
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(file)
    return file


def test_the_wheel_holds_every_file(wheel):
    with zipfile.ZipFile(wheel) as file:
        held = {name for name in file.namelist() if ".dist-info/" not in name}
    wanted = {p for p in (ROOT / "flowsr_jax").rglob("*") if p.is_file() and p.suffix != ".pyc"}
    names = {str(p.relative_to(ROOT)) for p in wanted}
    names |= {f"flowsr_jax/configs/{p.name}" for p in (ROOT / "configs").glob("*.py")}
    assert held == names


@pytest.mark.long
def test_the_core_loads_and_samples(wheel, photo, tmp_path):
    run = environment(tmp_path / "core", wheel)
    assert "search-schedule" in run("flowsr", "--help")
    place = run("python", "-c", "import flowsr_jax; print(flowsr_jax.__file__)")
    assert Path(place.strip()).is_relative_to(tmp_path)
    run("flowsr", "sample", "-i", photo, "-o", "big.png", "-n", "demo")
    assert Image.open(tmp_path / "core" / "empty" / "big.png").size == (128, 128)
    for command, extra in (
        (["train", "--config=nice_digits:smoke"], "train"),
        (["evaluate", "-n", "demo", "-i", photo, "-o", "out"], "evaluate"),
    ):
        said = run("flowsr", *command, status=2)
        assert said.count("\n") == 1, said
        assert f'is not installed: pip install "flowsr_jax[{extra}]"' in said


@pytest.mark.long
def test_a_smoke_config_trains_samples_and_evaluates(wheel, photo, tmp_path):
    run = environment(tmp_path / "all", wheel, "train", "evaluate")
    small = {"valid_images": 1, "valid_crop": 32, "phases.encoder.steps": 2}
    flags = [f"--config.train.{name}={value}" for name, value in small.items()]
    run("flowsr", "train", "--config=rrdb_div2k:smoke", *flags)
    model = "runs/rrdb_div2k_smoke"
    run("python", "-m", "flowsr_jax", "sample", "-i", photo, "-o", "out", "-n", model)
    run("flowsr", "evaluate", "-n", model, "-i", photo, "-o", "table", "--limit=1")
    empty = tmp_path / "all" / "empty"
    assert Image.open(empty / "out" / "a.png").size == (128, 128)
    assert (empty / "table" / "per_image.csv").read_text().count("\n") > 1
    assert sorted(p.name for p in empty.iterdir()) == ["out", "runs", "table"]
