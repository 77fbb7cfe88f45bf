"""The evaluation command: published numbers, files that pair or do not, exit statuses."""

import csv
import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from fake_family import FAMILY, FakeConfig
from golden_tools import Table
from PIL import Image

import flowsr_jax
from flowsr_jax import metrics
from flowsr_jax.data import DataConfig, EmbeddedSource, valid_pairs
from flowsr_jax.drawing import image_key
from flowsr_jax.evaluation import EvaluationError, evaluate_folder
from flowsr_jax.evaluation.pairs import find_cases
from flowsr_jax.files.images import read_rgb, write_png
from flowsr_jax.models import FAMILIES, get_family
from flowsr_jax.models.rrdb.config import RRDBConfig
from flowsr_jax.models.srflow import SRFlowConfig
from flowsr_jax.upscaling import upscale_files

ROOT = Path(__file__).parents[1]
TINY = SRFlowConfig(
    encoder=RRDBConfig(scale=2, nf=4, gc=4, nb=1), steps=(0, 1), hidden=4, stacked_blocks=(0,)
)
FILES = {"per_image.csv", "summary.json", "summary.md", "sheet.png"}


@pytest.fixture(scope="module")
def tiny():
    return jax.jit(get_family("srflow").init, static_argnums=0)(TINY, jax.random.key(0))


@pytest.fixture(scope="module")
def main():
    spec = importlib.util.spec_from_file_location(
        "launch_evaluate", ROOT / "launch" / "evaluate.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture
def fake():
    with FAMILIES.using("fake", FAMILY):
        yield lambda **config: FAMILY.init(FakeConfig(**config), jax.random.key(0))


def _smooth(height, width, seed=0):
    """An image that resizing does not destroy."""
    small = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    return flowsr_jax.imresize(small, output_shape=(height, width))


def _folder(path, sizes=((40, 48), (36, 44))):
    path.mkdir(parents=True)
    for i, size in enumerate(sizes):
        write_png(path / f"{'abcdef'[i]}.png", _smooth(*size, seed=i))
    return path


def _csv(out, name="per_image.csv"):
    with open(out / name, newline="") as file:
        return list(csv.DictReader(file))


def test_published_bicubic_table(shared, tmp_path, main):
    """The command gives the MATLAB table of Set5 at x2, x3 and x4."""
    set5, table = shared / "data" / "Set5", Table("bicubic_published.json")
    published = json.loads((set5 / "bicubic_published.json").read_text())
    for scale in (2, 3, 4):
        out = tmp_path / f"x{scale}"
        call = ["-n", "bicubic", "-i", str(set5), "--lr", str(set5 / f"LR_x{scale}")]
        assert main([*call, "-o", str(out), "--protocol", "matlab"]) == 0
        rows = _csv(out)
        assert [Path(row["image"]).stem for row in rows] == published["names"]
        for column, limit in (("psnr", 2e-4), ("ssim", 1e-5)):
            got = [float(row[f"{column}_y"]) for row in rows]
            want = published[f"x{scale}"][column]
            table.check(f"x{scale} {column}", got, want, limit, absolute=True)
    table.finish()


def test_model_and_its_files_give_the_same_numbers(tmp_path, tiny, main, capsys):
    """Drawing here, and measuring what launch/sample.py wrote: one result."""
    hr, lr, out = _folder(tmp_path / "hr"), tmp_path / "lr", tmp_path / "out"
    for file in hr.iterdir():
        lr.mkdir(exist_ok=True)
        write_png(lr / file.name, flowsr_jax.imresize(read_rgb(file), 1 / 2))
    flowsr_jax.save(tiny, tmp_path / "model")
    call = ["-i", str(hr), "--lr", str(lr), "--seed", "3"]
    drawn = ["-n", str(tmp_path / "model"), "--temperatures", "0,0.4", "--num-samples", "2"]
    assert main([*call, *drawn, "-o", str(out), "--bits"]) == 0
    assert {p.name for p in out.iterdir()} == FILES | {"curve.csv", "curve.png"}
    text = capsys.readouterr().out
    assert "protocol default: " in text and "[2/2] b.png: psnr bicubic " in text
    assert "images/s" in text and "bits/dim " in text and "| T=0.4 " in text

    record = json.loads((out / "summary.json").read_text())
    assert [row["method"] for row in record["rows"]] == ["bicubic", "T=0", "T=0.4"]
    assert [row["draws"] for row in record["rows"]] == [1, 1, 2]
    assert [row.get("diversity", None) is None for row in record["rows"]] == [True, False, False]
    assert record["rows"][1]["diversity"] == 0 < record["rows"][2]["diversity"]

    upscale_files(tiny, lr, tmp_path / "sr", num_samples=2, temperature=0.4, seed=3)
    files = tmp_path / "files"
    assert main([*call, "--sr", str(tmp_path / "sr"), "-o", str(files)]) == 0
    again = json.loads((files / "summary.json").read_text())
    assert {p.name for p in files.iterdir()} == FILES
    for one, other in ((0, 0), (2, 1)):
        a, b = record["rows"][one], again["rows"][other]
        assert b["method"] == ("bicubic", "results")[other] and a["draws"] == b["draws"]
        shared = set(a) - {"method", "temperature"}
        assert {k: a[k] for k in shared} == {k: b[k] for k in shared}

    rows = [row for row in _csv(out) if row["method"] == "T=0.4"]
    mean = np.mean([float(row["psnr"]) for row in rows])
    assert record["rows"][2]["psnr"] == pytest.approx(mean, abs=1e-12)
    image = read_rgb(hr / "a.png")
    samples = [read_rgb(tmp_path / "sr" / f"a_{i}.png") for i in range(2)]
    assert float(rows[0]["psnr_best"]) == max(metrics.psnr(s, image) for s in samples)
    small = [x[None].astype(np.float32) / 255 for x in (image, read_rgb(lr / "a.png"))]
    bits = float(flowsr_jax.bits_per_dim(tiny, *small)[0])
    first = [row for row in _csv(out) if row["image"] == "a.png" and row["bits_per_dim"]]
    assert [row["method"] for row in first] == ["T=0"]
    assert float(first[0]["bits_per_dim"]) == pytest.approx(bits, rel=1e-6)
    curve = _csv(out, "curve.csv")
    assert [row["temperature"] for row in curve] == ["0.0", "0.4"]
    with Image.open(out / "curve.png") as picture:
        assert picture.width > 900 and len(set(picture.convert("L").tobytes())) > 50


def test_srflow_protocol_pads_to_even_sides_and_truncates(tmp_path, tiny):
    hr = _folder(tmp_path / "hr", [(34, 38)])
    result = evaluate_folder(hr, tmp_path / "out", params=tiny, protocol="srflow", seed=1)
    image = read_rgb(hr / "a.png")
    lr = flowsr_jax.imresize(image, 1 / 2)  # 17x19
    step = TINY.multiple
    padded = np.pad(lr, [(0, -17 % step), (0, -19 % step), (0, 0)], mode="reflect")
    key = jax.random.fold_in(image_key(1, "a.png"), 0)
    low = padded[None].astype(np.float32) / 255
    sr = np.asarray(flowsr_jax.sample(tiny, low, key, temperature=0.9))[0, :34, :38]
    sr = metrics.to_uint8(sr, "truncate")
    _, row = result.rows
    assert row["method"] == "T=0.9" and row["draws"] == 1
    assert row["psnr"] == metrics.psnr(sr, image)
    assert row["ssim"] == metrics.ssim_skimage(sr, image)
    assert row["lr_psnr"] == metrics.lr_psnr(sr, lr, 2)


def test_a_bad_image_does_not_stop_the_others(tmp_path, main, capsys):
    hr, out = _folder(tmp_path / "hr"), tmp_path / "out"
    (hr / "bad.png").write_text("no image")
    write_png(hr / "dot.png", _smooth(4, 4))  # too small for SSIM
    assert main(["-n", "bicubic", "--scale", "2", "-i", str(hr), "-o", str(out)]) == 1
    captured = capsys.readouterr()
    errors = captured.err.splitlines()
    assert len(errors) == 2 and "[3/4] bad.png: failed: " in errors[0]
    assert "dot.png: failed: " in errors[1] and "smaller than the 11x11 window" in errors[1]
    assert "failed: dot.png: " in captured.out and "Means over 2 images" in captured.out
    assert [row["image"] for row in _csv(out)] == ["a.png", "b.png"]
    assert set(json.loads((out / "summary.json").read_text())["failed"]) == {"bad.png", "dot.png"}


def test_non_finite_samples_fail_the_image(tmp_path, fake, capsys):
    hr = _folder(tmp_path / "hr", [(32, 32)])
    params = fake(broken=1.0)
    for protocol in ("default", "srflow"):
        with pytest.raises(EvaluationError, match="none of the 1 images.*non-finite"):
            evaluate_folder(hr, tmp_path / "out", params=params, protocol=protocol)
    assert "drawing again" in capsys.readouterr().err
    assert evaluate_folder(hr, tmp_path / "out", params=fake()).rows[1]["method"] == "fake"


def _no_images(tmp_path):
    (tmp_path / "empty").mkdir()
    return {"source": tmp_path / "empty"}


def _other(tmp_path):
    (tmp_path / "other").mkdir()
    write_png(tmp_path / "other" / "zebra.png", _smooth(8, 8))
    return tmp_path / "other"


def _no_scale_pair(tmp_path):
    return {"lr": _folder(tmp_path / "lr", [(16, 16), (16, 16)]), "scale": 4}


def _out_is_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    return {"out": tmp_path / "file"}


REFUSED = {
    "no images": (_no_images, "no images found"),
    "no folder": (lambda t: {"source": t / "nothing"}, "no such file or folder"),
    "nothing pairs": (lambda t: {"lr": _other(t)}, "none of its 1 files .zebra.png. pairs with"),
    "no scale pair": (_no_scale_pair, "HR of 48x40 and LR of 16x16 pixels are no x4 pair"),
    "out is a file": (_out_is_a_file, "cannot be written to"),
    "out is in": (lambda t: {"out": t / "hr"}, "must not be the input"),
    "no scale": (lambda t: {"scale": None}, "a scale is needed"),
    "scale 1": (lambda t: {"scale": 1}, "scale = 1 must be"),
    "protocol": (lambda t: {"protocol": "psnr"}, "unknown protocol 'psnr'"),
    "seed": (lambda t: {"seed": -1}, "seed = -1 must be"),
    "limit": (lambda t: {"limit": -1}, "limit = -1 must be"),
    "samples": (lambda t: {"num_samples": 0}, "num_samples = 0 must be"),
    "bits": (lambda t: {"bits": True}, "bits/dim needs a flow"),
    "temperatures": (lambda t: {"temperatures": (0.5,)}, "need a model that draws"),
    "features": (lambda t: {"features": ["x.npz", "y.npz"]}, "features: .*x.npz"),
}


@pytest.mark.parametrize("label", REFUSED)
def test_requests_that_cannot_be_carried_out(tmp_path, label):
    make, message = REFUSED[label]
    options = {"source": _folder(tmp_path / "hr"), "out": tmp_path / "out", "scale": 2}
    options |= make(tmp_path)
    with pytest.raises(EvaluationError, match=message) as info:
        evaluate_folder(options.pop("source"), options.pop("out"), **options)
    assert "\n" not in str(info.value)


MODEL_REFUSED = {
    "scale": ({"scale": 4}, "scale = 4: this model has scale 2 only"),
    "both": ({"results": "x"}, "either a model or a folder of results"),
    "temperature": ({"temperatures": (-1.0,)}, "temperature must be finite and >= 0"),
    "twice": ({"temperatures": (0.5, 0.5)}, "names one twice"),
}


@pytest.mark.parametrize("label", MODEL_REFUSED)
def test_models_are_checked(tmp_path, tiny, label):
    options, message = MODEL_REFUSED[label]
    with pytest.raises(EvaluationError, match=message):
        evaluate_folder(_folder(tmp_path / "hr"), tmp_path / "out", params=tiny, **options)


def test_deterministic_models(tmp_path, fake):
    hr, params = _folder(tmp_path / "hr"), fake()
    with FAMILIES.using("fake", dataclasses.replace(FAMILY, stochastic=False)):
        result = evaluate_folder(hr, tmp_path / "out", params=params, protocol="irn")
        assert [row["draws"] for row in result.rows] == [1, 1]  # the protocol's 5 would be equal
        assert "curve.csv" not in {p.name for p in (tmp_path / "out").iterdir()}
        for options in ({"temperatures": (0.5,)}, {"num_samples": 2}):
            with pytest.raises(EvaluationError, match="family 'fake' draws one image"):
                evaluate_folder(hr, tmp_path / "out", params=params, **options)


def _touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_png(path, np.zeros((4, 4, 3), np.uint8))
    return folder


def _found(path, field, **folders):
    cases, notes = find_cases(path, **folders)
    return {case.name: case.fault or _names(getattr(case, field)) for case in cases}, notes


def _names(files):
    return [f.name for f in files] if isinstance(files, tuple) else files.name


def test_pairing_of_lr_files(tmp_path):
    hr = _touch(tmp_path / "hr", "0801.png", "0802.png", "img_SRF_4_HR.png", "x_1.png", "x_2.png")
    lr = _touch(hr / "LR", "0801x4.png", "img_SRF_4_LR.png", "x_1.jpg", "x_2x4d.png", "y.png")
    got, notes = _found(hr, "lr", lr=lr)
    assert got == {
        "0801.png": "0801x4.png",
        "0802.png": "no LR file of that name",
        "img_SRF_4_HR.png": "img_SRF_4_LR.png",
        "x_1.png": "x_1.jpg",
        "x_2.png": "x_2x4d.png",
    }
    assert notes == ["1 LR files of no HR image are left out: y.png"]
    _touch(lr, "0801x2.png")
    assert (
        _found(hr, "lr", lr=lr)[0]["0801.png"] == "2 LR files may be meant: 0801x2.png, 0801x4.png"
    )
    assert len(find_cases(hr, lr, limit=2)[0]) == 2
    one, _ = find_cases(hr / "0801.png", lr / "y.png")  # two files pair whatever their names
    assert one[0].lr.name == "y.png"


def test_pairing_in_sub_folders(tmp_path):
    hr = _touch(tmp_path / "hr", "p/a.png", "q/a.png", "out/sheet.png")
    lr = _touch(tmp_path / "lr", "q/a_LR.png", "p/a_LR.png")
    cases, _ = find_cases(hr, lr, out=hr / "out")
    assert {c.name: c.lr.relative_to(lr).as_posix() for c in cases} == {
        "p/a.png": "p/a_LR.png",
        "q/a.png": "q/a_LR.png",
    }


def test_pairing_of_samples(tmp_path):
    hr = _touch(tmp_path / "hr", "a.png", "a_1.png", "b.png", "c.png")
    names = ["a_0.png", "a_2.png", "a_10.png", "a_1.png", "b_sample00001.png", "b_sample00000.png"]
    got, _ = _found(hr, "results", results=_touch(tmp_path / "sr", *names))
    assert got == {
        "a.png": ["a_0.png", "a_2.png", "a_10.png"],
        "a_1.png": ["a_1.png"],
        "b.png": ["b_sample00000.png", "b_sample00001.png"],
        "c.png": "no result file of that name",
    }


def test_pairing_of_challenge_results(tmp_path):
    hr = _touch(tmp_path / "hr", "0801.png", "0802.png")
    names = [f"00000{i}_sample0000{k}.png" for i in range(2) for k in range(3)]
    got, notes = _found(hr, "results", results=_touch(tmp_path / "sr", *names))
    assert got == {"0801.png": names[:3], "0802.png": names[3:]}
    assert notes == ["results are numbered and paired in order: 0801.png is 000000"]


def test_results_larger_and_smaller_than_hr(tmp_path):
    """A padded result is cut; one that does not cover what is compared fails."""
    hr, sr = _folder(tmp_path / "hr", [(40, 48), (40, 48)]), tmp_path / "sr"
    sr.mkdir()
    image = read_rgb(hr / "a.png")
    write_png(sr / "a.png", np.pad(image, ((0, 1), (0, 1), (0, 0))))
    write_png(sr / "b.png", image[:-1])
    result = evaluate_folder(hr, tmp_path / "out", results=sr, scale=2)
    assert (result.measured, result.failed) == (1, 1)
    assert result.rows[1]["psnr"] == np.inf and result.rows[1]["ssim"] == 1
    assert (
        json.loads((tmp_path / "out" / "summary.json").read_text())["rows"][1]["psnr"] == "Infinity"
    )


def test_features(tmp_path, shared, capsys):
    with np.load(shared / "golden" / "fid.npz") as golden:
        for i in (1, 2):
            np.savez(tmp_path / f"{i}.npz", features=golden[f"well/feat{i}"])
        wanted = {k: float(golden[f"well/{k}"]) for k in ("fid_eigh", "kid_general_unbiased")}
    hr = _folder(tmp_path / "hr", [(32, 32)])
    files = [str(tmp_path / f"{i}.npz") for i in (1, 2)]
    evaluate_folder(hr, tmp_path / "out", scale=2, features=files)
    found = json.loads((tmp_path / "out" / "summary.json").read_text())["features"]
    table = Table("FID and KID of the command")
    table.check("fid", found["fid"], wanted["fid_eigh"], 1e-9)
    table.check("kid", found["kid"], wanted["kid_general_unbiased"], 1e-9)
    table.finish()
    assert "120 features and 150 features of 16 dimensions" in capsys.readouterr().out


def test_without_matplotlib_the_numbers_are_written(tmp_path, tiny, monkeypatch, capsys):
    for name in ("matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    hr = _folder(tmp_path / "hr", [(40, 48)])
    options = {"params": tiny, "temperatures": (0.0, 0.4), "num_samples": 2}
    evaluate_folder(hr, tmp_path / "out", **options)
    assert {p.name for p in (tmp_path / "out").iterdir()} == FILES | {"curve.csv"}
    assert "matplotlib is not installed" in capsys.readouterr().out


def test_embedded_photographs(tmp_path, main):
    call = ["-n", "bicubic", "--scale", "4", "-i", "embedded", "--limit", "2"]
    assert main([*call, "-o", str(tmp_path / "out")]) == 0
    assert [row["image"] for row in _csv(tmp_path / "out")] == ["coffee", "chelsea"]
    (_, pair) = valid_pairs(EmbeddedSource("valid"), DataConfig(scale=4))[:2]
    want = metrics.psnr(flowsr_jax.imresize(pair["lr"], 4), pair["hr"])
    assert float(_csv(tmp_path / "out")[1]["psnr"]) == want


def test_progress_bar_on_a_terminal(tmp_path, monkeypatch, capsys):
    hr = _folder(tmp_path / "hr")
    (hr / "bad.png").write_text("[red]x")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "300")
    assert evaluate_folder(hr, tmp_path / "out", scale=2).failed == 1
    shown = capsys.readouterr().out
    assert "3/3" in shown and "images/s" in shown and "bad.png: failed: " in shown


def test_command_line_as_a_process(tmp_path):
    def run(*args):
        return subprocess.run(
            [sys.executable, ROOT / "launch" / "evaluate.py", *args],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        )

    done = run("-n", tmp_path / "nothing", "-i", tmp_path, "-o", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path / 'nothing'}: no such folder\n"
    done = run("-n", "x", "--sr", "y", "-i", tmp_path, "-o", tmp_path / "out")
    assert done.returncode == 2 and "not allowed with argument" in done.stderr
    done = run("-n", "x", "-i", "y", "-o", "z", "--temperatures", "0,warm")
    assert done.returncode == 2 and "invalid" in done.stderr
