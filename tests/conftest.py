"""What all tests share: the CPU backend, `--runslow`, and the folder of reference data."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")


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


def pytest_addoption(parser):
    parser.addoption("--runslow", action="store_true", help="run the tests marked slow too")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--runslow") or "slow" in config.getoption("markexpr"):
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="slow: run with --runslow"))
