"""Cascades, the search for a schedule, and their commands."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flowsr_jax
from flowsr_jax.cascade import sample_cascade
from flowsr_jax.config import ConfigError
from flowsr_jax.diffusion.schedules import ScheduleConfig, gammas
from flowsr_jax.files.images import read_rgb
from flowsr_jax.models.sr3.config import SR3Config
from flowsr_jax.models.sr3.network import init
from flowsr_jax.nets.unet import UNetConfig
from flowsr_jax.schedule_search import candidates, patch_fid, search_schedule, with_schedule

ROOT = Path(__file__).resolve().parents[1]
KEY = jax.random.key(0)
SMALL = {
    "channels": 4,
    "multipliers": (1,),
    "res_blocks": 1,
    "attn_res": (),
    "mid_attention": False,
    "norm_groups": 2,
    "dropout": 0.0,
}


@pytest.fixture(scope="module")
def stages():
    schedule = ScheduleConfig(steps=8, end=0.9)
    base = UNetConfig(**SMALL, cond_channels=0, image_size=8)
    return (
        init(SR3Config(1, base, classes=2, schedule=schedule), KEY),
        init(SR3Config(2, UNetConfig(**SMALL, image_size=16), schedule=schedule), KEY),
    )


def command(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "launch" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_every_stage_enlarges_the_one_before(stages):
    seen = {}
    options = [{"steps": 3, "label": 1}, {"steps": 2, "sampler": "dpmpp2m"}]
    out = sample_cascade(
        stages, KEY, num_samples=3, options=options, show=lambda i, x: seen.update({i: x})
    )
    assert out.shape == (3, 16, 16, 3) and seen[0].shape == (3, 8, 8, 3)
    levels = jnp.round(255 * jnp.clip(seen[0], 0, 1)) / 255
    again = flowsr_jax.sample(stages[1], levels, jax.random.fold_in(KEY, 1), **options[1])
    np.testing.assert_allclose(out, again, atol=1e-5)
    alone = sample_cascade(stages[1:], KEY, lr=levels, options=options[1:])
    assert alone.shape == out.shape
    with pytest.raises(ValueError, match="2 stages with options for 1"):
        sample_cascade(stages, KEY, options=options[:1])
    with pytest.raises(ValueError, match="lr must be"):
        sample_cascade(stages[::-1], KEY)


def test_cascade_command(stages, tmp_path, capsys):
    paths = [str(tmp_path / f"stage{i}") for i in (0, 1)]
    for params, path in zip(stages, paths, strict=True):
        flowsr_jax.save(params, path)
    out = tmp_path / "out"
    run = ["-n", *paths, "-o", str(out), "--num-samples", "2", "--batch", "2", "--all"]
    run += ["--set", "0.steps=2", "--set", "1.steps=2", "--label", "1"]
    assert command("cascade")(run) == 0
    names = sorted(p.name for p in out.glob("*.png"))
    assert names == ["0000.png", "0000_stage0.png", "0001.png", "0001_stage0.png"]
    assert read_rgb(out / "0001.png").shape == (16, 16, 3)
    assert "stage 2 of 2: 16x16" in capsys.readouterr().out
    assert command("cascade")([*run, "--set", "2.steps=2"]) == 2
    assert "0 to 1" in capsys.readouterr().err


def test_candidates_end_in_noise():
    found = candidates(100)
    assert len(found) > 8 and all(gammas(s)[-1] < 0.01 for s in found)
    assert ScheduleConfig("linear", 100, 1e-6, 0.2) in candidates(100, (1e-6,), (1e-4, 0.2))
    with pytest.raises(ConfigError, match="take ends around 0.188"):
        candidates(100, (1e-6,), (1e-3,))


def test_patch_fid_sees_blur_and_noise():
    rng = np.random.default_rng(0)
    truth = [rng.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(2)]
    smooth = [flowsr_jax.imresize(flowsr_jax.imresize(x, 0.5), 2) for x in truth]
    assert abs(patch_fid(truth, truth)) < 1e-6
    other = [rng.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(2)]
    assert patch_fid(other, truth) < 0.2 * patch_fid(smooth, truth)


def test_search(stages):
    params = stages[1]
    rng = np.random.default_rng(0)
    hr = rng.integers(0, 256, (2, 16, 16, 3), np.uint8)
    pairs = [{"hr": x, "lr": flowsr_jax.imresize(x, 0.5)} for x in hr]
    schedules = candidates(5, (1e-4, 1e-3))
    seen = []
    show = lambda number, result: seen.append(result)  # noqa: E731
    found = search_schedule(params, pairs, schedules, KEY, show=show)
    assert [r.schedule for r in seen] == schedules
    scores = [r.scores["patch_fid"] for r in found]
    assert scores == sorted(scores) and scores[0] < scores[-1]
    best = with_schedule(params, found[0].schedule)
    lr = jnp.asarray(np.stack([p["lr"] for p in pairs]), jnp.float32) / 255
    key = jax.random.fold_in(KEY, 0)
    images = np.rint(255 * np.clip(flowsr_jax.sample(best, lr, key), 0, 1)).astype(np.uint8)
    np.testing.assert_allclose(patch_fid(list(images), list(hr)), scores[0], rtol=1e-3)
    with pytest.raises(ValueError, match="one size"):
        search_schedule(params, [*pairs, {"lr": hr[0], "hr": hr[0]}], schedules, KEY)


def test_search_command(stages, tmp_path, capsys):
    flowsr_jax.save(stages[1], tmp_path / "model")
    flags = ["-i", "embedded", "--crop", "16", "--limit", "1", "--steps", "4"]
    run = ["-n", str(tmp_path / "model"), "-o", str(tmp_path / "out"), *flags]
    run += ["--starts", "1e-4,1e-3"]
    assert command("search_schedule")([*run, "--save", str(tmp_path / "best")]) == 0
    rows = (tmp_path / "out" / "search.csv").read_text().splitlines()
    assert rows[0] == "steps,start,end,patch_fid,psnr" and len(rows) > 2
    sampler = flowsr_jax.load(tmp_path / "best").config.sampler
    assert sampler.schedule.steps == 4 and "best: " in capsys.readouterr().out
    assert command("search_schedule")([*run, "--ends", "1e-3"]) == 2
    assert "take ends around" in capsys.readouterr().err
