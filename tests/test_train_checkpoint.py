"""Checkpoints: what is on disk after crashes, full disks and damage; other meshes."""

from __future__ import annotations

import json
import os
import resource
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from train_cases import FAMILY, TinyConfig, registered, run_values, same

from flowsr_jax.config import ConfigError
from flowsr_jax.train import checkpoint
from flowsr_jax.train.checkpoint import CheckpointError, Checkpoints, checksums, make_meta
from flowsr_jax.train.config import resolve
from flowsr_jax.train.state import create


@pytest.fixture(autouse=True, scope="module")
def family():
    with registered():
        yield


@pytest.fixture
def config(tmp_path):
    return resolve(run_values(tmp_path, ema_decay=0.5))


@pytest.fixture
def lines():
    return []


def state_of(config, seed: int):
    params = FAMILY.init(TinyConfig(), jax.random.key(seed))
    return create(params, FAMILY.init_state(None), config.train.phases[0], config.train)


def open_store(tmp_path, lines, keep=2):
    return Checkpoints(str(tmp_path / "checkpoints"), keep, lines.append)


def fill(store, config, *steps: int, phase: int = 0, **scores: float):
    for step in steps:
        meta = make_meta(config.to_dict(), phase, step, {})
        assert store.save(step, state_of(config, step), meta)
        if f"s{step}" in scores:
            store.rank(step, phase, scores[f"s{step}"])


def restored(store, config):
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state_of(config, 0)
    )
    return store.restore(lambda meta: target)


def test_state_and_meta_come_back(tmp_path, config, lines):
    for data in ({"step": 5}, None):
        with open_store(tmp_path, lines) as store:
            step = (store.steps() or [0])[-1] + 1
            store.save(step, state_of(config, step), make_meta(config.to_dict(), 1, 3, data))
        with open_store(tmp_path, lines) as store:
            state, meta = restored(store, config)
        assert same(state, state_of(config, step)) and meta["data"] == data
        assert (meta["phase"], meta["step"], meta["config"]) == (1, 3, config.to_dict())
        assert jax.tree.structure(state) == jax.tree.structure(state_of(config, 0))
    assert all("resuming" in line for line in lines)


def test_an_empty_folder_gives_none(tmp_path, config, lines):
    with open_store(tmp_path, lines) as store:
        assert restored(store, config) is None


def test_the_newest_and_the_best_are_kept(tmp_path, config, lines):
    with open_store(tmp_path, lines, keep=2) as store:
        fill(store, config, 1, 2, 3, 4, 5, s1=20.0, s2=30.0, s3=10.0)
    with open_store(tmp_path, lines, keep=2) as store:
        assert store.steps() == [2, 4, 5]
        fill(store, config, 6, s6=31.0)
        fill(store, config, 7, 8)
        store.wait()
        assert store.steps() == [6, 7, 8]
        # A lower score of a later phase is better than any of an earlier one.
        fill(store, config, 9, phase=1, s9=-7.0)
        fill(store, config, 10, phase=1, s10=-8.0)
        fill(store, config, 11, 12, phase=1)
        store.wait()
        assert store.steps() == [9, 11, 12]


def test_a_step_that_exists_is_left_alone(tmp_path, config, lines):
    with open_store(tmp_path, lines) as store:
        fill(store, config, 3)
        assert store.save(3, state_of(config, 9), make_meta(config.to_dict(), 0, 3, {}))
        store.wait()
        assert same(restored(store, config)[0], state_of(config, 3))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # from orbax
def test_a_full_disk_is_reported_and_costs_nothing(tmp_path, config, lines):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    with open_store(tmp_path, lines, keep=1) as store:
        fill(store, config, 1)
        store.wait()
        try:
            # Writes beyond this size fail with OSError, as on a full disk.
            resource.setrlimit(resource.RLIMIT_FSIZE, (256, limit[1]))
            for step in (2, 3):
                saved = store.save(
                    step, state_of(config, step), make_meta(config.to_dict(), 0, step, {})
                )
                assert not (saved and store.wait())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        assert any("2 was NOT saved" in line and "last good one is 1" in line for line in lines)
        assert store.steps() == [1]
        assert same(restored(store, config)[0], state_of(config, 1))
        fill(store, config, 4)
        store.wait()
        assert store.steps() == [4]
    with open_store(tmp_path, lines):
        assert os.listdir(tmp_path / "checkpoints") == ["4"], "remains of failed saves"


def test_half_written_and_damaged_checkpoints_are_passed_over(tmp_path, config, lines):
    folder = tmp_path / "checkpoints"
    with open_store(tmp_path, lines, keep=4) as store:
        fill(store, config, 1, 2, 3)
    # What a killed save leaves: the temporary name that orbax gives before the rename.
    shutil.copytree(folder / "3", folder / "9.orbax-checkpoint-tmp-0")
    for file in (folder / "3" / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    shutil.rmtree(folder / "2" / "meta")
    with open_store(tmp_path, lines, keep=4) as store:
        state, meta = restored(store, config)
        assert meta["step"] == 1 and same(state, state_of(config, 1))
        assert sum("cannot be read" in line for line in lines) == 2
        # Their numbers are free again, and nothing was thrown away.
        fill(store, config, 2, 3)
        store.wait()
        assert store.steps() == [1, 2, 3]
        assert same(restored(store, config)[0], state_of(config, 3))
    assert sorted(os.listdir(f"{folder}-unreadable")) == ["2", "3"]


def test_when_none_can_be_read_the_run_does_not_begin_anew(tmp_path, config, lines):
    with open_store(tmp_path, lines) as store:
        fill(store, config, 1)
    shutil.rmtree(tmp_path / "checkpoints" / "1" / "state")
    with (
        open_store(tmp_path, lines) as store,
        pytest.raises(CheckpointError, match="none of the 1"),
    ):
        restored(store, config)
    assert os.path.isdir(tmp_path / "checkpoints" / "1")


def test_errors_of_the_target_pass_through(tmp_path, config, lines):
    def refuse(meta):
        raise ConfigError("another configuration")

    with open_store(tmp_path, lines) as store:
        fill(store, config, 1)
        with pytest.raises(ConfigError, match="another configuration"):
            store.restore(refuse)


def test_the_state_may_be_donated_while_it_is_written(tmp_path, config, lines):
    bump = jax.jit(lambda t: jax.tree.map(lambda x: x + 1, t), donate_argnums=0)
    state = jax.tree.map(lambda x: jnp.zeros((512, 512)) + x.sum() * 0, state_of(config, 0))
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
    with open_store(tmp_path, lines) as store:
        store.save(1, state, make_meta(config.to_dict(), 0, 1, {}))
        for _ in range(5):
            state = bump(state)
        store.wait()
        found, _ = store.restore(lambda meta: target)
    assert all(not np.any(x) for x in jax.tree.leaves(jax.device_get(found)))


def test_a_flipped_bit_is_noticed(tmp_path, config, lines):
    """In arrays that are too large for the index, orbax has no checksum of its own."""

    def state(step: int):
        params = FAMILY.init(TinyConfig(width=64), jax.random.key(step))
        return create(params, FAMILY.init_state(None), config.train.phases[0], config.train)

    folder, states = tmp_path / "checkpoints", {step: state(step) for step in (1, 2)}
    whole = jax.device_get(states)
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), states[1]
    )
    with open_store(tmp_path, lines) as store:
        for step in (1, 2):
            store.save(step, states[step], make_meta(config.to_dict(), 0, step, {}))
    files = sorted(f for f in (folder / "2").rglob("*") if f.is_file() and f.stat().st_size)
    sizes = np.array([f.stat().st_size for f in files], float)
    rng = np.random.default_rng(0)
    noticed = []
    for number in range(45):
        # Every file once, then the larger ones more often.
        chosen = number if number < len(files) else rng.choice(len(files), p=sizes / sizes.sum())
        data = bytearray(files[chosen].read_bytes())
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        shutil.copytree(folder / "2", tmp_path / "kept")
        files[chosen].write_bytes(data)
        lines.clear()
        with open_store(tmp_path, lines) as store:
            found, meta = store.restore(lambda meta: target)
            assert same(found, whole[meta["step"]]), f"{files[chosen]}: restored silently wrong"
            noticed += [lines[0]] if meta["step"] == 1 else []
        shutil.rmtree(folder / "2", ignore_errors=True)
        shutil.move(tmp_path / "kept", folder / "2")
    assert sum("another checksum" in line for line in noticed) >= 10, noticed


def test_a_checksum_sees_every_single_change(config):
    rng = np.random.default_rng(1)
    for dtype in ("float32", "bfloat16", "int32", "uint8", "bool"):
        x = rng.integers(0, 2, (3, 5)).astype(jnp.dtype(dtype))
        first = checksums({"x": jnp.asarray(x)})
        for i in range(x.size):
            other = x.copy()
            other.flat[i] = 1 - other.flat[i]
            assert checksums({"x": jnp.asarray(other)}) != first
        assert checksums({"x": jnp.asarray(x)}) == first
    swapped = checksums({"x": jnp.array([1.0, 2.0])}), checksums({"x": jnp.array([2.0, 1.0])})
    assert swapped[0] != swapped[1]


def test_a_checkpoint_without_checksums_is_read(tmp_path, config, lines, monkeypatch):
    monkeypatch.setattr(checkpoint, "checksums", lambda state: {})
    monkeypatch.setattr(checkpoint, "_record_checksum", lambda meta: None)
    with open_store(tmp_path, lines) as store:
        fill(store, config, 1)
    monkeypatch.undo()
    for name in ("checksum", "checksums"):
        file = next((tmp_path / "checkpoints/1/meta").glob("*"))
        record = json.loads(file.read_text())
        del record[name]
        file.write_text(json.dumps(record))
    with open_store(tmp_path, lines) as store:
        assert same(restored(store, config)[0], state_of(config, 1))
