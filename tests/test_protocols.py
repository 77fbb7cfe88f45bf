"""Protocols against the golden numbers of the scripts that they follow."""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from golden_tools import Table
from PIL import Image

from flowsr_jax import metrics
from flowsr_jax.config import ConfigError
from flowsr_jax.evaluation import PROTOCOLS, EvaluationError, get_protocol
from flowsr_jax.evaluation.measure import SQUARES, means, measure
from flowsr_jax.evaluation.perceptual import Perceptual, load_perceptual
from flowsr_jax.evaluation.protocols import RESIZING, resize
from flowsr_jax.files.images import read_rgb
from flowsr_jax.metrics.backbones import get_backbone
from flowsr_jax.metrics.columns import COLUMNS

SMALL = Path(__file__).parent / "data" / "metrics_small.npz"
# protocol: {column: golden column of metrics.npz, at scale 4}
GOLDEN = {
    "srflow": {"psnr": "skimage_psnr", "ssim": "skimage_ssim_srflow"},
    "ntire": {"psnr": "skimage_psnr"},
    "basicsr": {
        "psnr": "psnr_rgb_crop4",
        "ssim": "ssim_rgb_crop4",
        "psnr_y": "psnr_y_crop4",
        "ssim_y": "ssim_y_crop4",
    },
    "irn": {
        "psnr": "irn_psnr_rgb_crop4",
        "ssim": "irn_ssim_rgb_crop4",
        "psnr_y": "irn_psnr_y_crop4",
        "ssim_y": "irn_ssim_y_crop4",
    },
    "sr3": {"psnr": "sr3_psnr", "ssim": "sr3_ssim"},
    "default": {
        "psnr": "psnr_rgb",
        "ssim": "ssim_rgb",
        "psnr_y": "psnr_y_crop4",
        "ssim_y": "ssim_y_crop4",
    },
}
# BasicSR's luma is float32.
LIMITS = {"psnr": 1e-9, "ssim": 1e-10, "psnr_y": 5e-6, "ssim_y": 1e-6}


def _load(path):
    with np.load(path) as file:
        return {key: file[key] for key in file.files}


def _scores(protocol, golden):
    found = {}
    for pair in golden["pairs"]:
        dist, ref = golden[f"dist/{pair}"], golden[f"ref/{pair.split('/')[0]}"]
        for score in protocol.scores:
            found.setdefault(score.column, []).append(score(dist, ref, 4))
    return found


@pytest.mark.parametrize("full", [False, True])
def test_scores_are_those_of_the_scripts(full, request):
    path = request.getfixturevalue("shared") / "golden" / "metrics.npz" if full else SMALL
    golden, table = _load(path), Table("scores of the protocols")
    for name, columns in GOLDEN.items():
        found = _scores(PROTOCOLS[name], golden)
        assert set(found) == set(columns)
        for column, key in columns.items():
            want = golden[f"val/{key}"]
            table.check(f"{name} {column}", found[column], want, LIMITS[column], absolute=True)
    table.finish()


def test_irn_rows(shared):
    """The crop is the scale; the golden row with crop 0 is one that the script cannot give."""
    golden, table = _load(shared / "golden" / "metrics_y.npz"), Table("IRN's test.py")
    columns = [str(name) for name in golden["table_columns"]]
    assert columns == ["crop_border", "psnr_rgb", "ssim_rgb", "psnr_y", "ssim_y"]
    rows = [i for i, row in enumerate(golden["table"]) if row[0] > 0]
    assert len(rows) >= 3
    for score, column in zip(PROTOCOLS["irn"].scores, columns[1:], strict=True):
        got = [
            score(golden[f"sr_rgb_u8_{i}"], golden[f"gt_rgb_u8_{i}"], int(golden["table"][i, 0]))
            for i in rows
        ]
        want = golden["table"][rows, columns.index(column)]
        table.check(f"{score.column} = {column}", got, want, 1e-9, absolute=True)
    table.finish()


def test_ntire_lr_psnr(shared):
    golden, table = _load(shared / "golden" / "metrics.npz"), Table("NTIRE LR-PSNR")
    for scale in (2, 4, 8):
        got = []
        for pair in golden["pairs"]:
            hr = golden[f"ref/{pair.split('/')[0]}"]
            found = measure(
                [golden[f"dist/{pair}"]],
                {"hr": hr, "lr": None},
                scale,
                PROTOCOLS["ntire"],
                Perceptual(),
            )
            got.append(found["lr_psnr"])
        table.check(f"x{scale}", got, golden[f"val/lr_psnr_x{scale}"], 1e-9, absolute=True)
    table.finish()


def test_ntire_samples(shared):
    """The script's four numbers of ten samples, from its own LPIPS maps."""
    golden, table = _load(shared / "golden" / "diversity.npz"), Table("NTIRE measure.py")
    samples, maps = list(golden["samples"]), golden["lpips_maps"]
    order = {sample.tobytes(): i for i, sample in enumerate(samples)}
    perceptual = Perceptual(lpips_map=lambda a, b: maps[order[a.tobytes()]])
    pair = {"hr": golden["gt"], "lr": resize(golden["gt"], 1 / 4, "stages")}
    got = measure(samples, pair, 4, PROTOCOLS["ntire"], perceptual)
    for column, key, limit in (
        ("lpips", "ntire/LPIPS_mean", 1e-7),
        ("ntire_score", "ntire/score", 1e-4),
        ("lr_psnr", "ntire/LRPSNR_mean", 1e-9),
        ("lr_psnr_worst", "ntire/LRPSNR_worst", 1e-9),
        ("diversity", "diversity/std_ddof0", 1e-5),
        ("psnr_mean_image", "psnr_of_float_mean_image", 1e-9),
    ):
        table.check(column, got[column], golden[key], limit, absolute=True)
    table.check("psnr", got["psnr"], golden["psnr_each"].mean(), 1e-9, absolute=True)
    table.check("psnr_best", got["psnr_best"], golden["psnr_each"].max(), 1e-9, absolute=True)
    table.finish()
    assert set(got) <= {*COLUMNS, *SQUARES}
    one = measure(samples[:1], pair, 4, PROTOCOLS["ntire"], perceptual)
    assert one["ntire_score"] == 0 and "diversity" not in one and "psnr_best" not in one


def test_quantisation():
    golden = _load(SMALL)
    for name, key in (("srflow", "srflow_trunc"), ("irn", "tensor2img_round")):
        got = metrics.to_uint8(golden["quant/x"], PROTOCOLS[name].quantise)
        np.testing.assert_array_equal(got, golden[f"quant/{key}"])
    assert {p.name for p in PROTOCOLS.values() if p.quantise == "truncate"} == {"srflow"}


def test_truncation_costs_what_the_protocol_says():
    """A perfect result has less than 52 dB of LR-PSNR in SRFlow's protocol."""
    rng = np.random.default_rng(0)
    hr = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    perfect = np.clip(hr / 255 + rng.uniform(-0.49, 0.49, hr.shape) / 255, 0, 1)
    pair = {"hr": hr, "lr": resize(hr, 1 / 4, "stages")}
    got = {}
    for name in ("srflow", "default"):
        image = metrics.to_uint8(perfect, PROTOCOLS[name].quantise)
        got[name] = measure([image], pair, 4, PROTOCOLS[name], Perceptual())["lr_psnr"]
    assert 49 < got["srflow"] < 52 and got["default"] > 80


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_old_matlab_gives_the_lr_files(shared, scale):
    for file in sorted((shared / "data" / "Set5").glob("*.png")):
        hr = read_rgb(file)
        hr = hr[: hr.shape[0] // scale * scale, : hr.shape[1] // scale * scale]
        lr = read_rgb(shared / "data" / "Set5" / f"LR_x{scale}" / file.name)
        np.testing.assert_array_equal(resize(hr, 1 / scale, "old"), lr)


def test_resizing_rules():
    image = np.random.default_rng(0).integers(0, 256, (24, 36, 3), dtype=np.uint8)
    made = {rule: resize(image, 1 / 3, rule) for rule in RESIZING}
    assert {x.shape for x in made.values()} == {(8, 12, 3)}
    assert len({x.tobytes() for x in made.values()}) == len(RESIZING)
    want = np.asarray(Image.fromarray(image).resize((12, 8), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(made["pillow"], want)
    assert all(resize(image, 3, rule).shape == (72, 108, 3) for rule in RESIZING)
    assert all(protocol.resize in RESIZING for protocol in PROTOCOLS.values())


def test_published_luma_is_rounded():
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 256, (2, 24, 24, 3), dtype=np.uint8)
    psnr, ssim = PROTOCOLS["matlab"].scores
    planes = [metrics.rgb_to_ycbcr(x)[..., 0] for x in (a, b)]
    assert psnr(a, b, 3) == metrics.psnr(*planes, crop=3)
    assert ssim(a, b, 3) == metrics.ssim(*planes, crop=3)
    assert psnr(a / 255, b / 255, 3) == psnr(a, b, 3)
    assert psnr(a, b, 3) != metrics.psnr(a, b, y=True, crop=3)


def test_calibration_of_exchangeable_draws():
    """Spread equals skill, and the mean image gains what the theory says, when truth is a draw."""
    rng = np.random.default_rng(0)
    draws = rng.normal(128, 20, (6, 96, 96, 3)).round().astype(np.uint8)
    pair = {"hr": draws[0], "lr": None}
    protocol = dataclasses.replace(PROTOCOLS["default"], lr_psnr="")
    row = measure(list(draws[1:]), pair, 4, protocol, Perceptual())
    assert row["spread_skill"] == pytest.approx(1, abs=0.02)
    # E MSE(sample) = 2 s^2, E MSE(mean of 5) = 1.2 s^2
    assert row["psnr_mean_image"] - row["psnr"] == pytest.approx(10 * np.log10(2 / 1.2), abs=0.1)
    assert row["psnr_best"] >= row["psnr"]
    wide = {**row, "spread_square": 4 * row["skill_square"]}
    pooled = means([{**row, "spread_square": 0 * row["skill_square"]}, wide])
    assert pooled["spread_skill"] == pytest.approx(np.sqrt(2))
    assert not set(SQUARES) & set(pooled)


def test_lpips_and_dists_are_wired(tmp_path):
    rng = np.random.default_rng(0)

    def weights(net):
        shapes = get_backbone(net).shapes()
        return {k: rng.normal(0, 0.05, s).astype(np.float32) for k, s in shapes.items()}

    np.savez(tmp_path / "alex.npz", **weights("alex"))
    np.savez(tmp_path / "vgg.npz", **weights("vgg"))
    ones = np.ones(1475, np.float32)
    np.savez(tmp_path / "dists.npz", alpha=ones, beta=ones)
    found = load_perceptual(
        [str(tmp_path / "alex.npz")],
        [str(tmp_path / "dists.npz"), str(tmp_path / "vgg.npz")],
        PROTOCOLS["default"],
    )
    assert any(note.startswith("lpips: version 0.1, alex") for note in found.notes)
    images = rng.integers(0, 256, (4, 40, 40, 3), dtype=np.uint8)
    hr, samples = images[0], list(images[1:])
    pair = {"hr": hr, "lr": resize(hr, 1 / 4, "stages")}
    got = measure(samples, pair, 4, PROTOCOLS["default"], found)
    params = metrics.load_lpips_weights(tmp_path / "alex.npz")
    want = np.mean([metrics.lpips(params, sample, hr) for sample in samples])
    assert got["lpips"] == pytest.approx(want, rel=1e-6)
    maps = metrics.lpips(params, jnp.asarray(images[1:]), hr, spatial=True)
    assert got["ntire_score"] == pytest.approx(metrics.ntire_diversity(maps)["score"], rel=1e-4)
    params = metrics.load_dists_weights(tmp_path / "dists.npz", tmp_path / "vgg.npz")
    want = np.mean([metrics.dists(params, sample, hr) for sample in samples])
    assert got["dists"] == pytest.approx(want, rel=1e-6)


def test_weights_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    nothing = load_perceptual(None, None, PROTOCOLS["default"])
    assert nothing.lpips is None and nothing.notes[0].startswith("lpips is not measured: ")
    for lpips, dists, message in (
        ([], None, "LPIPS: "),
        ([str(tmp_path / "no.npz")], None, "LPIPS: .*no.npz"),
        (None, [str(tmp_path / "no.npz")], "DISTS: .*no.npz"),
    ):
        with pytest.raises(EvaluationError, match=message):
            load_perceptual(lpips, dists, PROTOCOLS["default"])


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocols_say_what_they_do(name):
    protocol = get_protocol(name)
    lines = protocol.describe(4)
    assert lines[0].startswith(f"protocol {name}: ")
    for score in protocol.scores:
        assert f"  {score.describe(4)}" in lines and score.column in COLUMNS
        assert f"border {4 if score.shave else 0}" in score.describe(4)
    assert any(protocol.quantise in line for line in lines)
    assert all("\n" not in line and len(line) < 130 for line in lines)
    with pytest.raises(dataclasses.FrozenInstanceError):
        protocol.draws = 2


def test_unknown_protocol():
    with pytest.raises(ConfigError, match="unknown protocol 'srflw'; did you mean 'srflow'"):
        get_protocol("srflw")
