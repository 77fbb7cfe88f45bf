"""The configuration: one line names what is wrong, and what may change on resuming."""

from __future__ import annotations

import copy
import json

import pytest
from train_cases import TinyConfig, registered, run_values

from flowsr_jax.config import ConfigError
from flowsr_jax.train.config import resolve, steps_of
from flowsr_jax.train.overrides import split_overrides
from flowsr_jax.train.resume import check_resumable, differences


@pytest.fixture(autouse=True, scope="module")
def family():
    with registered():
        yield


@pytest.fixture
def values(tmp_path):
    return run_values(tmp_path)


def test_it_is_frozen_hashable_and_survives_json(values):
    config = resolve(values)
    assert config.model == TinyConfig() and config.train.phases[0].groups[1].name == "b"
    assert resolve(json.loads(json.dumps(config.to_dict()))) == config
    hash(config)
    ml_collections = pytest.importorskip("ml_collections")
    assert resolve(ml_collections.ConfigDict(values)) == config


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("train.batchsize", 4, r"config\.train\.batchsize is not a field.*mean 'batch_size'"),
        ("trian", {}, r"config\.trian is not a field.*mean 'train'"),
        ("model.widht", 3, r"config\.model\.widht .*mean 'width'"),
        ("model.family", "tinny", r"unknown model family 'tinny'; did you mean 'tiny'"),
        ("train.batch_size", 2.5, r"config\.train\.batch_size must be int, got 2\.5"),
        ("train.batch_size", 0, r"batch_size = 0 must be at least 1"),
        ("train.accumulate", 3, r"accumulate = 3 must be a divisor of batch_size = 8"),
        ("train.ema_decay", 1.0, r"ema_decay = 1\.0 must be in \[0, 1\)"),
        ("train.best", "pnsr", r"best = 'pnsr' is not one of.*mean 'psnr'"),
        ("train.phases.fit.loss", "mze", r"phases\[0\]: loss = 'mze' is not one of.*mean 'mse'"),
        ("train.phases[0].steps", 0, r"steps = 0 must be at least 1"),
        ("train.phases[0].groups.a.optimizer", "adm", r"groups\[0\].*'adm'.*mean 'adam'"),
        ("train.phases[0].groups.a.milestones", [1.5], r"milestones = 1\.5 must be steps"),
        ("train.phases[0].groups.a.learning_rate", 1.0, r"learning_rate is not a field"),
        ("train.phases[0].groups", [], r"groups = \(\) must be at least one group"),
        ("train.phases[3].steps", 1, r"config\.train\.phases has no entry '3'.*0: fit"),
        ("train.phases.fti.steps", 1, r"no entry 'fti'; did you mean 'fit'"),
        ("seed", 2**32, r"seed = 4294967296 must be at most 4294967295"),
        ("seed.more", 1, r"config\.seed is 3: it has no field 'more'"),
    ],
)
def test_mistakes_are_named(values, path, value, message):
    with pytest.raises(ConfigError, match=message):
        resolve(values, {path: value})


def test_a_phase_must_train_something_from_its_beginning(values):
    late = {"train.phases[0].groups.a.from_step": 2, "train.phases[0].groups.b.from_step": 0.5}
    with pytest.raises(ConfigError, match="such that one trains from step 0"):
        resolve(values, late)
    assert steps_of(0.5, 8) == 4 and steps_of(2, 8) == 2


def test_overrides_come_from_the_command_line(values):
    argv = ["x.py", "--config=a.py:tiny", "--config.train.batch_size=4", "--workdir=w"]
    argv += ["--config.train.phases.fit.groups[1].lr=1e-4", "--config.train.clip_norm=None"]
    argv += ["--config.train.tensorboard=False", "--config.name=long one"]
    rest, overrides = split_overrides(argv)
    assert rest == ["x.py", "--config=a.py:tiny", "--workdir=w"]
    config = resolve(values, overrides)
    assert config.train.batch_size == 4 and config.train.phases[0].groups[1].lr == 1e-4
    assert config.train.clip_norm is None and config.train.tensorboard is False
    assert config.name == "long one"


def test_a_resumed_run_may_change_harmless_fields_only(values):
    saved = resolve(values).to_dict()
    second = {**values["train"]["phases"][0], "name": "more"}

    def check(phase, step, **overrides):
        changed = copy.deepcopy(values)
        return check_resumable(saved, resolve(changed, overrides), phase, step)

    assert check(0, 4) == []
    assert check(0, 4, **{"train.log_every": 1, "name": "x"}) == [
        "name: 'tiny' -> 'x'",
        "train.log_every: 2 -> 1",
    ]
    assert check(0, 4, **{"train.phases[0].steps": 20, "data.train_dir": "/elsewhere"})
    assert check(0, 4, **{"train.phases": [values["train"]["phases"][0], second]})
    for overrides in (
        {"train.phases[0].steps": 3},
        {"train.phases[0].groups.a.lr": 1.0},
        {"train.phases[0].loss_options": {"noise": 1.0}},
        {"train.batch_size": 4},
        {"train.ema_decay": 0.5},
        {"model.scale": 4},
        {"data.patch_size": 16},
        {"seed": 4},
    ):
        path = next(iter(overrides)).replace("groups.a", "groups[0]")
        with pytest.raises(ConfigError, match=path.replace("[", r"\[") + ".*: .* -> "):
            check(0, 4, **overrides)
    two = {"model.scale": 4, "seed": 4}
    with pytest.raises(ConfigError, match=r"model\.scale: 2 -> 4; seed: 3 -> 4"):
        check(0, 4, **two)
    with pytest.raises(ConfigError, match="phases"):
        check(1, 0, **{"train.phases[0].steps": 20})


def test_a_longer_phase_says_what_it_does_to_rates_and_groups(values):
    groups = "train.phases[0].groups"
    late = {f"{groups}.b.from_step": 0.5, f"{groups}.a.schedule": "cosine"}
    saved = resolve(values, late).to_dict()
    longer = resolve(values, {**late, "train.phases[0].steps": 16})
    lines = check_resumable(saved, longer, 0, 5)
    assert lines[0] == "train.phases[0].steps: 8 -> 16"
    assert lines[1] == "the rate of 'a' goes on at 0.00691 instead of 0.00146"
    assert lines[2] == "the group 'b', under training, rests until step 8" and len(lines) == 3
    assert len(check_resumable(saved, longer, 0, 0)) == 2, "nothing but the rate"


def test_a_checkpoint_from_before_a_field_was_there_resumes(values):
    config = resolve(values)
    saved = config.to_dict()
    del saved["data"]["degradation"], saved["data"]["color_permutations"]
    assert check_resumable(saved, config, 0, 4) == []
    with pytest.raises(ConfigError, match=r"data\.color_permutations: False -> True"):
        check_resumable(saved, resolve(values, {"data.color_permutations": True}), 0, 4)


def test_differences_walk_lists_of_records():
    old = {"a": [{"x": 1}, {"x": 2}], "b": [1, 2]}
    new = {"a": [{"x": 1}, {"x": 3}, {"x": 4}], "b": [1, 3], "c": None}
    assert list(differences(old, new)) == [
        ("a[1].x", 2, 3),
        ("a[2]", None, {"x": 4}),
        ("b", [1, 2], [1, 3]),
    ]
