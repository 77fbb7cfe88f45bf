"""long_tail.txt names tests that exist."""

from __future__ import annotations

import ast
from pathlib import Path

from conftest import LONG_TAIL

TESTS = Path(__file__).parent


def test_the_long_tail_names_tests_that_exist():
    missing = []
    for line in LONG_TAIL:
        module, _, test = line.partition("::")
        tree = ast.parse((TESTS / f"{module}.py").read_text())
        names = {node.name for node in ast.walk(tree) if hasattr(node, "name")}
        if test.partition("[")[0].rpartition("::")[2] not in names:
            missing.append(line)
    assert not missing, missing
    assert len(LONG_TAIL) > 50
