"""Metrics against the golden values, their definitions, and what they refuse.

tests/data/metrics_small.npz is a cut of the golden metrics.npz and diversity.npz (three
pairs, all edge, quantisation and colour entries, a corner of the samples).
"""

import functools
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from golden_tools import Table

from flowsr_jax import metrics

SMALL = Path(__file__).parent / "data" / "metrics_small.npz"
Y, CROP = {"y": True}, {"crop": 4}

# golden key: (function, largest error allowed)
VALUES = {
    "psnr_rgb": (metrics.psnr, 1e-9),
    "psnr_rgb_crop4": (functools.partial(metrics.psnr, **CROP), 1e-9),
    "psnr_y": (functools.partial(metrics.psnr, **Y), 5e-6),  # golden Y in float32
    "psnr_y_crop4": (functools.partial(metrics.psnr, **Y, **CROP), 5e-6),
    "psnr_rgb_pt_eps": (functools.partial(metrics.psnr, eps=1e-8), 1e-9),
    "psnr_y_pt_eps": (functools.partial(metrics.psnr, **Y, eps=1e-8), 5e-6),
    "irn_psnr_rgb_crop4": (functools.partial(metrics.psnr, **CROP), 1e-9),
    "irn_psnr_y_crop4": (functools.partial(metrics.psnr, **Y, **CROP), 1e-9),
    "sr3_psnr": (metrics.psnr, 1e-9),
    "skimage_psnr": (metrics.psnr, 1e-9),
    "ssim_rgb": (metrics.ssim, 1e-10),
    "ssim_rgb_crop4": (functools.partial(metrics.ssim, **CROP), 1e-10),
    "ssim_y": (functools.partial(metrics.ssim, **Y), 1e-6),
    "ssim_y_crop4": (functools.partial(metrics.ssim, **Y, **CROP), 1e-6),
    "ssim_rgb_pt": (metrics.ssim, 1e-10),
    "ssim_y_pt": (functools.partial(metrics.ssim, **Y), 1e-6),
    "irn_ssim_rgb_crop4": (functools.partial(metrics.ssim, **CROP), 1e-10),
    "irn_ssim_y_crop4": (functools.partial(metrics.ssim, **Y, **CROP), 1e-10),
    "sr3_ssim": (metrics.ssim, 1e-10),
    "piq_ssim": (metrics.ssim, 1e-10),
    "skimage_ssim_gauss": (metrics.ssim, 1e-10),
    "skimage_ssim_srflow": (metrics.ssim_skimage, 1e-10),
}
for _s in (2, 4, 8):
    VALUES |= {
        f"lr_psnr_x{_s}": (functools.partial(metrics.lr_psnr, scale=_s), 1e-9),
        f"lr_psnr_float_x{_s}": (functools.partial(metrics.lr_psnr, scale=_s, uint8=False), 1e-9),
        f"consistency_mse1e5_x{_s}": (functools.partial(metrics.consistency_mse, scale=_s), 1e-9),
        f"consistency_mse1e5_uint8_x{_s}": (
            functools.partial(metrics.consistency_mse, scale=_s, uint8=True),
            1e-9,
        ),
    }


@pytest.fixture(scope="module")
def small():
    with np.load(SMALL) as file:
        return {key: file[key] for key in file.files}


def _pairs(golden):
    for pair in golden["pairs"]:
        yield golden[f"dist/{pair}"], golden[f"ref/{pair.split('/')[0]}"]


def _worst(golden, key):
    function, _ = VALUES[key]
    got = [function(a, b) for a, b in _pairs(golden)]
    return np.abs(np.array(got) - golden[f"val/{key}"]).max()


@pytest.mark.parametrize("key", VALUES)
def test_golden_small(small, key):
    assert _worst(small, key) <= VALUES[key][1]


def test_golden_all(shared):
    with np.load(shared / "golden" / "metrics.npz") as file:
        golden = {key: file[key] for key in file.files}
    worst = {key: _worst(golden, key) for key in VALUES}
    for key, error in worst.items():
        print(f"{key:32s} {error:.1e}")
    assert all(worst[key] <= limit for key, (_, limit) in VALUES.items())


def test_golden_y_pairs(shared):
    with np.load(shared / "golden" / "metrics_y.npz") as golden:
        errors = {}
        for i in range(int(golden["n_pairs"])):
            gt, sr = golden[f"gt_rgb_u8_{i}"], golden[f"sr_rgb_u8_{i}"]
            crop, *wanted = golden["table"][i]
            got = {
                "psnr_rgb": metrics.psnr(sr, gt, crop=int(crop)),
                "ssim_rgb": metrics.ssim(sr, gt, crop=int(crop)),
                "psnr_y": metrics.psnr(sr, gt, y=True, crop=int(crop)),
                "ssim_y": metrics.ssim(sr, gt, y=True, crop=int(crop)),
            }
            assert list(got) == list(golden["table_columns"][1:])
            for (key, value), want in zip(got.items(), wanted, strict=True):
                errors[key] = max(errors.get(key, 0), abs(value - want))
            for name, image in (("gt", gt), ("sr", sr)):
                y = np.abs(metrics.rgb_to_y(image) - golden[f"{name}_y_{i}"]).max()
                errors["rgb_to_y"] = max(errors.get("rgb_to_y", 0), y)
    print({key: f"{error:.1e}" for key, error in errors.items()})
    assert max(errors.values()) < 1e-6


def test_golden_diversity(shared):
    with np.load(shared / "golden" / "diversity.npz") as golden:
        samples, gt = golden["samples"], golden["gt"]
        got = {
            "diversity/std_ddof0": metrics.diversity_std(samples),
            "diversity/std_ddof1": metrics.diversity_std(samples, ddof=1),
            "psnr_each": np.array([metrics.psnr(s, gt) for s in samples]),
            "ntire/LRPSNR_per_sample": np.array([metrics.lr_psnr(s, gt, 4) for s in samples]),
        }
        for key, value in got.items():
            error = np.abs(value - golden[key]).max()
            print(f"{key:32s} {error:.1e}")
            # The golden standard deviations come from a float32 map.
            assert error < (1e-5 if "std" in key else 1e-9)


def test_golden_protocols(shared):
    """What the toolkits derive from these numbers, and the integer forms of the colours."""
    table = Table("Protocols")
    with np.load(shared / "golden" / "diversity.npz") as golden:
        samples, gt = golden["samples"], golden["gt"]
        lr = [metrics.lr_psnr(s, gt, 4) for s in samples]
        table.check("ntire/LRPSNR_worst", min(lr), golden["ntire/LRPSNR_worst"], 1e-12)
        table.check("ntire/LRPSNR_mean", np.mean(lr), golden["ntire/LRPSNR_mean"], 1e-12)
        mean = (samples / 255).mean(axis=0)
        want = golden["psnr_of_float_mean_image"]
        table.check("psnr_of_float_mean_image", metrics.psnr(mean, gt), want, 1e-7)
        want = golden["diversity/sr3_style_std01"]
        table.check("sr3_style_std01", metrics.diversity_std(samples) / 255, want, 1e-6)
    with np.load(shared / "golden" / "metrics.npz") as golden:
        rgb = golden["ycc/rgb_u8"]
        y = np.rint(metrics.rgb_to_y(rgb))
        for key in ("basicsr_y_u8", "irn_y_u8"):
            table.check(key, y, golden[f"ycc/{key}"], 0, absolute=True)
        table.check("irn_u8", metrics.rgb_to_ycbcr(rgb), golden["ycc/irn_u8"], 0, absolute=True)
    table.finish()


def test_diversity_is_the_mean_of_the_map(small):
    samples = small["samples"]
    assert metrics.diversity_std(samples) == pytest.approx(small["std_map_ddof0"].mean(), abs=1e-5)
    assert metrics.diversity_std(list(samples / 255)) == metrics.diversity_std(samples)
    assert metrics.diversity_std(samples[:1]) == 0
    ratio = metrics.diversity_std(samples, ddof=1) / metrics.diversity_std(samples)
    assert ratio == pytest.approx(np.sqrt(10 / 9))
    with pytest.raises(ValueError, match="ddof = 1 must lie in 0..0 for 1 samples"):
        metrics.diversity_std(samples[:1], ddof=1)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("key", VALUES)
def test_float_form_gives_the_same_number(small, key, dtype):
    function, _ = VALUES[key]
    a, b = next(_pairs(small))
    as_float = [x.astype(dtype) / dtype(255) for x in (a, b)]
    assert function(*as_float) == function(a, b)
    assert function(a, as_float[1]) == function(a, b)


def test_real_floats_are_not_rounded():
    a = np.full((16, 16, 3), 0.5)
    assert metrics.psnr(a, a + 0.1 / 255) == pytest.approx(20 * np.log10(2550))
    assert metrics.psnr(a + 0.6, a + 0.5) == pytest.approx(20)  # overshoot is not clipped


def test_edges(small):
    same = small["ref/flower"]
    black, white = np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 3), 255, np.uint8)
    got = {
        "identical_ssim": metrics.ssim(same, same),
        "identical_psnr": metrics.psnr(same, same),
        "identical_psnr_pt_eps": metrics.psnr(same, same, eps=1e-8),
        "black_white_psnr": metrics.psnr(black, white),
        "black_white_ssim": metrics.ssim(black, white),
        "black_white_ssim_skimage": metrics.ssim_skimage(black, white),
    }
    for key, value in got.items():
        assert value == pytest.approx(float(small[f"edge/{key}"]), abs=1e-12), key
    assert metrics.ssim(same, 255 - same) < 0
    assert metrics.psnr(same[..., 0], same[..., 0] ^ 1) == pytest.approx(20 * np.log10(255))


def test_quantisation(small):
    x = small["quant/x"]
    np.testing.assert_array_equal(metrics.to_uint8(x), small["quant/tensor2img_round"])
    np.testing.assert_array_equal(metrics.to_uint8(x, "truncate"), small["quant/srflow_trunc"])
    levels = np.arange(256, dtype=np.uint8)
    for dtype in (np.float32, np.float64):
        np.testing.assert_array_equal(metrics.to_uint8(levels.astype(dtype) / 255), levels)
    assert metrics.to_uint8(levels) is levels
    assert metrics.to_uint8(np.array([0.5, 2, -1], ml_dtypes.bfloat16)).tolist() == [128, 255, 0]


def test_colours(small):
    rgb = small["ycc/rgb_u8"]
    ycc, unit = metrics.rgb_to_ycbcr(rgb), metrics.rgb_to_ycbcr(rgb / 255)
    np.testing.assert_array_equal(ycc, small["ycc/basicsr_u8"])
    back = metrics.ycbcr_to_rgb(small["ycc/basicsr_u8"])
    wrapped = small["ycc/back_rgb_u8"]
    differ = back != wrapped
    assert differ.sum() == 2 and set(back[differ]) <= {0, 255}  # the published code wraps
    errors = {
        "basicsr_f32": np.abs(unit - small["ycc/basicsr_f32"]).max(),
        "pt_f32": np.abs(unit - small["ycc/pt_f32"]).max(),
        "irn_y_f64": np.abs(metrics.rgb_to_y(rgb / 255) - small["ycc/irn_y_f64"]).max(),
        "basicsr_y_f32": np.abs(metrics.rgb_to_y(rgb) / 255 - small["ycc/basicsr_y_f32"]).max(),
        "back_rgb_f32": np.abs(metrics.ycbcr_to_rgb(unit) - small["ycc/back_rgb_f32"]).max(),
    }
    print({key: f"{error:.1e}" for key, error in errors.items()})
    assert max(errors.values()) < 3e-7 and errors["irn_y_f64"] < 1e-12


def test_given_lr_is_compared_uncropped():
    """SRFlow's protocol: the file itself is the reference, whatever its size."""
    rng = np.random.default_rng(0)
    lr = rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)
    sr = lr.repeat(4, axis=0).repeat(4, axis=1)
    wanted = metrics.psnr(metrics.consistency.imresize(sr, 1 / 4), lr)
    assert metrics.lr_psnr(sr, lr, 4) == wanted
    changed = lr.copy()
    changed[-1, -1] ^= 128  # 9x7 would be cropped away to multiples of 8
    assert metrics.lr_psnr(sr, changed, 4) < wanted
    mse = metrics.consistency_mse(sr, lr, 4, uint8=True)
    assert mse == pytest.approx(1e5 * 10 ** (-wanted / 10))


def test_hr_reference_is_cropped_to_multiples_of_8():
    rng = np.random.default_rng(1)
    hr = rng.integers(0, 256, (37, 43, 3), dtype=np.uint8)
    sr = rng.integers(0, 256, (32, 40, 3), dtype=np.uint8)
    larger = np.pad(sr, ((0, 8), (0, 4), (0, 0)))
    assert metrics.lr_psnr(sr, hr, 4) == metrics.lr_psnr(larger, hr, 4)
    assert metrics.lr_psnr(sr, hr, 4) == metrics.lr_psnr(sr, hr[:32, :40], 4)
    assert metrics.lr_psnr(hr, hr, 4) == np.inf


IMAGE = np.zeros((12, 12, 3), np.uint8)
REFUSED = {
    "other shapes": (lambda: metrics.psnr(IMAGE, IMAGE[:-1]), "one shape"),
    "a batch": (lambda: metrics.psnr(IMAGE[None], IMAGE[None]), r"\(1, 12, 12, 3\)"),
    "0..255 floats": (lambda: metrics.psnr(IMAGE + 128.0, IMAGE), "0,1.; its floats span 128"),
    "integers": (lambda: metrics.psnr(IMAGE.astype(int), IMAGE), "dtype int64"),
    "not finite": (lambda: metrics.ssim(IMAGE * np.nan, IMAGE), "432 values not finite"),
    "crop": (lambda: metrics.psnr(IMAGE, IMAGE, crop=6), "crop = 6"),
    "negative crop": (lambda: metrics.psnr(IMAGE, IMAGE, crop=-1), "crop = -1"),
    "eps": (lambda: metrics.psnr(IMAGE, IMAGE, eps=-1), "eps = -1"),
    "y of grey": (lambda: metrics.psnr(IMAGE[..., 0], IMAGE[..., 0], y=True), "needs RGB"),
    "small": (lambda: metrics.ssim(IMAGE, IMAGE, crop=1), "10x10 .* 11x11"),
    "smaller": (lambda: metrics.ssim_skimage(IMAGE, IMAGE, crop=3), "6x6 .* 7x7"),
    "mode": (lambda: metrics.to_uint8(IMAGE / 255, "floor"), "'floor' is not one of"),
    "nan": (lambda: metrics.to_uint8(IMAGE * np.nan), "not finite"),
    "channels": (lambda: metrics.rgb_to_y(IMAGE[..., :2]), "3 channels"),
    "scale": (lambda: metrics.lr_psnr(IMAGE, IMAGE, 1.5), "scale = 1.5"),
    "sizes": (lambda: metrics.lr_psnr(IMAGE, IMAGE[:2], 4), "neither as its LR"),
    "no samples": (lambda: metrics.diversity_std(np.zeros((0, 4, 4, 3))), "must be"),
}


@pytest.mark.parametrize("label", REFUSED)
def test_refused(label):
    call, message = REFUSED[label]
    with pytest.raises(ValueError, match=message):
        call()
