"""What an installation brings: every import is declared, and what may lack is asked for."""

from __future__ import annotations

import ast
import configparser
import importlib.metadata
import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from flowsr_jax import exits, extras
from flowsr_jax.extras import EXTRAS, MissingPackage, require

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "flowsr_jax"
# Named by messages of their own: the reader of TensorFlow checkpoints and sets, TPU's compiler.
OTHERS = {"tensorflow"}


def requirements():
    """{"" or extra: names of the distributions} of setup.cfg."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    fields = {"": config["options"]["install_requires"], **config["options.extras_require"]}
    return {
        extra: {canonicalize_name(Requirement(line).name) for line in text.split("\n") if line}
        for extra, text in fields.items()
    }


def imports():
    """Yield file, module and whether it is imported at the top, of all third-party imports."""
    for file in [*PACKAGE.rglob("*.py"), *(ROOT / "configs").glob("*.py")]:
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module]
            for name in {n.partition(".")[0] for n in names} - {"flowsr_jax", "configs"}:
                if name not in sys.stdlib_module_names and name != "__future__":
                    yield file, name, node in tree.body


def test_every_import_is_declared():
    declared = requirements()
    of_module = importlib.metadata.packages_distributions()
    for file, module, _ in imports():
        if module in OTHERS:
            continue
        names = {canonicalize_name(n) for n in of_module.get(module, [module])}
        assert names & declared[EXTRAS.get(module, "")], f"{file.name} imports {module}"


def test_all_holds_every_extra():
    declared = requirements()
    text = (ROOT / "setup.cfg").read_text()
    every = set(re.search(r"^all = flowsr_jax\[(.*)\]$", text, re.M)[1].split(","))
    assert every == set(declared) - {"", "all", "dev"} and set(EXTRAS.values()) <= every
    assert declared["evaluate"] <= declared["train"]  # validation measures


def test_what_may_be_missing_is_asked_for_before_it_is_imported():
    """In the file that imports it; flax and chex bring the two that stand at the top of files."""
    for file, module, top in imports():
        if module not in EXTRAS or file.parent.name == "configs":
            continue
        if top:
            assert module in ("optax", "absl"), f"{file.name} imports {module} at the top"
        else:
            text = file.read_text()
            asked = f'require("{module}")' in text or "except ImportError" in text
            assert asked or module == "absl", f"{file.name} imports {module}"


def test_a_missing_package_is_one_line(monkeypatch, capsys):
    require("jax", *sorted({"skimage", "grain"}))
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackage) as found:
        require("grain")
    assert exits.failed(found.value) == 2
    said = capsys.readouterr().err
    assert said == 'error: grain is not installed: pip install "flowsr_jax[train]"\n'
