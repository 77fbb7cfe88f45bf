"""Measured sets that are not what they should be: sizes, exact hits, mixed-up pairs; columns."""

import json
import re

import numpy as np
import pytest
import tifffile

import flowsr_jax
from flowsr_jax.evaluation import evaluate_folder
from flowsr_jax.evaluation.measure import BY_NAME, DECIBELS, HISTOGRAM, means, measure
from flowsr_jax.evaluation.pairs import EvaluationError, PairError, find_cases, load_pair
from flowsr_jax.evaluation.pairs import load_results as load
from flowsr_jax.evaluation.perceptual import Perceptual
from flowsr_jax.evaluation.protocols import PROTOCOLS, get_protocol
from flowsr_jax.files.images import write_png
from flowsr_jax.metrics.columns import COLUMNS


def _smooth(height, width, seed=0):
    small = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    return flowsr_jax.imresize(small, output_shape=(height, width))


@pytest.mark.parametrize("protocol", ["default", "ntire"])
def test_results_of_every_size(tmp_path, protocol):
    """Each size around HR's, and twice and half of it: measured, cut and said, or refused."""
    rules, scale = get_protocol(protocol), 4
    hr, sr = tmp_path / "hr", tmp_path / "sr"
    hr.mkdir()
    sr.mkdir()
    write_png(hr / "a.png", _smooth(43, 47))  # 40x44 and a remainder
    surplus = max(scale, rules.hr_multiple) - 1
    least = [n // rules.hr_multiple * rules.hr_multiple for n in (40, 44)]
    for dy in (-20, -9, -8, -1, 0, 1, 3, 4, 7, 8, 40):
        for dx in (0, dy):
            size = 40 + dy, 44 + dx
            write_png(sr / "a.png", np.zeros((*size, 3), np.uint8))
            (case,), _ = find_cases(hr, results=sr)
            pair, said = load_pair(case, scale, rules), []
            fits = size[0] >= least[0] and size[1] >= least[1] and max(dy, dx) <= surplus
            if not fits:
                with pytest.raises(PairError, match=f"{size[1]}x{size[0]} pixels, HR has 44x40"):
                    load(case, pair, scale, rules, said.append)
                continue
            (image,) = load(case, pair, scale, rules, said.append)
            assert image.shape[0] <= 40 and image.shape[1] <= 44
            assert bool(said) == (max(dy, dx) > 0)


def test_exact_images_do_not_make_means_infinite(tmp_path, capsys):
    hr, out = tmp_path / "hr", tmp_path / "out"
    hr.mkdir()
    for i in range(3):
        write_png(hr / f"{i}.png", _smooth(48, 48, seed=i))
    write_png(hr / "black.png", np.zeros((48, 48, 3), np.uint8))
    evaluate_folder(hr, out, scale=4)
    (row,) = json.loads((out / "summary.json").read_text())["rows"]
    assert all(np.isfinite(row[column]) for column in DECIBELS if column in row)
    assert row["exact"]["psnr"][0] == 1
    text = capsys.readouterr().out
    found = re.search(r"PSNR of bicubic: 1 exact image is left out .* it is (.*) dB", text)
    assert float(found[1]) == pytest.approx(row["exact"]["psnr"][1], abs=0.01)
    assert "inf" not in text.split("| method")[1].split("Means")[0]


def test_means_over_exact_images():
    rows = [{"psnr": value} for value in (20.0, 30.0, np.inf, np.inf)]
    found = means(rows)
    count, psnr = found["exact"]["psnr"]
    assert (found["psnr"], count) == (25.0, 2)
    assert psnr == pytest.approx(-10 * np.log10((1e-2 + 1e-3) / 4))
    assert means(rows[2:]) == {"psnr": np.inf}  # all are: said by the number itself
    assert means(rows[:2]) == {"psnr": 25.0}
    assert set(DECIBELS) == {c for c in COLUMNS if "psnr" in c}


@pytest.mark.parametrize("shifted", [False, True])
def test_lr_files_that_do_not_look_like_their_hr(tmp_path, capsys, shifted):
    hr, lr = tmp_path / "hr", tmp_path / "lr"
    hr.mkdir()
    lr.mkdir()
    for i in range(3):
        image = _smooth(48, 48, seed=i)
        write_png(hr / f"{i}.png", image)
        write_png(lr / f"{(i + shifted) % 3}.png", flowsr_jax.imresize(image, 1 / 4))
    evaluate_folder(hr, tmp_path / "out", lr=lr)
    text = capsys.readouterr().out
    assert ("warning: 3 of 3 LR files do not look like their HR" in text) == shifted
    assert ("warning" in (tmp_path / "out" / "summary.md").read_text()) == shifted


def test_every_column_can_be_asked_for():
    """Each name measures itself alone; the default measures all but those by name."""
    rng = np.random.default_rng(0)
    hr = _smooth(192, 192)
    samples = [np.clip(hr + rng.normal(0, 9, hr.shape), 0, 255).astype(np.uint8) for _ in range(3)]
    pair = {"hr": hr, "lr": flowsr_jax.imresize(hr, 1 / 4)}

    def lpips(a, b):
        return float(np.abs(a.astype(float) - b).mean())

    perceptual = Perceptual(
        lpips,
        lambda a, b: np.abs(a.astype(np.float32) - b).mean(axis=-1),
        lambda images: lpips(images[0], images[1]),
        lpips,
    )
    seen = set()
    for name in PROTOCOLS:
        rules = get_protocol(name)
        whole = measure(samples, pair, 4, rules, perceptual)
        assert not set(whole) & {*BY_NAME, HISTOGRAM}
        for column in (*COLUMNS, HISTOGRAM):
            alone = measure(samples, pair, 4, rules, perceptual, (column,))
            assert set(alone) <= {column, "spread_square", "skill_square"}
            if column in whole:
                assert alone[column] == whole[column], (name, column)
            seen |= set(alone)
    assert set(COLUMNS) - seen == {c for c in COLUMNS if c.startswith("lr_fidelity")}
    assert HISTOGRAM in seen


def test_what_is_left_out_of_files_is_said(tmp_path, capsys):
    hr = tmp_path / "hr"
    hr.mkdir()
    pages = np.stack([_smooth(48, 48, seed) for seed in range(3)])
    tifffile.imwrite(hr / "a.tif", pages, photometric="rgb")
    (hr / "b.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(12))
    evaluate_folder(hr, tmp_path / "out", scale=4)
    out, err = capsys.readouterr()
    assert "a.tif: page 1 of 3 is taken" in err
    assert "HR: 1 file of another kind left out: .heic (1)" in out


def test_chosen_columns_in_tables(tmp_path, capsys):
    hr = tmp_path / "hr"
    hr.mkdir()
    write_png(hr / "a.png", _smooth(48, 48))
    evaluate_folder(hr, tmp_path / "out", scale=4, metrics=("ssim", "dists"))
    text = capsys.readouterr().out
    assert re.search(r"\| method +\| draws \| SSIM +\|\n", text)
    assert "not measured: dists" in text
    with pytest.raises(EvaluationError, match="metrics: 'snr' is not one of psnr, ssim"):
        evaluate_folder(hr, tmp_path / "out", scale=4, metrics=("snr",))
