"""Imports run one way: the four that use files, models and drawing do not use one another."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "flowsr_jax"
PEERS = ("upscaling", "editing", "evaluation", "train")
# A floor, and what it may stand on.
FLOORS = {
    "exits": set(),
    "memory": set(),
    "extras": set(),
    "console": {"exits"},
    "files": {"console", "files"},
    "drawing": {
        "api", "config", "console", "drawing", "files", "math", "memory", "metrics", "models",
    },
}  # fmt: skip


def imported(file):
    """The parts of the package that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module == "flowsr_jax":
            names = [f"flowsr_jax.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("flowsr_jax.")}
    return found


def files_of(part):
    folder = PACKAGE / part
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{part}.py"]


@pytest.mark.parametrize("part", PEERS)
def test_peers_do_not_import_one_another(part):
    others = set(PEERS) - {part}
    arrows = {str(f.relative_to(PACKAGE)): imported(f) & others for f in files_of(part)}
    assert not {file: found for file, found in arrows.items() if found}


@pytest.mark.parametrize("part", FLOORS)
def test_floors_stand_on_what_is_below(part):
    for file in files_of(part):
        assert imported(file) <= FLOORS[part], file.relative_to(PACKAGE)


def test_the_walk_sees_arrows(tmp_path):
    file = tmp_path / "a.py"
    body = "from flowsr_jax.train.step import x\n    import flowsr_jax.api\n"
    file.write_text(f"def f():\n    {body}")
    assert imported(file) == {"train", "api"}
