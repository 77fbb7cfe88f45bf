"""Where compiled programs are kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache
from virtual_devices import virtual_devices

from flowsr_jax.io.compilation_cache import use_compilation_cache


@pytest.fixture(autouse=True)
def restored():
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    reset_cache()  # which has opened the test's folder


def test_commands_keep_programs_in_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    use_compilation_cache()
    folder = jax.config.jax_compilation_cache_dir
    assert os.path.dirname(folder) == str(tmp_path / "flowsr_jax") and os.path.isdir(folder)
    use_compilation_cache(tmp_path / "other")  # what is set already stays
    assert jax.config.jax_compilation_cache_dir == folder


def test_a_folder_that_cannot_be_made_is_done_without(tmp_path):
    (tmp_path / "file").write_text("")
    use_compilation_cache(tmp_path / "file" / "cache")
    assert jax.config.jax_compilation_cache_dir is None


def test_a_program_is_found_again(tmp_path):
    use_compilation_cache(tmp_path)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    hits = []
    jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))
    for _ in range(2):
        jax.clear_caches()
        jax.jit(lambda x: x * 3 + 1)(jax.numpy.arange(7.0)).block_until_ready()
    assert any(name.endswith("cache_hits") for name in hits) and os.listdir(tmp_path)


SEVERAL = """
import sys
import jax
from flowsr_jax.io.compilation_cache import use_compilation_cache

use_compilation_cache(sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.jit(lambda x: x * 3 + 1)(jax.numpy.arange(7.0)).block_until_ready()
"""


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("set_before", [False, True])
def test_programs_of_several_cpu_devices_are_not_kept(tmp_path, devices, set_before):
    root = str(Path(__file__).parent.parent)
    environment = {**os.environ, **virtual_devices(devices), "PYTHONPATH": root}
    if set_before:
        environment["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path)
    command = [sys.executable, "-c", SEVERAL, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert bool(os.listdir(tmp_path)) == (devices == 1)
