"""What all tests share: the CPU backend, `--runslow`, and the folder of reference data."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import tempfile
from pathlib import Path

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests compile more than they run: few optimisations are half the time, in commands under test
# too.  Modules that compare with reference data see what users run: `as_users_compile`.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
# Commands under test keep no compiled programs in the home of who runs the tests.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="flowsr_cache_")
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)


def shared_dir() -> Path | None:
    """Return the folder of golden arrays and photographs, or None if it is not there.

    It is $FLOWSR_SHARED, or the folder `shared` beside the repository.
    """
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("FLOWSR_SHARED", beside))
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data; tests that need it are skipped without it."""
    folder = shared_dir()
    if folder is None:
        pytest.skip("no reference data: set FLOWSR_SHARED, or put `shared` beside the repository")
    return folder


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
    """Let go of a module's compiled programs: thousands of them exhaust a process's mappings."""
    yield
    import jax

    jax.clear_caches()
    gc.collect()


@pytest.fixture(scope="module")
def as_users_compile():
    """Compile with all optimisations, for modules that compare with reference data."""
    import jax

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("JAX_DISABLE_MOST_OPTIMIZATIONS")
        jax.config.update("jax_disable_most_optimizations", False)
        yield
    jax.config.update("jax_disable_most_optimizations", True)


def pytest_addoption(parser):
    parser.addoption("--runlong", action="store_true", help="run the tests marked long too")
    parser.addoption("--runslow", action="store_true", help="run all tests: long and slow too")


def _left_out() -> dict[str, str]:
    """Return {MODULE::TEST: mark} of long_tail.txt."""
    marks, mark = {}, ""
    for line in Path(__file__).with_name("long_tail.txt").read_text().splitlines():
        if line in ("[long]", "[slow]"):
            mark = line.strip("[]")
        elif line and not line.startswith("#"):
            marks[line] = mark
    return marks


LONG_TAIL = _left_out()


def pytest_collection_modifyitems(config, items):
    for item in items:
        mark = LONG_TAIL.get(f"{item.path.stem}::{item.nodeid.split('::', 1)[1]}")
        if mark:
            item.add_marker(mark)
    chosen = config.getoption("markexpr")
    every = config.getoption("--runslow")
    left_out = {
        "long": not (every or config.getoption("--runlong") or "long" in chosen),
        "slow": not (every or "slow" in chosen),
    }
    for item in items:
        for mark, leave in left_out.items():
            if leave and item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=f"{mark}: run with --run{mark}"))
