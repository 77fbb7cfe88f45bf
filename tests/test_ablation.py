"""Ablations: the studies resolve, and a tiny one trains, is skipped, refused and reported."""

from __future__ import annotations

import csv
import importlib
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import flowsr_jax
from flowsr_jax.ablation import STUDIES, Study, run_study
from flowsr_jax.ablation.run import SHARED
from flowsr_jax.config import ConfigError, from_dict
from flowsr_jax.models import get_family
from flowsr_jax.models.srflow.config import SRFlowConfig
from flowsr_jax.train.config import resolve
from flowsr_jax.train.overrides import override, plain

ROOT = Path(__file__).resolve().parents[1]
LR = "train.phases.flow.groups.flow.lr"
TINY = Study(
    "tiny",
    "nice_digits",
    8,
    {"train.max_skipped": 2, "train.ema_decay": 0.0, "train.compilation_cache": None},
    {"plain": {}, "frozen": {LR: 0.0}, "broken": {LR: 1e30}},
    "learning helps",
)


def values_of(name):
    return importlib.import_module(f"configs.{name}").get_config()


def two_phases():
    """nice_digits, tiny, with a first phase that all variants share."""
    values = plain(importlib.import_module("configs.nice_digits").get_config("smoke"))
    phase = values["train"]["phases"][0]
    values["train"].update(mesh_data=1, phases=[{**phase, "name": "first", "steps": 2}, phase])
    return values


@pytest.mark.parametrize("study", STUDIES.values(), ids=lambda study: study.name)
def test_every_variant_of_every_study_can_be_built(study):
    sizes = {}
    for name, changes in study.variants.items():
        values = plain(values_of(study.config))
        for path, value in {**study.small, **changes}.items():
            override(values, path, value)
        config = resolve(values).model
        shapes = jax.eval_shape(
            lambda key, c=config: get_family(c.family).init(c, key), jax.random.key(0)
        )
        sizes[name] = sum(leaf.size for leaf in jax.tree.leaves(shapes["flow"]))
    assert len(study.variants) >= 2 and sizes
    if study.name != "glow_permutation":
        assert len(set(sizes.values())) == len(sizes), sizes


def test_a_study_trains_once_and_reports_what_it_found(tmp_path):
    lines = []
    results, diverged = run_study(TINY, two_phases(), tmp_path, seeds=2, message=lines.append)
    assert diverged == ["broken-0", "broken-1"]
    assert [r.variant for r in results] == ["plain", "frozen"]
    assert lines[0] == f"[1/7] {SHARED}: 2 steps" and "[7/7] broken-1: 8 steps" in lines

    learned, frozen = results
    assert learned.final < frozen.final and learned.parameters == frozen.parameters
    with open(tmp_path / "base-1" / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    measured = {int(r["step"]): float(b) for r in rows if (b := r["valid/bits_per_dim"])}
    assert learned.curves[1] == measured and list(measured) == list(range(1, 9))
    # Without learning, what the shared phase delivered is what is measured at the end.
    shared, kept = (flowsr_jax.load(tmp_path / name) for name in (SHARED, "frozen-0"))
    for a, b in zip(jax.tree.leaves(shared), jax.tree.leaves(kept), strict=True):
        np.testing.assert_array_equal(a, b)
    count = sum(leaf.size for leaf in jax.tree.leaves(shared["flow"]))
    assert learned.parameters == count and learned.seconds > 0

    table = (tmp_path / "tiny.md").read_text()
    low, high = sorted(learned.finals)
    assert f"| plain | {learned.final:.4f} | {low:.4f} to {high:.4f} | {count:,} |" in table
    assert "Found after 8 steps: plain < frozen." in table
    assert "Paper: learning helps." in table and "Diverged: broken-0, broken-1." in table
    with open(tmp_path / "tiny.csv") as file:
        points = list(csv.DictReader(file))
    assert len(points) == 2 * 2 * 8 and points[0]["variant"] == "plain"
    assert (tmp_path / "tiny.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"

    # Again: nothing is trained, and the result is the same.
    before = (tmp_path / "base-0" / "metrics.csv").stat().st_mtime_ns
    lines.clear()
    some = {"variants": ("plain", "frozen"), "seeds": 2, "message": lines.append}
    again, _ = run_study(TINY, two_phases(), tmp_path, **some)
    assert again == results and sum("finished already" in line for line in lines) == 5
    assert (tmp_path / "base-0" / "metrics.csv").stat().st_mtime_ns == before

    with pytest.raises(ConfigError, match="base-0 was made .*steps: 8 -> 9"):
        run_study(TINY, two_phases(), tmp_path, steps=9)
    with pytest.raises(ConfigError, match=f"{SHARED} was made .*model.hidden: .* -> 7"):
        run_study(TINY, two_phases(), tmp_path, overrides={"model.hidden": 7})


def test_mistakes_are_named_before_anything_is_made(tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "launch"))
    main = importlib.import_module("ablate").main
    monkeypatch.setattr(sys, "path", list(sys.path))
    out = tmp_path / "out"
    for arguments, message in (
        (["--study=glow"], "study = 'glow' is not one of 'glow_permutation'"),
        (["--study=srflow_injector", "--variants=none"], "variants = 'none' is not one of"),
        (["--study=srflow_injector", "--seeds=0"], "seeds = 0 must be at least 1"),
        (["--study=srflow_injector", "--steps=0"], "steps = 0 must be at least 1"),
        (["--study=srflow_steps", "--config.model.hiden=8"], "did you mean 'hidden'"),
    ):
        assert main([*arguments, "-o", str(out)]) == 2
        assert message in capsys.readouterr().err
    assert not out.exists()


def test_srflow_without_injectors():
    encoder = {"scale": 4, "nf": 4, "gc": 2, "nb": 1}
    values = {"steps": (1, 1), "hidden": 4, "stacked_blocks": (), "injector": False}
    config = from_dict(SRFlowConfig, {**values, "encoder": encoder})
    family = get_family("srflow")
    params = family.init(config, jax.random.key(0))
    steps = params["flow"]["multiscale"]["level1"]["flow"]["steps"]
    assert set(steps) == {"actnorm", "conv1x1", "coupling"}
    lr = jax.random.uniform(jax.random.key(1), (1, 2, 2, 3))
    hr = jax.random.uniform(jax.random.key(2), (1, 8, 8, 3))
    params = family.init_from_data(params, {"hr": hr, "lr": lr}, jax.random.key(3))
    out = params["flow"]["multiscale"]["level2"]["flow"]["steps"]["coupling"]["net"]["out"]
    out["w"] = 0.1 * jax.random.normal(jax.random.key(4), out["w"].shape)
    latents, log_prob = flowsr_jax.encode(params, hr, lr)
    np.testing.assert_allclose(flowsr_jax.decode(params, latents, lr), hr, atol=1e-4)
    other = flowsr_jax.encode(params, hr, 1 - lr)[1]
    print(float(other[0] - log_prob[0]))
    assert abs(float(other[0] - log_prob[0])) > 1e-3, "the LR image has no influence"
    with pytest.raises(ConfigError, match="no official form, because of injector"):
        flowsr_jax.to_torch(params, "nowhere.pth")


def test_an_unfinished_run_goes_on(tmp_path):
    study = Study("tiny", "nice_digits", 4, TINY.small, {"plain": {}}, "nothing")
    straight, _ = run_study(study, two_phases(), tmp_path / "a")
    whole, stopped = tmp_path / "a" / "base-0", tmp_path / "b" / "base-0"
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / SHARED).rename(tmp_path / "b" / SHARED)
    whole.rename(stopped)
    # As if it had been stopped after the checkpoint of step 2.
    for name in ("checkpoints/4", "model"):
        (stopped / name).rename(tmp_path / name.replace("/", "_"))
    result = stopped / "result.json"
    result.write_text(json.dumps({**json.loads(result.read_text()), "step": 3}))
    resumed, _ = run_study(study, two_phases(), tmp_path / "b")
    assert resumed[0].curves == straight[0].curves
