"""Parameter trees and programs of every family do not change unnoticed.

Saved folders, checkpoints and official weights name the parameters; the compiler sees the
programs.  tests/data/frozen.json keeps both for small models (tests/frozen_cases.py, which
writes it anew as a script).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import frozen_cases
import jax
import pytest

from flowsr_jax.models import families

KEPT = json.loads(frozen_cases.FILE.read_text())


def test_every_family_has_a_case():
    assert {family for family, *_ in frozen_cases.CASES.values()} == set(families())
    assert set(KEPT["cases"]) == set(frozen_cases.CASES)


@pytest.mark.parametrize("case", frozen_cases.CASES)
def test_the_tree_is_the_one_that_saved_folders_hold(case):
    assert frozen_cases.tree(case) == KEPT["cases"][case]["tree"]


@pytest.fixture(scope="module")
def programs():
    """Programs as a fresh process traces them: what was traced before can change their text."""
    if jax.__version__ != KEPT["jax"]:
        pytest.skip(f"programs were kept with jax {KEPT['jax']}, this is {jax.__version__}")
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"}
    command = [sys.executable, frozen_cases.__file__, "print"]
    printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(printed.stdout)


@pytest.mark.parametrize("case", frozen_cases.CASES)
def test_the_programs_are_the_same_text(case, programs):
    assert programs[case] == KEPT["cases"][case]["programs"]
