"""Edits in latent space: the golden formulas, the laws of the draws, and what is claimed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_tools import Table

import flowsr_jax
from flowsr_jax.data import EmbeddedSource
from flowsr_jax.editing import conditional
from flowsr_jax.editing.interpolate import interpolate
from flowsr_jax.editing.masks import latent_masks
from flowsr_jax.editing.normalize import normalize_latents, normalize_to
from flowsr_jax.metrics import lr_psnr, psnr, to_uint8
from flowsr_jax.models import get_family

MODES = ("global", "local", "spatial")
LIMIT = 1e-5  # of arrays computed in float64
REACH = 40  # HR pixels that the demo's couplings see: 3 steps of 2 at H/4, 4 of 2 at H/2


@pytest.fixture(scope="module")
def golden(shared):
    with np.load(shared / "golden/latent_manipulation.npz") as data:
        return dict(data)


@pytest.fixture(scope="module")
def demo():
    return flowsr_jax.load("demo")


@pytest.fixture(scope="module")
def photo():
    """A photograph that the demo has not seen, uint8 [96,160,3], and its LR."""
    hr = EmbeddedSource("valid")[0]["hr"][100:196, 220:380]
    return hr, flowsr_jax.imresize(hr, 1 / 4)


def floats(image):
    return jnp.asarray(image[None], jnp.float32) / 255


def pixels(image):
    return to_uint8(np.asarray(image)[0])


def from_golden(golden, name):
    return [golden[f"{name}/{i}"] for i in range(2) if f"{name}/{i}" in golden]


def test_golden_formulas(golden):
    z = from_golden(golden, "z")
    table = Table("latent_manipulation")

    def compare(name, got):
        for i, want in enumerate(from_golden(golden, name)):
            table.check(f"{name}/{i}", got[i], want, LIMIT)

    drawn = {
        mode: [from_golden(golden, f"{mode}/{name}") for name in ("mu_hat", "var_hat")]
        for mode in MODES
    }
    for mode in MODES:
        compare(f"{mode}/out", normalize_to(z, *drawn[mode], mode))
        count = len(drawn[mode][0])
        expected = [0.0] * count, [float(golden["tau"])] * count
        compare(f"{mode}/out_expected_stats", normalize_to(z, *expected, mode))
    mask = from_golden(golden, "mask")
    compare("masked_local/out", normalize_to(z, *drawn["local"], "local", mask))
    spatial = normalize_to(z, *drawn["spatial"], "spatial")
    compare("spatial_then_local/out", normalize_to(spatial, *drawn["local"], "local"))
    table.finish()


def collections(latents, mode):
    """The values of every collection of one image, [collections, N] per latent size."""
    if mode == "global":
        return [np.concatenate([np.ravel(z) for z in latents])[None]]
    if mode == "local":
        return [np.reshape(z, (-1, z.shape[-1])) for z in latents]
    return [np.reshape(z, (-1, z.shape[-1])).T for z in latents]


@pytest.mark.parametrize("mode", MODES)
def test_laws_of_the_drawn_mean_and_variance(mode):
    rng = np.random.default_rng(0)
    shapes = [(3, 4, 5), (2, 2, 7)]
    latents = [jnp.asarray(3 + 2 * rng.standard_normal((1, *s)), jnp.float32) for s in shapes]
    draws, t = 3000, 0.8
    keys = jax.random.split(jax.random.key(1), draws)
    out = jax.jit(jax.vmap(lambda k: normalize_latents(latents, k, t, mode)))(keys)
    found = [collections([z[i, 0] for z in out], mode) for i in range(draws)]
    for level in range(len(found[0])):
        values = np.stack([f[level] for f in found]).astype(np.float64)  # [draws, collections, N]
        n, tau = values.shape[-1], t * t
        mean, var = values.mean(-1).ravel(), values.var(-1, ddof=1).ravel()
        spread = 5 / np.sqrt(mean.size)
        assert abs(mean.mean()) < spread * np.sqrt(tau / n)
        assert mean.var() == pytest.approx(tau / n, rel=spread * np.sqrt(2))
        law = 2 * tau**2 / (n - 1)
        assert var.mean() == pytest.approx(tau, abs=spread * np.sqrt(law))
        kurtosis = 3 + 12 / (n - 1)  # of the Gamma law
        assert var.var() == pytest.approx(law, rel=spread * np.sqrt(kurtosis - 1))
        assert abs(np.corrcoef(mean, var)[0, 1]) < spread


@pytest.mark.parametrize("mode", MODES)
def test_images_of_a_batch_do_not_mix(mode):
    rng = np.random.default_rng(0)
    latents = [rng.standard_normal((2, *s)).astype("f") for s in ((4, 4, 6), (2, 2, 12))]
    other = [np.stack([z[0], 5 * z[1] + 3]) for z in latents]
    a, b = (normalize_latents(x, jax.random.key(0), 0.8, mode) for x in (latents, other))
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x[0], y[0])


@pytest.mark.parametrize("mode", MODES)
def test_masked_positions_alone_form_the_collections(mode):
    rng = np.random.default_rng(0)
    z = 2 + rng.standard_normal((2, 4, 6, 8)).astype("f")
    mask = np.zeros((2, 4, 6, 1), bool)
    mask[0, 1:3, 2:5] = mask[1, 0, 0] = True  # six positions, and one
    count = (2, 1, 1, 1) if mode == "global" else (2, 4, 6, 1) if mode == "local" else (2, 1, 1, 8)
    out = normalize_to([z], [np.full(count, 0.5)], [np.full(count, 0.36)], mode, [mask])[0]
    assert np.array_equal(np.where(mask, 0, out), np.where(mask, 0, z))
    (first,) = collections([np.asarray(out)[0, 1:3, 2:5]], mode)
    np.testing.assert_allclose(first.mean(-1), 0.5, atol=1e-6)
    np.testing.assert_allclose(first.var(-1, ddof=1), 0.36, rtol=1e-5)
    second = np.asarray(out)[1, 0, 0]
    if mode == "spatial":  # collections of one value: shifted to their drawn mean
        np.testing.assert_allclose(second, 0.5, atol=1e-6)
    else:
        np.testing.assert_allclose(second.var(ddof=1), 0.36, rtol=1e-5)
    empty = normalize_latents([z], jax.random.key(0), 0.8, mode, [np.zeros_like(mask)])[0]
    np.testing.assert_array_equal(empty, z)


def test_equal_values_and_zero_temperature():
    z = [jnp.full((1, 2, 2, 3), 0.1)]
    out = normalize_to(z, [0.25], [1.0], "global")[0]
    np.testing.assert_allclose(out, 0.25, atol=1e-6)
    for mode in MODES:
        zero = normalize_latents([jnp.arange(12.0).reshape(1, 2, 2, 3)], jax.random.key(0), 0, mode)
        np.testing.assert_allclose(zero[0], 0, atol=1e-6)


def test_latent_masks():
    mask = np.zeros((8, 16), bool)
    mask[3, 9] = True
    fine, coarse = latent_masks(mask, [(2, 4, 8, 6), (2, 1, 2, 24)])
    assert fine.shape == (2, 4, 8, 1) and np.argwhere(fine[..., 0]).tolist() == [
        [0, 1, 4],
        [1, 1, 4],
    ]
    assert np.argwhere(coarse[..., 0]).tolist() == [[0, 0, 1], [1, 0, 1]]
    each = latent_masks(np.stack([mask, ~mask])[..., None], [(2, 1, 2, 24)])[0]
    assert each[..., 0].tolist() == [[[False, True]], [[True, True]]]


@pytest.mark.parametrize(
    "error, text, call",
    [
        (ValueError, "mode.*nosuch.*global", lambda z: normalize_latents(z, KEY, 1.0, "nosuch")),
        (ValueError, "temperature must be finite", lambda z: normalize_latents(z, KEY, -1.0)),
        (TypeError, "PRNG key", lambda z: normalize_latents(z, 3, 1.0)),
        (ValueError, r"\[B,H,W,C\]", lambda z: normalize_latents([z[0][0]], KEY, 1.0)),
        (
            ValueError,
            r"mask must be bool .*\(1, 4, 4, 1\).*float32",
            lambda z: normalize_latents(z, KEY, 1.0, "local", [np.ones((1, 4, 4, 1), "f")]),
        ),
        (
            ValueError,
            "mu_hat must have the shapes",
            lambda z: normalize_to(z, [np.ones(3)], [1.0], "local"),
        ),
        (TypeError, "mask must be a bool", lambda z: latent_masks(np.ones((4, 4)), [(1, 2, 2, 3)])),
        (
            ValueError,
            "does not divide",
            lambda z: latent_masks(np.ones((6, 6), bool), [(1, 4, 4, 3)]),
        ),
        (ValueError, "same shapes", lambda z: interpolate(z, [z[0][:, :2]], 0.5)),
        (ValueError, "weights", lambda z: interpolate(z, z, np.ones((2, 2)))),
    ],
)
def test_bad_arrays(error, text, call):
    with pytest.raises(error, match=text):
        call([jnp.ones((1, 4, 4, 3))])


KEY = jax.random.key(0)


def test_interpolation():
    rng = np.random.default_rng(0)
    a, b = ([rng.standard_normal(s).astype("f") for s in ((1, 40, 40, 6), (1, 48))] for _ in "ab")
    for keep in (False, True):
        ends = interpolate(a, b, [0, 1], keep_variance=keep)
        for z, x, y in zip(ends, a, b, strict=True):
            np.testing.assert_array_equal(z[0], x)
            np.testing.assert_array_equal(z[1], y)
    half = interpolate(a, b, 0.5)[0]
    np.testing.assert_allclose(half, (a[0] + b[0]) / 2, atol=1e-6)
    assert 0.67 < float(half.std()) < 0.75
    assert 0.95 < float(interpolate(a, b, 0.5, keep_variance=True)[0].std()) < 1.05


def test_models_without_a_latent_given_the_lr():
    glow = get_family("nice")
    params = glow.init(glow.config_class(), KEY)
    with pytest.raises(ValueError, match="'nice' takes no LR image"):
        conditional.restore(params, jnp.ones((1, 8, 8, 3)), KEY)
    rrdb = get_family("rrdb")
    params = rrdb.init(rrdb.config_class(nb=1, nf=4, gc=2), KEY)
    with pytest.raises(ValueError, match="'rrdb' has no 'encode'"):
        conditional.restore(params, jnp.ones((1, 8, 8, 3)), KEY)


def test_resample_changes_its_region_alone(demo, photo):
    hr, lr = photo
    mask = np.zeros(hr.shape[:2], bool)
    mask[40:56, 4:20] = True
    small = floats(lr)
    latents, _ = flowsr_jax.encode(demo, floats(hr), small)
    again = flowsr_jax.decode(demo, latents, small)
    image, mixed = conditional.resample(demo, small, latents, mask, KEY, 0.8)
    other, _ = conditional.resample(demo, small, latents, mask, jax.random.key(1), 0.8)
    for z, new, m in zip(latents, mixed, latent_masks(mask, [mixed[0].shape]), strict=True):
        np.testing.assert_array_equal(np.where(m, 0, new), np.where(m, 0, z))
    # What a NaN in the new latents reaches is what the networks see, whatever their weights.
    lost = [jnp.where(z == new, z, jnp.nan) for z, new in zip(latents, mixed, strict=True)]
    seen = np.isnan(np.asarray(flowsr_jax.decode(demo, lost, small))[0]).any(-1)
    change = np.abs(np.asarray(image - again)[0]).max(-1)
    rows, columns = np.indices(mask.shape)
    far = np.maximum.reduce([40 - rows, rows - 55, 4 - columns, columns - 19])  # from the mask
    print("\nreach of the networks:", far[seen].max(), "HR pixels")
    visible = 255 * np.abs(image - again)[0].max(-1) >= 0.5
    print("half a grey level and more reaches:", far[visible].max(), "HR pixels")
    assert not change[~seen].any()
    assert far[seen].max() == REACH
    assert change[mask].mean() > 20 * change[far > 8].mean()
    assert 255 * np.abs(image - other)[0][mask].mean() > 0.5
    plain = flowsr_jax.sample(demo, small, KEY, temperature=0.8)
    consistent, wanted = lr_psnr(pixels(image), lr, 4), lr_psnr(pixels(plain), lr, 4)
    print(f"LR-PSNR {consistent:.2f} dB, of a sample {wanted:.2f} dB")
    assert consistent > wanted


def test_content_transfer_makes_a_paste_fit(demo, photo):
    hr, lr = photo
    edited, mask = hr.copy(), np.zeros(hr.shape[:2], bool)
    edited[40:56, 64:96] = hr[20:36, 8:40]
    mask[40:56, 64:96] = True
    image = pixels(conditional.content_transfer(demo, floats(edited), floats(lr), mask, KEY, 0.8))
    plain = pixels(flowsr_jax.sample(demo, floats(lr), KEY, temperature=0.8))
    values = [lr_psnr(x, lr, 4) for x in (edited, image, plain)]
    print("\nLR-PSNR pasted {:.2f}, transferred {:.2f}, a sample {:.2f} dB".format(*values))
    assert values[1] > values[2] - 3 and values[1] > values[0] + 15
    latents, _ = flowsr_jax.encode(demo, floats(edited), floats(lr))
    far = np.ones_like(mask)
    far[: 56 + REACH, 64 - REACH : 96 + REACH] = False
    untouched = pixels(flowsr_jax.decode(demo, latents, floats(lr)))
    np.testing.assert_array_equal(image[far], untouched[far])
    assert np.abs(image.astype(int) - hr)[~mask].mean() < 1


@pytest.mark.parametrize("sigma, gain", [(20, 3.0), (40, 5.0)])
def test_restore_removes_noise(demo, photo, sigma, gain):
    hr, _ = photo
    noise = np.random.default_rng(0).normal(0, sigma, hr.shape)
    noisy = np.clip(np.rint(hr + noise), 0, 255).astype(np.uint8)
    lr = flowsr_jax.imresize(noisy, 1 / 4)
    image = pixels(conditional.restore(demo, floats(noisy), KEY))
    plain = pixels(flowsr_jax.sample(demo, floats(lr), KEY, temperature=0.0))
    values = [psnr(x, hr) for x in (noisy, image, plain)]
    print("\nnoisy {:.2f}, restored {:.2f}, the LR at T=0 {:.2f} dB".format(*values))
    assert values[1] > values[0] + gain
    sample = pixels(flowsr_jax.sample(demo, floats(lr), KEY, temperature=0.8))
    assert psnr(sample, hr) < values[1]  # so the image's own latents help
    assert lr_psnr(image, lr, 4) > lr_psnr(sample, lr, 4) - 3


def test_style(demo, photo):
    hr, lr = photo
    own = conditional.transfer(demo, floats(hr), floats(lr), floats(lr))
    np.testing.assert_allclose(own, floats(hr), atol=1e-4)
    target = np.ascontiguousarray(lr[:, ::-1])
    image = pixels(conditional.transfer(demo, floats(hr), floats(lr), floats(target)))
    assert lr_psnr(image, target, 4) > 40


def test_images_between(demo, photo):
    hr, lr = photo
    ends = [conditional.draw_latents(demo, floats(lr), jax.random.key(i), 0.8) for i in (1, 2)]
    first, second = (flowsr_jax.decode(demo, z, floats(lr)) for z in ends)
    line = conditional.interpolate_images(demo, first, second, [0, 0.5, 1], floats(lr))
    assert line.shape == (3, *first.shape)
    np.testing.assert_allclose(line[0], first, atol=1e-4)
    np.testing.assert_allclose(line[2], second, atol=1e-4)
    assert lr_psnr(pixels(line[1]), lr, 4) > 45
    own = conditional.interpolate_images(demo, floats(hr), floats(hr[:, ::-1]), [0, 1])
    np.testing.assert_allclose(own[0], floats(hr), atol=1e-4)
    np.testing.assert_allclose(own[1], floats(hr[:, ::-1]), atol=1e-4)


def test_restore_under_jit_is_spatial_then_local_normalisation(demo, photo):
    hr, _ = photo
    traced = jax.jit(conditional.restore)(demo, floats(hr), KEY, 0.5)
    small = conditional.own_lr(demo, floats(hr))
    latents, _ = flowsr_jax.encode(demo, floats(hr), small)
    first, second = jax.random.split(KEY)
    latents = normalize_latents(latents, first, 0.5, "spatial")
    latents = normalize_latents(latents, second, 0.5, "local")
    expected = flowsr_jax.decode(demo, latents, small)
    np.testing.assert_allclose(traced, expected, atol=1e-4)
