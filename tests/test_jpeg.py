"""JPEG against the arrays of DiffJPEG's code, of Pillow and of OpenCV."""

from __future__ import annotations

import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_tools import Table
from PIL import Image

from flowsr_jax.config import ConfigError
from flowsr_jax.data.degradations import diff_jpeg, jpeg_codec, jpeg_like, jpeg_tables
from flowsr_jax.math import jpeg as jpeg_module

QUALITIES = (90, 75, 50, 30, 10)
# One program per shape and rounding: the quality is traced.
jitted = functools.partial(jax.jit, static_argnames=("rounding", "luma_transposed"))(diff_jpeg)
jitted_like = jax.jit(jpeg_like)


@pytest.fixture(scope="module")
def golden(shared):
    return np.load(shared / "golden" / "jpeg.npz")


@pytest.fixture(scope="module")
def photo():
    y, x = np.mgrid[:37, :45] / 45
    noise = np.random.default_rng(0).uniform(-0.05, 0.05, (37, 45, 3))
    rgb = np.stack([x, y, 0.5 + 0.4 * np.sin(9 * x * y)], axis=-1)
    return np.clip(rgb + noise, 0, 1).astype(np.float32)


def floats(u8):
    return u8.astype(np.float32) / 255


def psnr(a, b):
    error = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    return 10 * np.log10(255**2 / np.mean(error**2))


def test_tables_golden(golden):
    table = Table("jpeg.npz: tables and the DCT")
    for q in golden["qualities"]:
        libjpeg, loose = jpeg_tables(int(q)), jpeg_tables(int(q), "diffjpeg")
        for i, name in enumerate("yc"):
            table.check(f"libjpeg_{name}_q{q}", libjpeg[i], golden[f"table/libjpeg_{name}_q{q}"], 0)
            wanted = golden[f"table/{name}_base"] * golden[f"table/factor_q{q}"]
            table.check(f"diffjpeg_{name}_q{q}", loose[i], wanted, 1e-12)
    block = golden["dct/block"].reshape(1, 64)
    coefficients = jpeg_module.dct_flat(block - 128)
    table.check("dct/matrix", jpeg_module.DCT, golden["dct/matrix"], 1e-12)
    table.check("dct/coef", coefficients.reshape(8, 8), golden["dct/coef"], 1e-6)
    exact = jpeg_module.dct_flat(block.astype(np.float64) - 128).reshape(8, 8)
    table.check("dct/coef_scipy_ortho", exact, golden["dct/coef_scipy_ortho"], 1e-12)
    back = jpeg_module.idct_flat(coefficients).reshape(8, 8) + 128
    table.check("dct/back", back, golden["dct/back"], 1e-5)
    rounded = jpeg_module.round_to(golden["diff_round/x"], "cubic")
    table.check("diff_round", rounded, golden["diff_round/y"], 1e-6)
    table.finish()


def test_tables_are_those_of_pillow():
    for quality in (1, 10, 49, 50, 51, 88, 100):
        file = io.BytesIO()
        Image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality)
        written = Image.open(file).quantization
        for i, table in enumerate(jpeg_tables(quality)):
            np.testing.assert_array_equal(table.ravel(), written[i])


def test_planes_and_coefficients_golden(golden):
    table = Table("jpeg.npz: planes and quantised blocks")
    x, quality = floats(golden["img/u8"]), int(golden["inter/quality"])
    planes = jpeg_module.ycbcr_planes(x)
    blocks = jpeg_module.diff_jpeg_encode(x, quality, "hard")
    for i, name in enumerate(("y", "cb", "cr")):
        table.check(f"inter/{name}", planes[i], golden[f"inter/{name}"], 1e-6)
        table.check(f"inter/{name}_q", blocks[i], golden[f"inter/{name}_q"], 0)
    table.finish()


@pytest.mark.parametrize("kind", ["numpy", "jit"])
def test_diff_jpeg_golden(golden, kind):
    run = diff_jpeg if kind == "numpy" else jitted
    table, pairs = Table(f"jpeg.npz: DiffJPEG, {kind}"), []
    for group in ("img", "odd"):
        x = floats(golden[f"{group}/u8"])
        for q in QUALITIES if group == "img" else (90, 75):
            quality = q if kind == "numpy" else jnp.float32(q)
            pairs.append((f"{group}/@_q{q}", x, quality))
    quality = golden["batch/quality"]
    pairs.append(("batch/@", floats(golden["batch/u8"]), quality))
    for name, x, quality in pairs:
        for rounding, key in (("cubic", "diff"), ("hard", "round")):
            found, wanted = run(x, quality, rounding=rounding), golden[name.replace("@", key)]
            flipped = np.abs(np.asarray(found) - wanted).max(axis=-1) > 1e-4
            if rounding == "hard" and flipped.any():  # a tie that rounds the other way
                print(f"{name}: {flipped.mean():.2%} of the pixels flipped")
                assert flipped.mean() <= 0.01
                found, wanted = np.asarray(found)[~flipped], wanted[~flipped]
            table.check(name.replace("@", key), found, wanted, 1e-5, absolute=True)
    table.finish()


def test_closeness_to_the_codec_golden(golden):
    table = Table("jpeg.npz: closeness of DiffJPEG to Pillow (dB, levels)")
    for group in ("img", "odd"):
        u8 = golden[f"{group}/u8"]
        for q in QUALITIES:
            real = jpeg_codec(u8, q)
            hard, soft = (255 * diff_jpeg(floats(u8), q, r) for r in ("hard", "cubic"))
            found = [
                psnr(hard, real), psnr(soft, real), psnr(u8, real), np.abs(hard - real).mean(),
                np.abs(hard - real).max(), np.abs(soft - real).mean(),
            ]  # fmt: skip
            table.check(f"{group}/closeness_q{q}", found, golden[f"{group}/closeness_q{q}"], 1e-4)
    table.finish()


def test_gradient_golden(golden):
    x, w, quality = floats(golden["img/u8"]), golden["grad/w"], float(golden["grad/quality"])
    gradient = jax.grad(lambda v: jnp.sum(jitted(v, quality) * w))(x)
    table = Table("jpeg.npz: gradient")
    table.check("grad/dx", gradient, golden["grad/dx"], 1e-4)
    table.finish()


def test_codec_equals_pillow_and_opencv(golden):
    for group in ("img", "odd"):
        for q in QUALITIES if group == "img" else (90, 75):
            found = jpeg_codec(golden[f"{group}/u8"], q)
            for reader in ("pil", "cv2"):
                np.testing.assert_array_equal(found, golden[f"{group}/{reader}_q{q}"])


@pytest.mark.parametrize("kind", ["numpy", "jit"])
def test_jpeg_like_is_close_to_pillow(golden, kind):
    run = jpeg_like if kind == "numpy" else jitted_like
    crops = {"img": golden["img/u8"], "odd": golden["odd/u8"], "39x51": golden["odd/u8"][:39, :51]}
    print("\njpeg_like against Pillow")
    for group, u8 in crops.items():
        for q in QUALITIES:
            real = jpeg_codec(u8, q)
            found = 255 * np.asarray(run(floats(u8), q))
            np.testing.assert_allclose(found, np.round(found), atol=1e-3)  # 8-bit levels
            error = np.abs(found - real)
            near, decibel = (error < 1.5).mean(), psnr(found, real)
            print(f"  {group} Q{q}: {decibel:.1f} dB, mean {error.mean():.4f}, within 1 {near:.1%}")
            assert decibel > 37.5 and error.mean() < 1.1 and near > 0.74
            loose = 255 * diff_jpeg(floats(u8), q, "hard")
            assert decibel > psnr(loose, real) + 3


def test_jpeg_like_takes_a_quality_per_image(photo):
    batch = np.stack([photo, photo[::-1]])
    quality = np.array([20, 85])
    both = jpeg_like(batch, quality)
    for i in range(2):
        np.testing.assert_array_equal(both[i], jpeg_like(batch[i], int(quality[i])))
    mapped = np.asarray(jax.jit(jax.vmap(jpeg_like))(batch, quality))
    assert (np.abs(mapped - both) > 1e-4).mean() < 0.01


def test_straight_through_gradients(photo):
    w = np.random.default_rng(1).normal(size=photo.shape).astype(np.float32)
    gradient = jax.jit(jax.grad(lambda v: jnp.sum(jpeg_like(v, 40) * w)))(photo)
    np.testing.assert_array_equal(gradient, w)

    def total(v, rounding):
        return jnp.sum(jitted(v, 40, rounding=rounding) * w)

    assert not np.any(jax.grad(total)(photo, "hard"))
    np.testing.assert_allclose(jitted(photo, 40, "ste"), jitted(photo, 40, "hard"), atol=1e-6)
    # With gradient 1 through the rounding only colour, chroma means and clipping are left:
    # grey directions inside the range pass unchanged.
    grey = np.full((16, 16, 3), 0.5, np.float32)
    ones = jax.grad(lambda v: jnp.sum(jitted(v, 40, "ste")))(grey)
    np.testing.assert_allclose(ones.sum(-1), 3, atol=1e-3)


def test_vmap_and_batches_agree(photo):
    batch, quality = np.stack([photo, photo[:, ::-1]]), np.array([35.0, 82.5], np.float32)
    found = jax.jit(jax.vmap(diff_jpeg))(batch, quality)
    np.testing.assert_allclose(found, diff_jpeg(batch, quality), atol=1e-5)


def test_corrected_luma_table_is_closer_to_the_codec(photo):
    u8 = np.round(photo * 255).astype(np.uint8)
    wide = np.tile(u8[:32, :32], (1, 2, 1))
    real = jpeg_codec(wide, 30)
    as_released, corrected = (
        psnr(255 * diff_jpeg(floats(wide), 30, "hard", flag), real) for flag in (True, False)
    )
    print(f"transposed {as_released:.2f} dB, corrected {corrected:.2f} dB")
    assert corrected > as_released


def test_float64_and_numbers_outside_the_range(photo):
    wide = photo.astype(np.float64) * 1.5 - 0.2
    out = diff_jpeg(wide, 60)
    assert out.dtype == np.float64 and out.min() >= 0 and out.max() <= 1


@pytest.mark.parametrize("quality", [0, 100, -3, np.nan, "75", np.array([50.0, 0.0])])
def test_diff_jpeg_refuses_qualities(photo, quality):
    batch = np.stack([photo, photo])
    with pytest.raises(ValueError, match="above 0 and below 100"):
        diff_jpeg(batch, quality)


@pytest.mark.parametrize("quality", [0, 101, 75.5, True, None])
def test_libjpeg_refuses_qualities(photo, quality):
    for call in (
        lambda: jpeg_tables(quality),
        lambda: jpeg_like(photo, quality),
        lambda: jpeg_codec(np.zeros((8, 8, 3), np.uint8), quality),
    ):
        with pytest.raises(ValueError, match=r"whole number in 1\.\.100"):
            call()


def test_bad_images_and_options(photo):
    for function in (diff_jpeg, jpeg_like):
        with pytest.raises(ValueError, match="float32 or float64"):
            function(np.zeros((8, 8, 3), np.uint8), 50)
        with pytest.raises(ValueError, match=r"\[H,W,3\]"):
            function(photo[..., :2], 50)
        with pytest.raises(ValueError, match="one per image"):
            function(photo, np.array([50, 60]))
    with pytest.raises(ValueError, match="uint8"):
        jpeg_codec(photo, 50)
    with pytest.raises(ConfigError, match="rounding = 'soft'"):
        diff_jpeg(photo, 50, rounding="soft")
    with pytest.raises(ConfigError, match="style = 'mozjpeg'"):
        jpeg_tables(50, "mozjpeg")
