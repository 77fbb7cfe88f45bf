"""Back-projection: the LR is hit, by the smallest change, also when the image comes in strips."""

import numpy as np
import pytest

from flowsr_jax.math.back_projection import back_project
from flowsr_jax.math.resize import imresize
from flowsr_jax.metrics import lr_psnr, to_uint8
from flowsr_jax.upscaling.finish import LowResolutionError, Projector, Window


def _noisy(height, width, scale, seed=0, spread=0.02):
    """An LR of 8 bits with black and white parts, and an image that roughly has it."""
    rng = np.random.default_rng(seed)
    waves = np.sin(np.arange(height)[:, None] / 5) + np.cos(np.arange(width) / 4)
    lr = to_uint8((0.5 + 0.35 * waves)[..., None] + 0.02 * rng.standard_normal((height, width, 3)))
    sr = imresize(lr / 255, scale)
    return sr + spread * rng.standard_normal(sr.shape), lr


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 2), (20, 13)])
def test_one_step_hits_the_lr_where_nothing_clips(size, scale):
    rng = np.random.default_rng(scale)
    lr = rng.uniform(0.45, 0.55, (*size, 3))
    sr = rng.uniform(0.45, 0.55, (size[0] * scale, size[1] * scale, 3))
    out = back_project(sr, lr, scale, iterations=1)
    assert out.min() > 0 and out.max() < 1 and out.dtype == np.float64
    np.testing.assert_allclose(imresize(out, 1 / scale), lr, atol=1e-12)
    np.testing.assert_allclose(back_project(out, lr, scale), out, atol=1e-12)
    np.testing.assert_allclose(
        back_project(sr[..., 0], lr[..., 0], scale, iterations=1), out[..., 0], atol=1e-14
    )


def test_the_change_is_the_smallest():
    rng = np.random.default_rng(0)
    lr, sr = rng.uniform(0.4, 0.6, (4, 3)), rng.uniform(0.4, 0.6, (16, 12))
    down = np.stack([imresize(e.reshape(16, 12), 0.25).ravel() for e in np.eye(16 * 12)], axis=1)
    wanted = sr.ravel() + np.linalg.pinv(down) @ (lr.ravel() - down @ sr.ravel())
    np.testing.assert_allclose(back_project(sr, lr, 4).ravel(), wanted, atol=1e-12)


@pytest.mark.parametrize("scale", [2, 4])
def test_lr_psnr_rises_with_clipping_and_8_bits(scale):
    sr, lr = _noisy(60, 50, scale)
    assert sr.min() < 0 and sr.max() > 1 and (lr == 0).any() and (lr == 255).any()
    out = back_project(sr, lr / 255, scale)
    assert out.min() >= 0 and out.max() <= 1
    before, after = (lr_psnr(to_uint8(x), lr, scale) for x in (sr, out))
    print(f"{scale}x: LR-PSNR {before:.2f} -> {after:.2f} dB")
    assert after > max(58, before + 10)


def test_what_lies_far_away_does_not_matter():
    """A strip is corrected as in the whole image, 16 LR rows from its border."""
    sr, lr = _noisy(100, 40, 4)
    whole = back_project(sr, lr / 255, 4)
    part = back_project(sr[4 * 24 : 4 * 76], lr[24:76] / 255, 4)
    error = np.abs(part[4 * 16 : -4 * 16] - whole[4 * 40 : 4 * 60]).max()
    print(f"largest difference {error:.1e}")
    assert error < 1e-5


@pytest.mark.parametrize("rows", [[97], [20, 20, 57], [3] * 32 + [1], [40, 1, 1, 1, 54]])
@pytest.mark.parametrize("grey", [False, True])
def test_strips_are_corrected_as_the_whole(rows, grey):
    sr, lr = _noisy(97, 22, 2, seed=3)
    sr = np.stack([sr, sr[::-1]]).astype(np.float32)
    if grey:
        sr, lr = sr[..., 0], lr[..., 0]
    projector = Projector(lr, 2, 2)
    strips = np.split(sr, np.cumsum([2 * n for n in rows])[:-1], axis=1)
    out = list(projector.run(iter(strips)))
    assert all(x.dtype == np.float32 for x in out)
    out = np.concatenate(out, axis=1)
    whole = [back_project(x, lr / 255, 2) for x in sr]
    np.testing.assert_allclose(out, whole, atol=1e-4)
    for meter, images in ((projector.before, sr), (projector.after, out)):
        wanted = np.mean([lr_psnr(to_uint8(x), lr, 2) for x in images])
        np.testing.assert_allclose(meter.psnr(), wanted, rtol=1e-9)
    assert projector.after.psnr() > projector.before.psnr()


def test_16_bit_grey_is_hit_at_its_precision():
    rng = np.random.default_rng(0)
    fine = rng.integers(27000, 33000, (20, 20), dtype=np.uint16)
    sr = imresize(fine / 65535, 2)[None].astype(np.float32)
    out = np.concatenate(list(Projector(fine, 2, 1).run([sr])), axis=1)[0]
    np.testing.assert_allclose(imresize(out, 0.5), fine / 65535, atol=1e-6)


def test_an_exact_lr_is_infinitely_good():
    meter = LowResolutionError(np.full((6, 5, 3), 7, np.uint8), 2, 1)
    meter.push(np.full((1, 12, 10, 3), 7, np.uint8))
    assert meter.psnr() == np.inf


@pytest.mark.parametrize("rows", [[10], [1] * 10, [4, 1, 5], [9, 1]])
def test_window_hands_on_every_row_once_with_context(rows):
    x = np.arange(10)[None, :, None]
    window = Window(10, 2)
    handed = []
    for strip in np.split(x, np.cumsum(rows)[:-1], axis=1):
        found = window.push(strip)
        if found is None:
            continue
        kept, top, inner = found
        np.testing.assert_array_equal(kept[0, :, 0], np.arange(top, top + kept.shape[1]))
        own = kept[0, inner, 0]
        assert top == max(0, own[0] - 2) and kept[0, -1, 0] >= min(9, own[-1] + 2)
        handed += own.tolist()
    assert handed == list(range(10))


@pytest.mark.parametrize(
    ("sr", "lr", "options", "message"),
    [
        ((8, 8), (4, 3), {}, "sr must be 2 times lr"),
        ((8, 8, 3), (4, 4), {}, "sr must be 2 times lr"),
        ((1, 8, 8, 3), (1, 4, 4, 3), {}, "sr must be 2 times lr"),
        ((8, 8), (4, 4), {"scale": 1}, "scale = 1 must be"),
        ((8, 8), (4, 4), {"iterations": 0}, "iterations = 0 must be"),
    ],
)
def test_bad_arguments(sr, lr, options, message):
    with pytest.raises(ValueError, match=message):
        back_project(np.zeros(sr), np.zeros(lr), **({"scale": 2} | options))
