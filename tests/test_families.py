"""Every family is a folder with the same files in the same roles, and stands alone."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import flowsr_jax.models
from flowsr_jax.models import families, get_family

FOLDER = Path(flowsr_jax.models.__file__).parent
NAMES = tuple(sorted(p.name for p in FOLDER.iterdir() if (p / "__init__.py").is_file()))
# {file: what it must define}; a file that stands here in every family has the same role there.
ROLES = {
    "__init__.py": {"FAMILY"},
    "config.py": set(),
    "network.py": {"init"},
    "losses.py": set(),
    "sample.py": {"sample"},
    "weights.py": set(),
}
OPTIONAL = {"weights.py"}
# What a family has beside these, because its model has more parts.
MORE = {
    "sr3": {"arguments.py", "condition.py"},
    "irn": {"compression.py", "discriminator.py", "plus.py", "vgg.py"},
}
# A model that holds another one imports its folder.
PARTS = {"srflow": {"rrdb"}}


def defined(path: Path) -> set[str]:
    """Names that a module defines or imports at its top."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)}
    return names


def test_the_folders_are_the_families():
    assert set(NAMES) <= set(families())
    assert len(NAMES) == 7


@pytest.mark.parametrize("name", NAMES)
def test_a_family_has_the_files_of_its_roles(name):
    files = {p.name for p in (FOLDER / name).glob("*.py")}
    assert files - OPTIONAL == set(ROLES) - OPTIONAL | MORE.get(name, set())
    for file in sorted(files & set(ROLES)):
        assert ROLES[file] <= defined(FOLDER / name / file), file


@pytest.mark.parametrize("name", NAMES)
def test_verbs_losses_and_config_come_from_their_files(name):
    family, root = get_family(name), f"flowsr_jax.models.{name}"
    assert family.name == name == family.config_class.family
    assert family.config_class.__module__ == f"{root}.config"
    assert family.init.__module__ == f"{root}.network"
    shared = {f"flowsr_jax.models.{part}.losses" for part in PARTS.get(name, ())}
    modules = {loss.__module__ for loss in family.losses.values()}
    assert f"{root}.losses" in modules
    assert modules <= {f"{root}.losses", f"{root}.plus", *shared}
    assert sys.modules[f"{root}.sample"].sample == family.sample


@pytest.fixture(scope="module")
def imported():
    """{family: other families' modules that getting it imports}, each in a fresh process."""
    code = (
        "import sys, json\n"
        "from flowsr_jax.models import get_family\n"
        "known = lambda: [m for m in sys.modules if m.startswith('flowsr_jax.models.')]\n"
        "before = known()\n"
        "get_family(sys.argv[1])\n"
        "print(json.dumps([before, known()]))"
    )
    running = {
        name: subprocess.Popen(
            [sys.executable, "-c", code, name], stdout=subprocess.PIPE, text=True
        )
        for name in NAMES
    }
    return {name: json.loads(process.communicate()[0]) for name, process in running.items()}


@pytest.mark.parametrize("name", NAMES)
def test_getting_a_family_imports_no_other(name, imported):
    before, after = imported[name]
    assert not {m.split(".")[2] for m in before} & set(NAMES)
    assert {m.split(".")[2] for m in after} & set(NAMES) == {name, *PARTS.get(name, ())}
