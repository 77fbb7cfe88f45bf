"""Files in, files out: every size and kind, faults beside good files, exit statuses."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from fake_family import FAMILY, FakeConfig
from PIL import Image

import flowsr_jax
from flowsr_jax import upscale
from flowsr_jax.io.images import read_rgb, write_png
from flowsr_jax.models import base
from flowsr_jax.upscale import Summary, UsageError, upscale_files, upscale_image

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    monkeypatch.setitem(base._REGISTRY, "fake", lambda: FAMILY)


@pytest.fixture
def params():
    return FAMILY.init(FakeConfig(), jax.random.key(0))


@pytest.fixture
def main():
    spec = importlib.util.spec_from_file_location("launch_sample", ROOT / "launch" / "sample.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def _rgb(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _twice(rgb):
    return rgb.repeat(2, axis=0).repeat(2, axis=1)


def _folder(tmp_path):
    """Good files of awkward kinds and sizes, and what each should become."""
    folder = tmp_path / "in"
    (folder / "sub" / "deep").mkdir(parents=True)
    wanted = {"odd": _rgb(5, 37), "one": _rgb(1, 1), "sub/line": _rgb(2, 33)}
    for name, rgb in wanted.items():
        write_png(folder / f"{name}.png", rgb)
    grey = _rgb(8, 8)[..., 0]
    Image.fromarray(grey).save(folder / "sub" / "deep" / "grey.png")
    Image.new("RGB", (4, 4), (9, 8, 7)).quantize(2).save(folder / "palette.png")
    clear = np.dstack([_rgb(4, 4), np.zeros((4, 4), np.uint8)])
    Image.fromarray(clear).save(folder / "clear.png")
    wanted |= {
        "sub/deep/grey": np.repeat(grey[..., None], 3, 2),
        "palette": np.full((4, 4, 3), [9, 8, 7]),
        "clear": np.full((4, 4, 3), 255),
    }
    return folder, wanted


def test_folder_of_all_kinds(tmp_path, params, capsys):
    folder, wanted = _folder(tmp_path)
    out = tmp_path / "out"
    assert upscale_files(params, folder, out) == Summary(written=6, skipped=0, failed=0)
    found = {p.relative_to(out).with_suffix("").as_posix() for p in out.rglob("*.png")}
    assert found == set(wanted)
    for name, rgb in wanted.items():
        np.testing.assert_array_equal(read_rgb(out / f"{name}.png"), _twice(rgb), err_msg=name)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7 and lines[0].startswith("[1/6] clear.png: written: ")
    assert lines[-1].startswith("6 images, ") and lines[-1].endswith(" images/s written")


def test_faulty_files_do_not_stop_the_others(tmp_path, params, capsys):
    folder, wanted = _folder(tmp_path)
    (folder / "bad.png").write_text("no image")
    data = (folder / "odd.png").read_bytes()
    (folder / "half.png").write_bytes(data[: len(data) // 2])
    (folder / "new\nline.png").write_bytes(b"")
    summary = upscale_files(params, folder, tmp_path / "out")
    assert summary == Summary(written=6, skipped=0, failed=3)
    assert len(list((tmp_path / "out").rglob("*"))) == len(wanted) + 2  # and two folders
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3
    for name in ("bad.png", "half.png", r"new\nline.png"):
        assert sum(f" {name}: failed: " in line for line in errors) == 1


def test_existing_outputs_are_skipped_unless_overwrite(tmp_path, params):
    folder, _ = _folder(tmp_path)
    out = tmp_path / "out"
    upscale_files(params, folder, out)
    write_png(out / "one.png", _rgb(3, 3))
    (out / "odd.png").unlink()
    assert upscale_files(params, folder, out) == Summary(written=1, skipped=5, failed=0)
    assert read_rgb(out / "one.png").shape == (3, 3, 3)
    assert upscale_files(params, folder, out, overwrite=True).written == 6
    assert read_rgb(out / "one.png").shape == (2, 2, 3)


def test_samples_depend_on_seed_and_name_only(tmp_path, params):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b"):
        write_png(folder / f"{name}.png", np.full((6, 6, 3), 128, np.uint8))

    def run(source, out, **options):
        options = {"temperature": 0.2, "num_samples": 2} | options
        upscale_files(params, source, tmp_path / out, **options)
        return {p.name: read_rgb(p) for p in (tmp_path / out).iterdir()}

    both = run(folder, "both")
    assert set(both) == {"a_0.png", "a_1.png", "b_0.png", "b_1.png"}
    alone = run(folder / "b.png", "alone")
    np.testing.assert_array_equal(alone["b_1.png"], both["b_1.png"])
    pictures = [both["a_0.png"], both["a_1.png"], both["b_0.png"]]
    pictures.append(run(folder, "seed", seed=2**32 - 1)["a_0.png"])
    for i, x in enumerate(pictures):
        assert all((x != y).any() for y in pictures[:i])
    assert set(run(folder, "single", num_samples=1)) == {"a.png", "b.png"}


def test_few_shapes_are_compiled(params, monkeypatch):
    shapes = []

    def record(params, lr, key, **options):
        shapes.append(lr.shape)
        assert lr.dtype == np.float32 and lr.min() >= 0 and lr.max() <= 1
        return FAMILY.sample(params, lr, key, **options)

    monkeypatch.setattr(upscale.api, "sample", record)
    for height in range(1, 65, 3):
        upscale_image(params, _rgb(height, 20), jax.random.key(0))
    assert set(shapes) == {(1, 32, 32, 3), (1, 64, 32, 3)}


def test_padding_reflects_at_bottom_and_right(params, monkeypatch):
    seen = []
    monkeypatch.setattr(
        upscale.api, "sample", lambda p, lr, key, **o: seen.append(lr) or FAMILY.sample(p, lr, key)
    )
    rgb = _rgb(30, 31)
    upscale_image(params, rgb, jax.random.key(0))
    (lr,) = seen
    wanted = np.pad(rgb, ((0, 2), (0, 1), (0, 0)), mode="reflect")
    np.testing.assert_allclose(lr[0] * 255, wanted, atol=1e-4)


def test_too_large_is_refused_and_many_samples_are_drawn_one_by_one(params, monkeypatch):
    with pytest.raises(upscale.SampleError, match="65x10 pixels are too large .limit 0.002048 meg"):
        monkeypatch.setattr(upscale, "MAX_LR_PIXELS", 64 * 32)
        upscale_image(params, _rgb(10, 65), jax.random.key(0))
    monkeypatch.undo()
    monkeypatch.setitem(base._REGISTRY, "fake", lambda: FAMILY)
    monkeypatch.setattr(upscale, "MAX_LR_PIXELS", 2 * 32 * 32)
    rgb = np.full((8, 8, 3), 128, np.uint8)
    out = upscale_image(params, rgb, jax.random.key(0), num_samples=3, temperature=0.1)
    assert out.shape == (3, 16, 16, 3)
    assert (out[0] != out[1]).any() and (out[1] != out[2]).any()


def test_results_are_clipped_and_rounded(params):
    bright = params.replace(out=params["out"] | {"gain": np.float32([3, 1, 0.501])})
    out = upscale_image(bright, np.full((1, 1, 3), 101, np.uint8), jax.random.key(0))
    np.testing.assert_array_equal(out[0, 0, 0], [255, 101, 51])


def _bad_samples(line):
    return int(re.search(r"in (\d) of 6 samples", line).group(1))


def test_non_finite_samples_are_drawn_again(tmp_path, capsys):
    key = jax.random.key(3)
    said = []
    sometimes = FAMILY.init(FakeConfig(broken=0.4), key)
    out = upscale_image(sometimes, _rgb(4, 4), key, num_samples=6, temperature=0.1, say=said.append)
    assert out.shape == (6, 8, 8, 3)
    bad = _bad_samples(said[0])
    assert said[0] == (f"{bad} non-finite pixels in {bad} of 6 samples; drawing again (1 of 3)")
    always = FAMILY.init(FakeConfig(broken=1.0), key)
    write_png(tmp_path / "a.png", _rgb(4, 4))
    assert upscale_files(always, tmp_path / "a.png", tmp_path / "out").failed == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 4 and "after 3 further draws" in errors[-1]
    assert not list((tmp_path / "out").iterdir())


def test_redrawing_keeps_the_good_samples():
    """A sample that was finite at once is the same with and without broken neighbours."""
    key = jax.random.key(3)
    options = {"num_samples": 6, "temperature": 0.1}
    whole = upscale_image(FAMILY.init(FakeConfig(), key), _rgb(4, 4), key, **options)
    said = []
    params = FAMILY.init(FakeConfig(broken=0.4), key)
    redrawn = upscale_image(params, _rgb(4, 4), key, **options, say=said.append)
    kept = sum((a == b).all() for a, b in zip(whole, redrawn, strict=True))
    assert 0 < kept == 6 - _bad_samples(said[0])


def test_unexpected_errors_fail_the_image_only(tmp_path, params, monkeypatch, capsys):
    def fail(*args, **kwargs):
        raise RuntimeError("RESOURCE_EXHAUSTED: out of\nmemory")

    monkeypatch.setattr(upscale.api, "sample", fail)
    write_png(tmp_path / "a.png", _rgb(4, 4))
    assert upscale_files(params, tmp_path / "a.png", tmp_path / "out").failed == 1
    assert r"RuntimeError: RESOURCE_EXHAUSTED: out of\nmemory" in capsys.readouterr().err


def _two_suffixes(folder):
    write_png(folder / "a.png", _rgb(2, 2))
    Image.fromarray(_rgb(2, 2)).save(folder / "a.jpg")
    return folder, folder.parent / "out", {}


def _samples_collide(folder):
    write_png(folder / "a.png", _rgb(2, 2))
    Image.fromarray(_rgb(2, 2)).save(folder / "a.webp")
    return folder, folder.parent / "out", {"num_samples": 2}


def _onto_itself(folder):
    write_png(folder / "a.png", _rgb(2, 2))
    return folder / "a.png", folder, {"overwrite": True}


def _into_input(folder):
    Image.fromarray(_rgb(2, 2)).save(folder / "a.jpg")
    return folder, folder, {}


def _no_images(folder):
    (folder / "a.txt").write_text("x")
    return folder, folder.parent / "out", {}


def _out_is_a_file(folder):
    write_png(folder / "a.png", _rgb(2, 2))
    (folder.parent / "out").write_text("x")
    return folder, folder.parent / "out", {}


def _good(**options):
    def make(folder):
        write_png(folder / "a.png", _rgb(2, 2))
        return folder, folder.parent / "out", options

    return make


USAGE = {
    "two suffixes": (_two_suffixes, "a.jpg and a.png would both be written to"),
    "samples": (_samples_collide, "a.png and a.webp would both be written to"),
    "onto itself": (_onto_itself, "the output would overwrite an input"),
    "into the input": (_into_input, "must not be the input folder"),
    "no images": (_no_images, "no images found"),
    "missing": (lambda f: (f / "nothing", f.parent / "out", {}), "no such file or folder"),
    "out is a file": (_out_is_a_file, "cannot be written to"),
    "seed": (_good(seed=2**32), "seed = 4294967296 must be"),
    "negative seed": (_good(seed=-1), "seed = -1 must be"),
    "samples 0": (_good(num_samples=0), "num_samples = 0 must be"),
    "temperature": (_good(temperature=-0.5), "temperature must be finite and >= 0, got -0.5"),
    "nan temperature": (_good(temperature=float("nan")), "temperature must be finite"),
}


@pytest.mark.parametrize("label", USAGE)
def test_usage_errors_do_nothing(tmp_path, params, label):
    make, message = USAGE[label]
    (tmp_path / "in").mkdir()
    source, out, options = make(tmp_path / "in")
    before = sorted(tmp_path.rglob("*.png"))
    with pytest.raises(UsageError) as info:
        upscale_files(params, source, out, **options)
    print(f"{label}: {info.value}")
    assert message in str(info.value) and "\n" not in str(info.value)
    assert sorted(tmp_path.rglob("*.png")) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission(tmp_path, params):
    write_png(tmp_path / "a.png", _rgb(2, 2))
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(UsageError, match="cannot be written to .Permission denied"):
        upscale_files(params, tmp_path / "a.png", tmp_path / "out")


def test_output_folder_inside_the_input_folder(tmp_path, params):
    write_png(tmp_path / "a.png", _rgb(2, 2))
    for _ in range(2):  # the second time, results of the first are no inputs
        summary = upscale_files(params, tmp_path, tmp_path / "out", overwrite=True)
        assert summary == Summary(written=1, skipped=0, failed=0)


def test_main_statuses(tmp_path, params, main, capsys):
    folder, _ = _folder(tmp_path)
    flowsr_jax.save(params, tmp_path / "model")
    call = ["-i", str(folder), "-o", str(tmp_path / "out"), "-n", str(tmp_path / "model")]
    assert main(call) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "6 written, 0 skipped, 0 failed"
    (folder / "bad.png").write_text("x")
    assert main(call) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "0 written, 6 skipped, 1 failed"
    assert main([*call, "--seed", "-1"]) == 2
    assert main([*call[:4], "-n", str(tmp_path / "in")]) == 2
    assert main([*call[:4], "-n", str(folder / "bad.png")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and all(line.startswith("error: ") for line in lines)


def test_command_line_as_a_process(tmp_path):
    def run(*args):
        return subprocess.run(
            [sys.executable, ROOT / "launch" / "sample.py", *args],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        )

    done = run("-i", "x.png", "-o", tmp_path / "out", "-n", tmp_path / "nothing")
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path / 'nothing'}: no such folder\n"
    done = run("-i", "x.png")
    assert done.returncode == 2 and "the following arguments are required" in done.stderr


def test_progress_bar_on_a_terminal(tmp_path, params, monkeypatch, capsys):
    folder, _ = _folder(tmp_path)
    (folder / "bad.png").write_text("[red]x")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "300")
    assert upscale_files(params, folder, tmp_path / "out").failed == 1
    shown = capsys.readouterr().out
    assert "7/7" in shown and "images/s" in shown and "bad.png: failed: " in shown
    assert "odd.png" not in shown
