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
from flowsr_jax import memory
from flowsr_jax.console import Summary, UsageError
from flowsr_jax.drawing import sampler as sampler_module
from flowsr_jax.drawing import windows
from flowsr_jax.files.heat_map import heat_map
from flowsr_jax.files.images import read_image, read_rgb, write_png
from flowsr_jax.math.resize import imresize
from flowsr_jax.metrics import lr_psnr
from flowsr_jax.models import FAMILIES
from flowsr_jax.upscaling import plan, upscale_files, upscale_image

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def fake():
    with FAMILIES.using("fake", FAMILY):
        yield


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
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(_rgb(4, 9)).save(folder / "turned.png", exif=turned)
    wanted |= {
        "sub/deep/grey": np.repeat(grey[..., None], 3, 2),
        "palette": np.full((4, 4, 3), [9, 8, 7]),
        "turned": np.rot90(_rgb(4, 9), -1),
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
    compiled = [line for line in lines if "compiling for windows of" in line]
    assert len(compiled) == 2 and "64x64 LR pixels" in compiled[0] and "32x32" in compiled[1]
    assert len(lines) == 9 and lines[1].startswith("[1/6] odd.png: written: ")
    assert lines[-1].startswith("6 images, ") and lines[-1].endswith(" images/s")


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
    compile_ = sampler_module._compile

    def record(tree, avals, shape, *rest):
        shapes.append(shape)
        return compile_(tree, avals, shape, *rest)

    monkeypatch.setattr(sampler_module, "_compile", record)
    sizes = [(1, 1), (32, 9), (9, 32), (33, 20), (64, 64), (20, 65), (129, 190), (250, 250)]
    for size in sizes:
        upscale_image(params, _rgb(*size), jax.random.key(0))
    assert set(shapes) == {(n, n) for n in (32, 64, 128, 192, 256)}


def test_padding_reflects_at_bottom_and_right(params, monkeypatch):
    seen = []

    def draw(self, lr, key, top, left, group):
        seen.append(lr)
        return np.zeros((1, 64, 64, 3), np.float32)

    monkeypatch.setattr(sampler_module.Sampler, "draw", draw)
    rgb = _rgb(30, 31)
    assert upscale_image(params, rgb, jax.random.key(0)).shape == (1, 60, 62, 3)
    wanted = np.pad(rgb, ((0, 2), (0, 1), (0, 0)), mode="reflect")
    assert seen[0].dtype == np.float32
    np.testing.assert_allclose(seen[0] * 255, wanted, atol=1e-4)


def test_many_samples_are_drawn_one_by_one(params, monkeypatch):
    monkeypatch.setattr(windows, "SMALL", 32)
    monkeypatch.setattr(memory, "device_memory", lambda: 2)
    rgb = np.full((8, 8, 3), 128, np.uint8)
    out = upscale_image(params, rgb, jax.random.key(0), num_samples=3, temperature=0.1)
    assert out.shape == (3, 16, 16, 3)
    assert (out[0] != out[1]).any() and (out[1] != out[2]).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (8, 30_000), (500, 3)])
def test_extreme_sizes(params, size):
    rgb = _rgb(*size)
    tile = "auto" if max(size) < 1000 else 512
    out = upscale_image(params, rgb, jax.random.key(0), temperature=0.0, tile=tile)
    np.testing.assert_array_equal(out[0], _twice(rgb))


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


def _failing_draw(monkeypatch, message, times=10**9):
    """Let the first draws fail; returns the list of the window sizes asked for."""
    asked, draw = [], sampler_module.Sampler.draw

    def fail(self, lr, *args):
        asked.append(lr.shape[:2])
        if len(asked) <= times:
            raise RuntimeError(message)
        return draw(self, lr, *args)

    monkeypatch.setattr(sampler_module.Sampler, "draw", fail)
    return asked


def test_unexpected_errors_fail_the_image_only(tmp_path, params, monkeypatch, capsys):
    _failing_draw(monkeypatch, "something\nodd")
    write_png(tmp_path / "a.png", _rgb(4, 4))
    assert upscale_files(params, tmp_path / "a.png", tmp_path / "out").failed == 1
    assert r"RuntimeError: something\nodd" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def test_out_of_memory_is_tried_again_with_smaller_tiles(tmp_path, params, monkeypatch, capsys):
    monkeypatch.setattr(memory, "device_memory", lambda: 1 << 26)
    asked = _failing_draw(monkeypatch, "RESOURCE_EXHAUSTED: out of memory", times=1)
    rgb = _rgb(200, 200)
    write_png(tmp_path / "a.png", rgb)
    assert upscale_files(params, tmp_path / "a.png", tmp_path / "out", temperature=0.0).written
    assert "out of memory; trying smaller tiles" in capsys.readouterr().err
    assert asked[0] >= asked[1]
    np.testing.assert_array_equal(read_rgb(tmp_path / "out" / "a.png"), _twice(rgb))
    asked = _failing_draw(monkeypatch, "RESOURCE_EXHAUSTED: out of memory")
    assert upscale_files(params, tmp_path / "a.png", tmp_path / "out2").failed == 1
    assert len(asked) < 10 and "failed: RuntimeError: RESOURCE" in capsys.readouterr().err


def test_grey_and_transparency_are_kept(tmp_path, params):
    (tmp_path / "in").mkdir()
    grey, alpha = _rgb(5, 6)[..., 0], np.tile(np.uint8([0, 60, 128, 200, 254, 255]), (5, 1))
    kinds = {
        "L": grey,
        "LA": np.dstack([grey, alpha]),
        "RGBA": np.dstack([_rgb(5, 6), alpha]),
        "I;16": grey * np.uint16(257),
    }
    for mode, pixels in kinds.items():
        Image.fromarray(pixels).save(tmp_path / "in" / f"{mode}.png")
    assert upscale_files(params, tmp_path / "in", tmp_path / "out", temperature=0.0).written == 4
    for mode, pixels in kinds.items():
        with Image.open(tmp_path / "out" / f"{mode}.png") as image:
            assert image.mode == mode
            out = np.array(image)
        if mode.endswith("A"):
            np.testing.assert_array_equal(out[..., -1], imresize(alpha, 2))
            # Colours that alpha 0 hides are filled.
            pixels, out = pixels[:, 1:, :-1], out[:, 2:, :-1]
        np.testing.assert_array_equal(out.squeeze(), _twice(pixels).squeeze(), err_msg=mode)


def test_alpha_of_a_tiled_image_has_no_seam(tmp_path, params):
    rgba = np.dstack([_rgb(150, 40), np.maximum(_rgb(150, 40, seed=1)[..., 0], 1)])
    Image.fromarray(rgba).save(tmp_path / "a.png")
    upscale_files(params, tmp_path / "a.png", tmp_path / "out", tile=32, temperature=0.0)
    out = np.array(Image.open(tmp_path / "out" / "a.png"))
    np.testing.assert_array_equal(out[..., 3], imresize(rgba[..., 3], 2))
    np.testing.assert_array_equal(out[..., :3], _twice(rgba[..., :3]))


@pytest.mark.parametrize("kind", ["colour", "grey"])
def test_uncertainty_is_the_deviation_of_the_files(tmp_path, params, kind):
    rgb = np.full((40, 50, 3), [128, 129, 128], np.uint8)
    Image.fromarray(rgb if kind == "colour" else rgb[..., 0]).save(tmp_path / "a.png")
    options = {"num_samples": 4, "temperature": 0.03, "uncertainty": True}
    out = tmp_path / "out"
    assert upscale_files(params, tmp_path / "a.png", out, **options).written == 1
    names = {f"a_{i}.png" for i in range(4)}
    assert {path.name for path in out.iterdir()} == names | {"a_std.png"}
    samples = np.stack([read_image(out / name).pixels for name in sorted(names)])
    assert samples.ndim == (4 if kind == "colour" else 3)
    deviation = samples.std(axis=0)
    deviation = deviation.mean(axis=-1) if kind == "colour" else deviation
    wanted = heat_map(deviation, 25.0).astype(int)
    assert np.abs(read_rgb(out / "a_std.png") - wanted).max() <= 6  # float32, next colour
    assert "over 4 samples, in grey levels" in Image.open(out / "a_std.png").text["Description"]
    assert upscale_files(params, tmp_path / "a.png", out, **options).skipped == 1
    (out / "a_std.png").unlink()
    assert upscale_files(params, tmp_path / "a.png", out, **options).written == 1


@pytest.mark.parametrize("kind", ["colour", "grey"])
def test_back_projection_is_reported_and_true(tmp_path, params, capsys, kind):
    rgb = imresize(_rgb(12, 15), 4) if kind == "colour" else imresize(_rgb(12, 15)[..., 0], 4)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    for tile in ("auto", 32):
        options = {"temperature": 0.02, "back_project": True, "tile": tile}
        upscale_files(params, tmp_path / "a.png", tmp_path / str(tile), **options)
        text = capsys.readouterr().out
        before, after = map(float, re.search(r"LR-PSNR (.*) -> (.*) dB", text).groups())
        found = lr_psnr(read_image(tmp_path / str(tile) / "a.png").pixels, rgb, 2)
        assert abs(found - after) < 0.01 and after > before + 10


def test_back_projection_of_an_array(params):
    rgb = imresize(_rgb(12, 15), 4)
    options = {"temperature": 0.02, "num_samples": 2, "back_project": True}
    images = upscale_image(params, rgb, jax.random.key(0), **options)
    assert images.shape == (2, 96, 120, 3) and (images[0] != images[1]).any()
    assert all(lr_psnr(image, rgb, 2) > 55 for image in images)


def test_arrays_of_another_kind_are_refused(params):
    for bad in (_rgb(4, 4)[..., 0], _rgb(4, 4) / 255, np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match="rgb must be uint8"):
            upscale_image(params, bad, jax.random.key(0))
    with pytest.raises(TypeError, match="key must be"):
        upscale_image(params, _rgb(4, 4), 0)


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
    "two suffixes": (_two_suffixes, "a.jpg and a.png would all be written to"),
    "samples": (_samples_collide, "a.png and a.webp would all be written to"),
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
    "scale": (_good(scale=4), "scale = 4, but the model's scale is 2"),
    "one sample": (_good(uncertainty=True), "uncertainty needs at least 2 samples"),
    "tiny tile": (_good(tile=31), "tile = 31 must be 'auto', 0 (one piece), or at least 32"),
    "negative tile": (_good(tile=-1), "tile = -1 must be"),
    "tile word": (_good(tile="big"), "tile = 'big' must be"),
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


def test_colliding_inputs_do_not_stop_the_others(tmp_path, params, capsys):
    folder, wanted = _folder(tmp_path)
    Image.fromarray(_rgb(2, 2)).save(folder / "odd.jpg")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").write_text("a file where a folder should be")
    summary = upscale_files(params, folder, tmp_path / "out")
    assert summary == Summary(written=len(wanted) - 3, skipped=0, failed=4)
    errors = capsys.readouterr().err.splitlines()
    assert sum("odd.jpg and odd.png would all be written to" in line for line in errors) == 2
    assert sum("deep/grey.png: cannot be written (" in line for line in errors) == 1
    assert not (tmp_path / "out" / "odd.png").exists()
    jobs = plan(folder, tmp_path / "out", num_samples=2, uncertainty=True)
    assert [job.name for job in jobs if job.problem] == ["odd.jpg", "odd.png"]
    assert [p.name for p in jobs[0].files] == ["odd_0.png", "odd_1.png", "odd_std.png"]


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
    assert main([*call, "--scale", "4"]) == 2
    options = ["--scale", "2", "--tile", "64", "--back-project", "--uncertainty"]
    assert main([*call[:3], str(tmp_path / "more"), *call[4:], *options, "--num-samples", "2"]) == 1
    assert len(list((tmp_path / "more").rglob("*.png"))) == 3 * 6
    capsys.readouterr()
    assert main([*call[:4], "-n", str(tmp_path / "in")]) == 2
    assert main([*call[:4], "-n", str(folder / "bad.png")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.startswith("error: ") for line in lines)


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
