"""Rescaling models are measured on LR images of their own; models without LR by likelihood."""

import importlib.util
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from fake_family import FAMILY as FAKE
from fake_family import FakeConfig

import flowsr_jax
from flowsr_jax import metrics
from flowsr_jax.data.transforms import whole_cells
from flowsr_jax.drawing import image_key
from flowsr_jax.evaluation import EvaluationError, evaluate_folder
from flowsr_jax.evaluation.draw import make_lr
from flowsr_jax.evaluation.measure import lr_fidelity
from flowsr_jax.evaluation.protocols import resize
from flowsr_jax.files.images import read_rgb, write_png
from flowsr_jax.files.sheet import cut
from flowsr_jax.models import get_family
from flowsr_jax.models.glow import GlowConfig
from flowsr_jax.models.irn import IRNConfig
from flowsr_jax.train.evaluate import evaluate
from flowsr_jax.train.report import write_report
from flowsr_jax.upscaling import upscale_image

ROOT = Path(__file__).parents[1]
IRN, GLOW = get_family("irn"), get_family("glow")
FIDELITY = ("lr_fidelity_psnr", "lr_fidelity_ssim", "lr_fidelity_psnr_y", "lr_fidelity_ssim_y")


def _make(scale):
    params = IRN.init(IRNConfig(scale=scale, blocks=(1,), growth=4), jax.random.key(0))
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: x + 0.03 * rng.standard_normal(x.shape).astype(np.float32), params
    )


@pytest.fixture(scope="module")
def tiny():
    return _make(2)


@pytest.fixture(scope="module")
def main():
    spec = importlib.util.spec_from_file_location(
        "launch_evaluate", ROOT / "launch" / "evaluate.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def _picture(height, width, seed=0):
    small = np.random.default_rng(seed).integers(0, 256, (height // 2, width // 2, 3), np.uint8)
    return flowsr_jax.imresize(small, output_shape=(height, width))


@pytest.fixture
def folder(tmp_path):
    """Two images; their sides are no multiples of the scale."""
    for i, size in enumerate(((37, 41), (37, 41))):
        path = tmp_path / "hr" / f"{'ab'[i]}.png"
        path.parent.mkdir(exist_ok=True)
        write_png(path, _picture(*size, seed=i))
    return tmp_path / "hr"


def _float(image):
    return image[None].astype(np.float32) / 255


def _by_hand(params, path, draws, seed):
    """HR, both LR images and the draws of one image, from the public functions."""
    hr = read_rgb(path)
    hr = hr[: hr.shape[0] // 2 * 2, : hr.shape[1] // 2 * 2]
    own = np.asarray(flowsr_jax.downscale(params, _float(hr)))[0]
    key = image_key(seed, path.name)
    images = upscale_image(params, own, key, num_samples=draws, temperature=1.0)
    return hr, flowsr_jax.imresize(hr, 1 / 2, uint8_stages=False), own, images


def test_official_protocol(folder, tmp_path, tiny, main):
    """RGB and luma with border s, means of 5 draws; LR images uncropped, against bicubic."""
    flowsr_jax.save(tiny, tmp_path / "model")
    call = ["-n", str(tmp_path / "model"), "-i", str(folder), "-o", str(tmp_path / "out")]
    assert main([*call, "--protocol", "irn", "--seed", "2", "--temperatures", "1,0"]) == 0
    record = json.loads((tmp_path / "out" / "summary.json").read_text())
    bicubic, drawn, still = record["rows"]
    assert [row["draws"] for row in record["rows"]] == [1, 5, 1]
    want = {name: [] for name in ("psnr", "ssim", "psnr_y", "ssim_y", *FIDELITY)}
    plain, zero, poor = [], [], []
    for path in sorted(folder.iterdir()):
        hr, reference, own, images = _by_hand(tiny, path, 5, 2)
        for suffix, y in (("", False), ("_y", True)):
            for name, metric in (("psnr", metrics.psnr), ("ssim", metrics.ssim)):
                values = [metric(image, hr, y=y, crop=2) for image in images]
                want[name + suffix].append(np.mean(values))
                want[f"lr_fidelity_{name}{suffix}"].append(metric(own, reference, y=y))
        up = flowsr_jax.imresize(reference, 2, uint8_stages=False)
        plain.append(metrics.psnr(up, hr, y=True, crop=2))
        for values, lr in ((zero, own), (poor, reference)):
            image = np.asarray(flowsr_jax.upscale(tiny, lr[None]))[0]  # no key: z = 0
            values.append(metrics.psnr(metrics.to_uint8(image), hr, crop=2))
    for name, values in want.items():
        assert drawn[name] == pytest.approx(np.mean(values), rel=1e-6), name
    assert bicubic["psnr_y"] == pytest.approx(np.mean(plain), abs=1e-9)
    assert still["psnr"] == pytest.approx(np.mean(zero), abs=1e-4)
    assert abs(np.mean(zero) - np.mean(poor)) > 0.01  # of the bicubic LR image: another number
    assert 10 < drawn["lr_fidelity_psnr"] < 60  # the two LR images differ
    assert {c: still[c] for c in FIDELITY} == {c: drawn[c] for c in FIDELITY}
    assert not set(FIDELITY) & set(bicubic)
    text = "\n".join(record["lines"])
    assert "the 8-bit LR image that it makes of HR" in text and "lr_fidelity_*: " in text


def test_default_protocol_keeps_the_bicubic_lr_as_reference(folder, tmp_path, tiny):
    result = evaluate_folder(folder, tmp_path / "out", params=tiny, num_samples=1, limit=1)
    bicubic, row = result.rows
    path = folder / "a.png"
    hr = whole_cells(read_rgb(path), 2)
    reference = flowsr_jax.imresize(hr, 1 / 2)
    own = np.asarray(flowsr_jax.downscale(tiny, _float(hr)))[0]
    np.testing.assert_array_equal(make_lr(tiny, hr), own)
    sr = upscale_image(tiny, own, image_key(0, "a.png"))[0]
    assert row["method"] == "T=1" and row["psnr"] == metrics.psnr(sr, hr)
    assert row["lr_psnr"] == metrics.lr_psnr(sr, reference, 2)
    assert {c: row[c] for c in FIDELITY} == lr_fidelity(own, reference)
    assert bicubic["psnr"] == metrics.psnr(flowsr_jax.imresize(reference, 2), hr)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"bits": True}, "bits/dim needs a flow: .* family 'irn' has none"),
        ({"lr": "LR"}, "lr = 'LR': family 'irn' makes its own LR images of HR"),
        ({"scale": 4}, "scale = 4: this model has scale 2 only"),
        ({"temperatures": (-1.0,)}, "temperature must be finite and >= 0"),
    ],
)
def test_refusals(folder, tmp_path, tiny, options, message):
    with pytest.raises(EvaluationError, match=message):
        evaluate_folder(folder, tmp_path / "out", params=tiny, **options)


@pytest.mark.parametrize("family", ["irn", "glow"])
def test_models_of_scale_1_are_refused(folder, tmp_path, family):
    if family == "irn":
        params = _make(1)
    else:
        params = GLOW.init(GlowConfig(levels=1, steps=1, hidden=4), jax.random.key(0))
    with pytest.raises(EvaluationError, match=f"family '{family}' does not enlarge images"):
        evaluate_folder(folder, tmp_path / "out", params=params)


# Bicubic & Bicubic of the IRN paper's table 1, on luma.  Its luma may be rounded.
@pytest.mark.parametrize("scale, psnr, ssim", [(2, 33.66, 0.9299), (4, 28.42, 0.8104)])
def test_published_bicubic_rows(shared, tmp_path, scale, psnr, ssim):
    set5 = shared / "data" / "Set5"
    if not set5.is_dir():
        pytest.skip("no Set5")
    for protocol in ("irn", "matlab"):
        result = evaluate_folder(set5, tmp_path / protocol, scale=scale, protocol=protocol)
        row = result.rows[0]
        assert result.measured == 5
        assert row["psnr_y"] == pytest.approx(psnr, abs=0.03)
        assert row["ssim_y"] == pytest.approx(ssim, abs=0.001)


def test_bicubic_row_of_set14(shared, tmp_path):
    """Five of the fourteen images, so no published mean; equal to the formulas of the protocol."""
    set14 = shared / "data" / "Set14"
    if not set14.is_dir():
        pytest.skip("no Set14")
    row = evaluate_folder(set14, tmp_path / "out", scale=4, protocol="irn", limit=2).rows[0]
    want = []
    for path in sorted(set14.glob("*.png"))[:2]:
        hr = read_rgb(path)
        up = resize(resize(hr, 1 / 4, "matlab"), 4, "matlab")
        a, b = ((x / 255 @ np.array([65.481, 128.553, 24.966]) + 16)[4:-4, 4:-4] for x in (up, hr))
        want.append(20 * np.log10(255 / np.sqrt(np.mean((a - b) ** 2))))
    assert row["psnr_y"] == pytest.approx(np.mean(want), abs=1e-6)


def _pairs(scale, count=2):
    found = []
    for i in range(count):
        hr = _picture(32, 24, seed=i)
        lr = flowsr_jax.imresize(hr, 1 / scale) if scale > 1 else hr
        found.append({"name": f"{i}", "hr": hr, "lr": lr})
    return found


def test_validation_feeds_a_rescaling_model_its_own_lr(tmp_path, tiny):
    pairs, shown = _pairs(2), []
    views, key = IRN.views(tiny.config, "rescale"), jax.random.key(3)
    report = evaluate(
        tiny, IRN, views, pairs, key, 2, show=lambda pair, images: shown.append((pair, images))
    )
    rows = {row["view"]: row for row in report.rows}
    assert list(rows) == ["bicubic", "T=1", "z=0"]
    psnr, lr_psnr, bicubic = [], [], []
    for pair in pairs:
        own = np.asarray(flowsr_jax.downscale(tiny, _float(pair["hr"])))[0]
        image = np.asarray(flowsr_jax.upscale(tiny, own[None]))[0]
        psnr.append(metrics.psnr(metrics.to_uint8(image), pair["hr"]))
        lr_psnr.append(metrics.psnr(own, pair["lr"]))
        bicubic.append(metrics.psnr(flowsr_jax.imresize(pair["lr"], 2), pair["hr"]))
    assert rows["z=0"]["psnr"] == pytest.approx(np.mean(psnr), abs=1e-3)
    assert rows["z=0"]["lr_psnr"] == rows["T=1"]["lr_psnr"] == pytest.approx(np.mean(lr_psnr))
    assert rows["bicubic"]["psnr"] == pytest.approx(np.mean(bicubic))
    assert rows["bicubic"]["lr_psnr"] is None
    assert rows["T=1"]["draws"] == 2 and rows["T=1"]["diversity"] > 0
    assert report.own_lr and report.bits_per_dim is None
    assert report.score("auto") == rows["T=1"]["psnr"]
    assert f"LR {np.mean(lr_psnr):.2f} dB" in str(report)

    write_report(report, str(tmp_path), {"step": 1})
    text = (tmp_path / "result.md").read_text()
    assert "LR-PSNR is their PSNR against the LR images of the data" in text
    assert f"| bicubic | {rows['bicubic']['psnr']:.2f} |" in text and "bits/dim" not in text
    columns = cut(*shown[0])
    names = [name for name, _ in columns]
    assert names == ["bicubic LR", "LR", "bicubic", "T=1 #1", "T=1 #2", "z=0", "HR"]
    own = np.asarray(flowsr_jax.downscale(tiny, _float(pairs[0]["hr"])))[0]
    for (_, picture), lr in zip(columns, (pairs[0]["lr"], own), strict=False):
        np.testing.assert_array_equal(picture, lr.repeat(2, axis=0).repeat(2, axis=1))


def test_validation_of_grey_lr_images():
    """IRN-Color: the grey image against the luminance, which is the first row too."""
    params, (pair,), shown = _make(1), _pairs(1, 1), []
    views = IRN.views(params.config, "rescale")
    report = evaluate(
        params, IRN, views, [pair], jax.random.key(0), show=lambda *args: shown.append(args)
    )
    grey = np.rint(pair["hr"] @ [0.299, 0.587, 0.114]).astype(np.uint8)
    own = np.asarray(flowsr_jax.downscale(params, _float(pair["hr"])))[0]
    base, row = report.rows
    assert (base["view"], row["view"]) == ("grey", "z=0")
    assert base["psnr"] == metrics.psnr(np.stack([grey] * 3, axis=-1), pair["hr"])
    assert row["lr_psnr"] == metrics.psnr(own[..., 0], grey)
    columns = dict(cut(*shown[0]))
    assert list(columns) == ["LR", "grey", "z=0", "HR"]
    np.testing.assert_array_equal(columns["LR"], np.repeat(own, 3, axis=-1))


@pytest.mark.parametrize("classes", [0, 3])
def test_validation_of_models_that_draw_from_nothing(tmp_path, classes):
    config = GlowConfig(levels=1, steps=1, hidden=4, classes=classes)
    params = GLOW.init(config, jax.random.key(0))
    pairs, shown = _pairs(1), []
    pairs = [{**pair, "label": i + 1} for i, pair in enumerate(pairs)]
    key = jax.random.key(5)
    report = evaluate(
        params, GLOW, GLOW.views(config, "nll"), pairs, key, show=lambda *args: shown.append(args)
    )
    bits = [
        GLOW.bits_per_dim(
            params,
            _float(pair["hr"]),
            key=jax.random.fold_in(key, i),
            **({"label": pair["label"]} if classes else {}),
        )[0]
        for i, pair in enumerate(pairs)
    ]
    assert report.bits_per_dim == pytest.approx(np.mean(bits), rel=1e-5)
    assert report.gaussian_bits_per_dim is None and not report.own_lr
    assert [row["view"] for row in report.rows] == ["T=0.7", "T=1"]
    assert {row[c] for row in report.rows for c in ("psnr", "ssim", "lr_psnr")} == {None}
    assert report.score("auto") == -report.bits_per_dim and report.score("psnr") is None
    assert str(report) == f"bits/dim {report.bits_per_dim:.4f}"
    assert set(report.scalars()) == {
        "valid/T=0.7/nonfinite",
        "valid/T=1/nonfinite",
        "valid/bits_per_dim",
    }
    write_report(report, str(tmp_path), {"step": 1})
    text = (tmp_path / "result.md").read_text()
    assert f"bits/dim {report.bits_per_dim:.3f}\n" in text and "PSNR" not in text
    names = [name for name, _ in cut(*shown[0])]
    assert names == ["T=0.7", "T=1", "HR"]


def test_other_models_are_given_the_lr_of_the_data():
    params = FAKE.init(FakeConfig(), jax.random.key(0))
    (pair,), shown = _pairs(2, 1), []
    view = flowsr_jax.models.View("v", FAKE.sample)
    report = evaluate(
        params, FAKE, [view], [pair], jax.random.key(0), show=lambda *args: shown.append(args)
    )
    image = metrics.to_uint8(pair["lr"].repeat(2, axis=0).repeat(2, axis=1))
    assert report.rows[1]["psnr"] == metrics.psnr(image, pair["hr"])
    assert report.rows[1]["lr_psnr"] == metrics.lr_psnr(image, pair["lr"], 2)
    assert "own_lr" not in shown[0][0] and cut(*shown[0])[0][0] == "LR"


def test_restoring_models_are_compared_with_their_input():
    """Scale 1: there is nothing to downsample, and the first row is the input itself."""
    params = FAKE.init(FakeConfig(), jax.random.key(0))
    hr = _picture(16, 16)
    pair = {"name": "a", "hr": hr, "lr": hr // 2}
    view = flowsr_jax.models.View("v", lambda params, lr, key: 2 * lr)
    report = evaluate(params, FAKE, [view], [pair], jax.random.key(0))
    assert [row["view"] for row in report.rows] == ["input", "v"]
    assert report.rows[0]["psnr"] == metrics.psnr(hr // 2, hr) < report.rows[1]["psnr"]
    assert [row["lr_psnr"] for row in report.rows] == [None, None]
