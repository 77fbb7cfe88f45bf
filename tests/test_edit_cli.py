"""launch/edit.py: files in, files out, and one clear message for every mistake."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import flowsr_jax
from flowsr_jax.data import EmbeddedSource
from flowsr_jax.files.images import read_rgb, write_png
from flowsr_jax.metrics import psnr

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def main():
    spec = importlib.util.spec_from_file_location("launch_edit", ROOT / "launch" / "edit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder of HR images 64x48 (one of them edited), their LR, masks and what misfits."""
    monkeypatch.chdir(tmp_path)
    photo = EmbeddedSource("valid")[0]["hr"]
    hr, other = photo[100:148, 220:284], photo[40:88, 300:364]
    edited = hr.copy()
    edited[16:32, 24:40] = other[:16, :16]
    mask = np.zeros(hr.shape, np.uint8)
    mask[16:32, 24:40] = 255
    lr = flowsr_jax.imresize(hr, 1 / 4)
    for name, image in {
        "hr": hr,
        "other": other,
        "edited": edited,
        "lr": lr,
        "mask": mask,
        "empty": np.zeros_like(mask),
        "smallmask": mask[:12, :16],
        "odd": hr[:45, :61],
        "oddmask": mask[:45, :61],
        "inverse": 255 - lr,
    }.items():
        write_png(f"{name}.png", image)
    return tmp_path


def edit(main, line):
    command, *flags = line.split()
    return main([command, "-n", "demo", "-o", "out", *flags])


@pytest.mark.parametrize(
    "line, outputs",
    [
        ("resample --lr lr.png --mask mask.png", ["lr_resample", "lr_resample_before"]),
        (
            "resample --hr hr.png --mask mask.png --num-samples 2",
            ["hr_resample_0", "hr_resample_1"],
        ),
        ("normalize --hr hr.png --mode spatial --temperature 0.5", ["hr_normalize"]),
        ("normalize --hr hr.png --mask mask.png --mode local", ["hr_normalize"]),
        ("style --hr other.png --lr lr.png", ["other_style"]),
        ("content --hr edited.png --lr lr.png --mask mask.png", ["edited_content"]),
        ("content --hr edited.png --original hr.png", ["edited_content"]),
        ("restore --hr hr.png", ["hr_restore"]),
        ("interpolate --lr lr.png --steps 3", [f"lr_interpolate_{i}" for i in range(3)]),
        (
            "interpolate --pair hr.png other.png --steps 2",
            ["hr_interpolate_0", "hr_interpolate_1"],
        ),
    ],
)
def test_commands(main, files, capsys, line, outputs):
    assert edit(main, line) == 0
    sheet = outputs[0].removesuffix("_0") + "_sheet"
    assert {p.stem for p in Path("out").iterdir()} == {*outputs, sheet}
    assert all(read_rgb(f"out/{name}.png").shape == (48, 64, 3) for name in outputs)
    assert read_rgb(f"out/{sheet}.png").shape[1] > 2 * 64
    assert capsys.readouterr().out.endswith("1 written, 0 skipped, 0 failed\n")


def test_the_files_hold_the_edit(main, files):
    assert edit(main, "interpolate --pair hr.png other.png --steps 2") == 0
    for i, name in enumerate(("hr", "other")):  # end points, to the 8 bits
        np.testing.assert_array_equal(
            read_rgb(f"out/hr_interpolate_{i}.png"), read_rgb(f"{name}.png")
        )
    assert edit(main, "resample --hr hr.png --mask mask.png --seed 1") == 0
    first = read_rgb("out/hr_resample.png")
    marked = read_rgb("mask.png").any(axis=2)
    moved = np.abs(first.astype(int) - read_rgb("hr.png"))
    assert moved[marked].mean() > 1 and moved[:, 40 + 12 :].max() <= 1  # 12 pixels from the mask
    assert edit(main, "resample --hr hr.png --mask mask.png --seed 1 --overwrite") == 0
    np.testing.assert_array_equal(read_rgb("out/hr_resample.png"), first)
    assert edit(main, "resample --hr hr.png --mask mask.png --seed 2 --overwrite") == 0
    assert (read_rgb("out/hr_resample.png") != first).any()


def test_any_size(main, files):
    assert edit(main, "resample --hr odd.png --mask oddmask.png") == 0
    result, before = read_rgb("out/odd_resample.png"), read_rgb("odd.png")
    assert result.shape == before.shape and psnr(result, before) > 30


def test_existing_results_are_kept(main, files, capsys):
    assert edit(main, "restore --hr hr.png") == 0
    stamp = Path("out/hr_restore.png").stat().st_mtime_ns
    assert edit(main, "restore --hr hr.png") == 0
    assert "1 skipped" in capsys.readouterr().out
    assert Path("out/hr_restore.png").stat().st_mtime_ns == stamp
    assert edit(main, "restore --hr hr.png --overwrite") == 0
    assert Path("out/hr_restore.png").stat().st_mtime_ns != stamp


def test_a_stranger_lr_is_warned_of(main, files, capsys):
    assert edit(main, "normalize --hr hr.png --lr inverse.png") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "may not belong together: the LR-PSNR is " in line and "inverse.png" in line
    assert edit(main, "content --hr edited.png --lr lr.png --mask mask.png") == 0
    assert not capsys.readouterr().err  # what was edited need not agree


@pytest.mark.parametrize(
    "line, text",
    [
        ("resample --hr hr.png --mask smallmask.png", "the mask must be of HR size, 64x48"),
        ("resample --hr hr.png --mask empty.png", "marks nothing"),
        ("resample --mask mask.png", "needs --lr, or --hr"),
        ("resample --hr hr.png --mask mask.png --num-samples 0", "num_samples = 0"),
        ("resample --hr hr.png --mask nosuch.png", "nosuch.png: no such file"),
        ("normalize --hr odd.png --lr lr.png", "the HR must be 4 times the LR, 64x48"),
        ("style --hr odd.png --lr lr.png", "style needs an HR of 64x48"),
        ("content --hr edited.png --mask mask.png", "content needs --lr and --mask, or --original"),
        ("content --hr edited.png --original odd.png", "must have the same size"),
        ("content --hr hr.png --original hr.png", "nothing was edited"),
        ("restore --hr hr.png --temperature -1", "temperature must be finite and >= 0"),
        ("restore --hr hr.png --seed -1", "seed = -1"),
        ("restore --hr lr.png -o lr.png", "cannot be written to"),
        ("interpolate --steps 3", "needs --pair or --lr"),
        ("interpolate --lr lr.png --steps 1", "steps = 1"),
        ("interpolate --pair hr.png odd.png", "must have the same size"),
    ],
)
def test_mistakes(main, files, capsys, line, text):
    assert edit(main, line) == 2
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert len(lines) == 1 and text in lines[0]
    assert not Path("out").exists() or not list(Path("out").iterdir())


@pytest.mark.parametrize(
    "line", ["nosuch --hr hr.png", "restore", "normalize --hr hr.png --mode x"]
)
def test_mistakes_in_the_flags(main, files, capsys, line):
    with pytest.raises(SystemExit) as caught:
        edit(main, line)
    assert caught.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()[-1]) < 200
