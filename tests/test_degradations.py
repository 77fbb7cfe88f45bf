"""Blur, noise, resizing, masks and the pipelines, against BasicSR's arrays and statistics."""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_tools import Table

from flowsr_jax.config import ConfigError, from_dict, to_dict
from flowsr_jax.data import degradations as d
from flowsr_jax.data.degradations import config as configs
from flowsr_jax.data.degradations.second_order import (
    Kernel,
    SecondOrder,
    Stage,
    draw_kernel,
    smallest_side,
)
from flowsr_jax.math.resize import imresize

KINDS = ("numpy", "jit")
FULL = d.DegradationConfig(
    kind="blur_noise_jpeg",
    blur_sigma=(0.2, 2.0),
    noise_sigma=(1.0, 20.0),
    noise_gray=0.4,
    jpeg_quality=(30, 95),
)
REAL = d.DegradationConfig(kind="real_esrgan")


@pytest.fixture(scope="module")
def golden(shared):
    return np.load(shared / "golden" / "degradations.npz")


@pytest.fixture(scope="module")
def photo():
    y, x = np.mgrid[:64, :96] / 96
    rgb = np.stack([x, y, 0.5 + 0.4 * np.sin(40 * x * y)], axis=-1)
    rgb[20:40, 30:60] = 1 - rgb[20:40, 30:60]
    return np.round(rgb * 255).astype(np.uint8)


def floats(u8):
    return u8.astype(np.float32) / 255


def generator(seed=0):
    return np.random.default_rng(seed)


def runner(kind):
    return (lambda f: f) if kind == "numpy" else jax.jit


# --- golden arrays -----------------------------------------------------------------------


def test_kernels_golden(golden):
    a, b, theta = (float(v) for v in golden["kernel_params"])
    sinc = d.sinc_kernel
    found = {
        "iso_k21": d.gaussian_kernel(21, a),
        "iso_k7": d.gaussian_kernel(7, a),
        "aniso_k21": d.gaussian_kernel(21, a, b, theta),
        "gen_iso_b06": d.generalized_kernel(21, b, beta=0.6),
        "gen_aniso_b3": d.generalized_kernel(21, a, b, theta, beta=3.0),
        "plat_iso_b15": d.plateau_kernel(21, b, beta=1.5),
        "plat_aniso_b18": d.plateau_kernel(21, a, b, theta, beta=1.8),
        "sinc_k21_w1.3": sinc(21, 1.3),
        "sinc_k9_w2.2_pad21": sinc(9, 2.2, pad_to=21),
    }
    table = Table("degradations.npz: kernels")
    for name, kernel in found.items():
        table.check(f"kernel/{name}", kernel, golden[f"kernel/{name}"], 1e-12)
    assert {k for k in golden if k.startswith("kernel/")} == {f"kernel/{k}" for k in found}
    table.check("usm/gauss51", d.gaussian_window(51, 8.0), golden["usm/gauss51"], 1e-12)
    for sigma in (0.4, 0.5, 0.6):
        window, traced = d.gaussian_window(3, sigma), jax.jit(lambda s: d.gaussian_window(3, s))
        table.check(f"cond_blur/k3_s{sigma}", window, golden[f"cond_blur/k3_s{sigma}"], 1e-12)
        wanted = golden[f"cond_blur/k3_s{sigma}"]
        table.check(f"cond_blur/k3_s{sigma} jit", traced(sigma), wanted, 1e-6)
    table.finish()


@pytest.mark.parametrize("kind", KINDS)
def test_filters_golden(golden, kind):
    run, table = runner(kind), Table(f"degradations.npz: filters, {kind}")
    x = floats(golden["img/u8"])
    for name in ("aniso_k21", "sinc_k21_w1.3", "iso_k7"):
        out = run(d.filter2d)(x, golden[f"kernel/{name}"])
        table.check(f"filtered/{name}", out, golden[f"filtered/{name}"], 1e-5, absolute=True)
    sharp = run(d.usm_sharp)(floats(golden["usm/u8"]))
    table.check("usm/out", sharp, golden["usm/out"], 1e-5, absolute=True)
    blurred = run(d.cond_blur)(x, 0.5)
    table.check("cond_blur/out", blurred, golden["cond_blur/out_reflect"], 1e-5, absolute=True)
    automatic = 0.3 * ((51 - 1) * 0.5 - 1) + 0.8
    table.check("gauss_sigma_auto_k51", automatic, golden["gauss_sigma_auto_k51"], 1e-12)
    table.finish()


@pytest.mark.parametrize("kind", KINDS)
def test_noise_golden(golden, kind):
    run, table = runner(kind), Table(f"degradations.npz: noise, {kind}")
    x, sigma = floats(golden["img/u8"]), golden["noise/sigma"]
    for name in ("color", "gray"):
        out = run(d.add_gaussian_noise)(x, golden[f"noise/z_{name}"], sigma)
        table.check(f"noise/gauss_{name}", out, golden[f"noise/gauss_{name}"], 1e-6, absolute=True)
    rate, vals = d.poisson_rate(x)
    table.check("noise/poisson_vals", vals, golden["noise/poisson_vals"], 0)
    traced = jax.jit(lambda v: d.poisson_rate(v)[0])(x)
    table.check("poisson rate, jit and numpy", traced, rate, 1e-6)
    arguments = (x, golden["noise/poisson_counts"], golden["noise/poisson_scale"], vals)
    out = run(d.add_poisson_noise)(*arguments)
    table.check("noise/poisson_out", out, golden["noise/poisson_out"], 1e-6, absolute=True)
    table.finish()


@pytest.mark.parametrize("kind", KINDS)
def test_interpolate_golden(golden, kind):
    run, table = runner(kind), Table(f"degradations.npz: torch interpolate, {kind}")
    x = floats(golden["img/u8"])
    for mode in ("area", "bilinear", "bicubic"):
        for name, options in (("size", {"size": (43, 51)}), ("sf1.4", {"scale": 1.4})):
            out = run(lambda v, o=options, m=mode: d.torch_interpolate(v, **o, mode=m))(x)
            wanted = golden[f"interp/{mode}_{name}"]
            table.check(f"interp/{mode}_{name}", out, wanted, 1e-5, absolute=True)
    table.finish()


# --- properties of the array functions ---------------------------------------------------


def test_filter_is_a_correlation_with_a_kernel_per_image(photo):
    x = floats(photo)[:12, :17]
    k = generator().normal(size=(2, 5, 3))
    padded = np.pad(x.astype(np.float64), ((2, 2), (1, 1), (0, 0)), mode="reflect")
    wanted = [
        sum(k[n, i, j] * padded[i : i + 12, j : j + 17] for i in range(5) for j in range(3))
        for n in range(2)
    ]
    batch = np.stack([x, x])
    np.testing.assert_allclose(d.filter2d(batch, k), wanted, atol=1e-5)
    np.testing.assert_allclose(d.filter2d(x, k[1]), wanted[1], atol=1e-5)
    np.testing.assert_allclose(jax.jit(jax.vmap(d.filter2d))(batch, k), wanted, atol=1e-5)
    identity = np.pad([[1.0]], 3)
    np.testing.assert_allclose(d.filter2d(x.astype(np.float64), identity), x, atol=1e-12)


def test_images_smaller_than_the_kernel(photo):
    x = floats(photo)[:6, :5]
    kernel = d.gaussian_kernel(21, 2.0)
    out = d.filter2d(x, kernel)
    assert out.shape == x.shape and x.min() <= out.min() and out.max() <= x.max()
    np.testing.assert_allclose(jax.jit(d.filter2d)(x, kernel), out, atol=1e-6)


def test_gradients_are_finite_and_right(photo):
    x, key = jnp.asarray(floats(photo)[:8, :9], jnp.float32), jax.random.key(0)
    z, w = jax.random.normal(key, x.shape), jax.random.normal(key, (12, 13, 3))
    counts = jax.random.poisson(key, d.poisson_rate(x)[0])
    kernel = d.gaussian_kernel(5, 1.0)

    @jax.jit
    def chain(v):
        v = d.cond_blur(d.usm_sharp(d.filter2d(v, kernel), size=7), 0.5)
        v = d.add_poisson_noise(d.add_gaussian_noise(v, z, 0.1), counts, 0.001)
        return jnp.sum(w * d.torch_interpolate(v, scale=1.5, mode="bicubic"))

    gradient = np.asarray(jax.grad(chain)(x))
    assert np.isfinite(gradient).all()
    direction = jax.random.normal(jax.random.key(1), x.shape) * 1e-3
    slope = (chain(x + direction) - chain(x - direction)) / 2
    np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=0.05, atol=1e-5)


def test_noise_per_image_and_grey(photo):
    x = np.full((2, 64, 64, 3), 0.5, np.float32)
    z = generator().standard_normal((2, 64, 64), np.float32)
    out = d.add_gaussian_noise(x, z, np.array([5.0, 20.0])) - x
    np.testing.assert_allclose(out.std(axis=(1, 2, 3)) * 255, [5, 20], rtol=0.05)
    np.testing.assert_array_equal(out[..., 0], out[..., 2])
    images = np.stack([floats(photo)[:64, :64], np.zeros((64, 64, 3), np.float32)])
    rate, vals = d.poisson_rate(images, gray=True)
    assert rate.shape == (2, 64, 64) and vals[1] == 1 and 64 <= vals[0] <= 256
    assert d.poisson_rate(images[0], gray=True)[1] == vals[0]
    counts = generator().poisson(rate)
    noisy = d.add_poisson_noise(images, counts, np.array([0.5, 3.0]), vals)
    np.testing.assert_array_equal(noisy[1], 0)  # black stays black
    change = (noisy - images)[0][(noisy[0] > 0).all(-1) & (noisy[0] < 1).all(-1)]
    np.testing.assert_allclose(change[:, 0], change[:, 1], atol=1e-6)


def test_poisson_noise_has_the_right_variance():
    x = np.full((64, 64, 3), 128 / 255, np.float32)
    rate, vals = d.poisson_rate(x, vals=256.0)
    out = d.add_poisson_noise(x, generator().poisson(rate), 1.0, vals) - x
    wanted = math.sqrt(x[0, 0, 0] / 256)  # of counts / vals
    assert abs(out.mean()) < 0.05 * wanted and abs(out.std() / wanted - 1) < 0.05


def test_cond_blur_takes_a_deviation_per_image(photo):
    batch, sigma = np.stack([floats(photo)] * 2), np.array([0.4, 0.6])
    out = d.cond_blur(batch, sigma)
    mapped = jax.jit(jax.vmap(d.cond_blur))(batch, sigma)
    for i in range(2):
        np.testing.assert_allclose(out[i], d.cond_blur(batch[i], float(sigma[i])), atol=1e-6)
        np.testing.assert_allclose(mapped[i], out[i], atol=1e-6)


# --- masks -------------------------------------------------------------------------------


@pytest.mark.parametrize("size, mean, deviation", [(256, 0.151, 0.079), (128, 0.258, 0.125)])
def test_free_form_areas_are_the_published_ones(size, mean, deviation):
    rng = generator(size)
    areas = [d.free_form_mask(rng, size, size).mean() for _ in range(400)]
    print(f"{size}: mean {np.mean(areas):.3f} (DeepFill {mean}), sd {np.std(areas):.3f}")
    assert abs(np.mean(areas) - mean) < 4 * deviation / 20  # 4 standard errors
    assert abs(np.std(areas) / deviation - 1) < 0.2


def test_rectangles_cover_a_tenth_to_four_tenths():
    rng = generator()
    for height, width in ((64, 96), (8, 8), (9, 200)):
        areas = [d.rectangle_mask(rng, height, width).mean() for _ in range(200)]
        assert min(areas) >= 0.1 and max(areas) <= 0.4 and np.std(areas) > 0.05


def test_masks_are_half_images_and_seeded():
    for side in ("left", "right", "top", "bottom", "all"):
        mask = d.uncrop_mask(generator(), 64, 96, side)
        assert mask.dtype == bool and abs(mask.mean() - 0.5) < 0.01
    assert d.uncrop_mask(generator(), 8, 8, "left")[:, :4].all()
    assert d.uncrop_mask(generator(), 8, 8, "bottom")[4:].all()
    assert not d.uncrop_mask(generator(), 64, 64, "all")[32, 32]
    rng = generator()
    drawn = [d.uncrop_mask(rng, 16, 16) for _ in range(400)]
    around = np.mean([mask[0].all() and mask[-1].all() for mask in drawn])
    assert abs(around - 0.5) < 0.1
    assert d.center_mask(64, 96).sum() == 32 * 48 and d.center_mask(64, 96)[16, 24]
    for draw in (d.free_form_mask, d.rectangle_mask, d.inpainting_mask, d.uncrop_mask):
        first, again, other = (draw(generator(seed), 96, 80) for seed in (3, 3, 4))
        assert first.shape == (96, 80) and first.any() and not first.all()
        assert (first == again).all() and (first != other).any()


# --- drawn parameters of the second-order degradation -------------------------------------


def share(values):
    return float(np.mean(list(values)))


def test_drawn_parameters_follow_the_published_probabilities():
    rng, n = generator(7), 6000
    drawn = [d.draw_second_order(rng, d.SecondOrderConfig()) for _ in range(n)]
    table = Table("second-order draws: share of each choice")

    def check(name, values, wanted):
        table.check(name, share(values), wanted, 4 * math.sqrt(0.25 / n), absolute=True)

    published = {
        "first": (1.0, (0.2, 0.7, 0.1), (0.15, 1.5), (1, 30), (0.05, 3)),
        "second": (0.8, (0.3, 0.4, 0.3), (0.3, 1.2), (1, 25), (0.05, 2.5)),
    }
    for name, (blur, resize, factors, sigma, poisson) in published.items():
        stages = [getattr(one, name) for one in drawn]
        check(f"{name}: blur", (s.kernel is not None for s in stages), blur)
        for direction, wanted in zip((1, -1, 0), resize, strict=True):
            check(f"{name}: resize", (np.sign(s.factor - 1) == direction for s in stages), wanted)
        for mode in ("area", "bilinear", "bicubic"):
            check(f"{name}: {mode}", (s.mode == mode for s in stages), 1 / 3)
        check(f"{name}: gaussian", (s.noise == "gaussian" for s in stages), 0.5)
        check(f"{name}: gray", (s.gray for s in stages), 0.4)
        uniform = {
            "up": ([s.factor for s in stages if s.factor > 1], (1, factors[1])),
            "down": ([s.factor for s in stages if s.factor < 1], (factors[0], 1)),
            "sigma": ([s.strength for s in stages if s.noise == "gaussian"], sigma),
            "poisson": ([s.strength for s in stages if s.noise == "poisson"], poisson),
            "quality": ([s.quality for s in stages], (30, 95)),
        }
        for what, (values, (low, high)) in uniform.items():
            assert low <= min(values) and max(values) <= high, (name, what)
            check(f"{name}: lower half of {what}", (v < (low + high) / 2 for v in values), 0.5)
    check("final sinc", (one.sinc is not None for one in drawn), 0.8)
    check("JPEG last", (one.jpeg_last for one in drawn), 0.5)
    cutoffs = [one.sinc.cutoff for one in drawn if one.sinc]
    assert math.pi / 3 <= min(cutoffs) and max(cutoffs) <= math.pi
    assert {one.sinc.size for one in drawn if one.sinc} == set(range(7, 22, 2))
    table.finish()


@pytest.mark.parametrize(
    "stage, top", [(configs.StageConfig(), 3.0), (configs.SecondStageConfig(), 1.5)]
)
def test_drawn_kernels_follow_the_published_probabilities(stage, top):
    rng, n = generator(8), 6000
    drawn = [draw_kernel(rng, stage) for _ in range(n)]
    table = Table("second-order draws: kernels")

    def check(name, values, wanted, count=n):
        table.check(name, share(values), wanted, 4 * math.sqrt(0.25 / count), absolute=True)

    for size in range(7, 22, 2):
        check(f"size {size}", (k.size == size for k in drawn), 1 / 8)
    sinc = [k for k in drawn if k.kind == "sinc"]
    check("sinc", (k.kind == "sinc" for k in drawn), 0.1)
    for small, lowest in ((True, math.pi / 3), (False, math.pi / 5)):
        cutoffs = [k.cutoff for k in sinc if (k.size < 13) == small]
        assert lowest <= min(cutoffs) < lowest + 0.1 and max(cutoffs) <= math.pi
    published = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    for kind, wanted in zip(configs.KERNELS, published, strict=True):
        check(kind, (k.kind == kind for k in drawn), 0.9 * wanted)
        of_kind = [k for k in drawn if k.kind == kind]
        assert all(0.2 <= s <= top for k in of_kind for s in k.sigma)
        if kind.endswith("aniso"):
            assert all(k.sigma[0] != k.sigma[1] for k in of_kind)
            assert np.ptp([k.theta for k in of_kind]) > 5
        else:
            assert all(k.sigma[0] == k.sigma[1] for k in of_kind)
    for start, low, high in (("generalized", 0.5, 4), ("plateau", 1, 2)):
        betas = [k.beta for k in drawn if k.kind.startswith(start)]
        assert low <= min(betas) and max(betas) <= high
        check(f"{start}: beta at most 1", (b <= 1 for b in betas), 0.5, len(betas))
    table.finish()
    for k in drawn[:200]:
        assert k.array().shape == (k.size, k.size)
        np.testing.assert_allclose(k.array().sum(), 1, atol=1e-12)


def test_kernels_of_each_kind_are_the_right_functions():
    a = (21, 1.2, 2.4, 0.7)
    drawn = {kind: Kernel(kind, 21, (1.2, 2.4), 0.7, 1.8, 1.3).array() for kind in configs.KERNELS}
    np.testing.assert_array_equal(drawn["aniso"], d.gaussian_kernel(*a))
    wanted = d.generalized_kernel(*a, beta=1.8)
    np.testing.assert_array_equal(drawn["generalized_aniso"], wanted)
    np.testing.assert_array_equal(drawn["plateau_aniso"], d.plateau_kernel(*a, beta=1.8))
    sinc = Kernel("sinc", 21, cutoff=1.3).array()
    np.testing.assert_array_equal(sinc, d.sinc_kernel(21, 1.3))


# --- degrade_image -----------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_bicubic_is_imresize(photo, scale):
    rng = generator()
    for config in (d.DegradationConfig(), d.DegradationConfig(kind="blur_noise_jpeg")):
        hr, lr = d.degrade_image(photo, scale, config, rng)
        assert hr is photo and lr.dtype == np.uint8
        np.testing.assert_array_equal(lr, imresize(photo, 1 / scale))
    assert rng.random() == generator().random()  # nothing was drawn
    assert d.DegradationConfig().deterministic
    assert not FULL.deterministic and not REAL.deterministic


@pytest.mark.parametrize("config", [FULL, REAL], ids=lambda c: c.kind)
@pytest.mark.parametrize("scale", [2, 4])
def test_outputs_and_determinism(photo, config, scale):
    bicubic = imresize(photo, 1 / scale)
    seen = []
    for seed in range(12):
        hr, lr = d.degrade_image(photo, scale, config, generator(seed))
        again = d.degrade_image(photo, scale, config, generator(seed))
        assert (hr.dtype, lr.dtype, hr.shape) == (np.uint8, np.uint8, photo.shape)
        assert lr.shape == (64 // scale, 96 // scale, 3)
        np.testing.assert_array_equal(hr, again[0])
        np.testing.assert_array_equal(lr, again[1])
        if config is REAL:
            np.testing.assert_array_equal(hr, np.rint(255 * d.usm_sharp(floats(photo))))
        else:
            assert hr is photo
        assert 0 < np.abs(lr - bicubic.astype(float)).mean() < 60
        seen.append(lr)
    # Degraded, but still images of the same scene: the mean over draws is close to it.
    error = np.abs(np.mean(seen, axis=0) - bicubic)
    assert np.mean(error) < 20 and len({lr.tobytes() for lr in seen}) == len(seen)


def test_each_part_of_the_simple_chain(photo):
    def lr(**options):
        config = d.DegradationConfig(kind="blur_noise_jpeg", **options)
        return d.degrade_image(photo, 2, config, generator())[1]

    plain = imresize(photo, 1 / 2)
    np.testing.assert_array_equal(lr(jpeg_quality=(40, 40)), d.jpeg_codec(plain, 40))
    blurred = d.filter2d(floats(photo), d.gaussian_kernel(21, 1.5))
    wanted = np.rint(255 * np.clip(imresize(blurred, 1 / 2), 0, 1))
    np.testing.assert_array_equal(lr(blur_sigma=(1.5, 1.5)), wanted)
    noise = lr(noise_sigma=(10.0, 10.0), noise_gray=1.0).astype(float) - plain
    inside = (plain > 50).all(-1) & (plain < 205).all(-1)
    assert abs(noise[inside].std() - 10) < 1.5
    assert np.abs(noise[inside][:, 0] - noise[inside][:, 1]).max() <= 1


@pytest.mark.parametrize("jpeg_last", [True, False])
def test_second_order_applies_the_parts_in_the_published_order(photo, jpeg_last):
    kernels = (
        Kernel("aniso", 9, (1.0, 2.0), 0.3),
        Kernel("plateau_iso", 7, (0.8, 0.8), beta=1.5),
        Kernel("sinc", 11, cutoff=1.5),
    )
    first = Stage(kernels[0], 0.61, "bilinear", "gaussian", 12.0, True, 60.5)
    second = Stage(kernels[1], 0.83, "area", "poisson", 0.7, False, 45.0)
    drawn = SecondOrder(first, second, kernels[2], jpeg_last, "bicubic")
    found = d.apply_second_order(floats(photo), 2, drawn, generator(5))

    def jpeg(v, quality):
        return d.diff_jpeg(np.clip(v, 0, 1), quality, "hard")

    rng, arrays = generator(5), [kernel.array() for kernel in kernels]
    x = d.torch_interpolate(d.filter2d(floats(photo), arrays[0]), scale=0.61, mode="bilinear")
    x = jpeg(d.add_gaussian_noise(x, rng.standard_normal((39, 58), np.float32), 12.0), 60.5)
    x = d.torch_interpolate(d.filter2d(x, arrays[1]), (26, 39), mode="area")
    rate, vals = d.poisson_rate(x)
    x = d.add_poisson_noise(x, rng.poisson(rate), 0.7, vals)
    x = x if jpeg_last else jpeg(x, 45.0)
    x = d.filter2d(d.torch_interpolate(x, (32, 48), mode="bicubic"), arrays[2])
    x = jpeg(x, 45.0) if jpeg_last else x
    np.testing.assert_array_equal(found, np.clip(x, 0, 1))


def test_second_order_without_any_strength_is_nearly_a_resize(photo):
    grey = np.repeat(floats(photo)[..., :1], 3, axis=-1)  # JPEG halves the chroma's resolution
    for seed, mode in enumerate(("area", "bilinear", "bicubic")):
        still = Stage(None, 1.0, mode, "gaussian", 0.0, False, 98.0)
        drawn = SecondOrder(still, still, None, bool(seed % 2), mode)
        lr = d.apply_second_order(grey, 2, drawn, generator())
        assert np.abs(lr - d.torch_interpolate(grey, (32, 48), mode=mode)).mean() < 0.003


def test_smallest_images_pass_and_smaller_ones_do_not(photo):
    least = smallest_side(4, REAL.second_order)
    assert least == 16
    for seed in range(100):
        _, lr = d.degrade_image(photo[:least, :least], 4, REAL, generator(seed))
        assert lr.shape == (4, 4, 3)
    with pytest.raises(ValueError, match="at least 16"):
        d.degrade_image(photo[: least - 4, :least], 4, REAL, generator())


def test_host_pipeline_starts_no_jax_backend():
    code = (
        "import numpy as np; from flowsr_jax.data.degradations import *\n"
        "hr = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)\n"
        "for kind in ('bicubic', 'blur_noise_jpeg', 'real_esrgan'):\n"
        "    degrade_image(hr, 4, DegradationConfig(kind=kind), np.random.default_rng(0))\n"
        "inpainting_mask(np.random.default_rng(0), 32, 32)\n"
        "import jax\n"
        "try: jax.numpy.zeros(1)\n"
        "except RuntimeError: print('no backend could have been used')\n"
    )
    environment = {**os.environ, "JAX_PLATFORMS": "none_such"}
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "no backend could have been used" in done.stdout


# --- bad input ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, message",
    [
        ({"kind": "bicubics"}, "did you mean 'bicubic'"),
        ({"blur_sigma": (0.5, 1.0)}, "needs kind = 'blur_noise_jpeg', not 'bicubic'"),
        ({"kind": "real_esrgan", "jpeg_quality": (30, 90)}, "needs kind = 'blur_noise_jpeg'"),
        ({"second_order": d.SecondOrderConfig(sharpen=False)}, "needs kind = 'real_esrgan'"),
        ({"kind": "blur_noise_jpeg", "blur_size": 20}, "must be odd"),
        ({"kind": "blur_noise_jpeg", "blur_sigma": (2.0, 1.0)}, "lowest, highest"),
        ({"kind": "blur_noise_jpeg", "noise_sigma": (-1.0, 1.0)}, "in 0..255"),
        ({"kind": "blur_noise_jpeg", "noise_sigma": (1.0, math.nan)}, "in 0..255"),
        ({"kind": "blur_noise_jpeg", "noise_gray": 1.5}, "probability"),
        ({"kind": "blur_noise_jpeg", "jpeg_quality": (30.0, 90.0)}, "whole numbers"),
        ({"kind": "blur_noise_jpeg", "jpeg_quality": (0, 90)}, "in 1..100"),
        ({"second_order": None}, "must be a SecondOrderConfig"),
    ],
)
def test_bad_configs(options, message):
    with pytest.raises(ConfigError, match=message):
        d.DegradationConfig(**options)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"kernel_probabilities": (0.5, 0.5)}, "6 probabilities"),
        ({"resize_probabilities": (0.5, 0.5, 0.5)}, "sum to 1"),
        ({"resize_factors": (0.5, 0.9)}, "with 1 between"),
        ({"beta_plateau": (1.5, 2.0)}, "with 1 between"),
        ({"kernel_sizes": (8, 20)}, "must be odd"),
        ({"jpeg_quality": (30.0, 100.0)}, "in 1..99"),
        ({"blur_sigma": (0.0, 1.0)}, "in 0.1..100"),
        ({"gray_probability": True}, "probability"),
    ],
)
def test_bad_stages(options, message):
    with pytest.raises(ConfigError, match=message):
        configs.StageConfig(**options)


def test_configs_go_through_dicts_and_keep_the_stage_defaults():
    for config in (d.DegradationConfig(), FULL, REAL):
        assert from_dict(d.DegradationConfig, to_dict(config)) == config
        assert hash(config) == hash(dataclasses.replace(config))
    values = {"kind": "real_esrgan", "second_order": {"second": {"noise_sigma": [2, 3]}}}
    second = from_dict(d.DegradationConfig, values).second_order.second
    assert second.noise_sigma == (2.0, 3.0) and second.resize_factors == (0.3, 1.2)
    with pytest.raises(ConfigError, match="must be a StageConfig"):
        d.SecondOrderConfig(first=3)


def test_bad_images(photo):
    rng, config = generator(), d.DegradationConfig()
    for hr, scale, message in (
        (floats(photo), 2, "uint8"),
        (photo[..., :1], 2, r"\[H,W,3\]"),
        (photo[:63], 4, "multiples of scale = 4"),
        (photo, 0, "scale = 0"),
        (photo, 2.0, "scale = 2.0"),
    ):
        with pytest.raises(ValueError, match=message):
            d.degrade_image(hr, scale, config, rng)


def test_bad_arguments_of_array_functions(photo):
    x = floats(photo)
    cases = [
        (lambda: d.filter2d(x, np.ones((4, 4))), "odd sides"),
        (lambda: d.filter2d(x, np.ones((2, 3, 3))), "odd sides"),
        (lambda: d.filter2d(photo, np.ones((3, 3))), "float32 or float64"),
        (lambda: d.filter2d(x[0], np.ones((3, 3))), r"\[H,W,C\]"),
        (lambda: d.usm_sharp(x, size=50), "odd whole number"),
        (lambda: d.cond_blur(x, 0.0), "sigma = 0.0"),
        (lambda: d.cond_blur(x, np.array([0.5, 0.5])), "one per image"),
        (lambda: d.gaussian_kernel(7, -1.0), "sigma_x = -1.0"),
        (lambda: d.gaussian_kernel(8, 1.0), "odd whole number"),
        (lambda: d.plateau_kernel(7, 1.0, beta=0.0), "beta = 0.0"),
        (lambda: d.sinc_kernel(7, 4.0), "cutoff = 4.0"),
        (lambda: d.sinc_kernel(7, 1.0, pad_to=10), "odd whole number"),
        (lambda: d.add_gaussian_noise(x, x[:5], 3.0), "shape of x"),
        (lambda: d.add_gaussian_noise(x, x, np.ones(2)), "one per image"),
        (lambda: d.add_poisson_noise(x, x[..., :2], 1.0), "shape of x"),
        (lambda: d.poisson_rate(x[..., :1], gray=True), r"\[H,W,3\]"),
        (lambda: d.torch_interpolate(x), "either size or scale"),
        (lambda: d.torch_interpolate(x, scale=0.01), "cannot become"),
        (lambda: d.torch_interpolate(x, scale=-1.0), "above 0"),
        (lambda: d.torch_interpolate(x, scale=2, mode="cubic"), "did you mean 'bicubic'"),
        (lambda: d.free_form_mask(generator(), 0, 8), "height = 0"),
        (lambda: d.rectangle_mask(generator(), 64, 4), "width = 4"),
        (lambda: d.rectangle_mask(generator(), 64, 64, area=(0.3, 0.3)), "0.02 apart"),
        (lambda: d.uncrop_mask(generator(), 8, 8, "up"), "side = 'up'"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
