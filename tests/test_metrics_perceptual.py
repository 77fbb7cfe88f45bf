"""LPIPS, DISTS, MS-SSIM and the diversity scores against the golden values.

The golden backbones are random ones, made again here by their recipe.
"""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_files as tf
from golden_tools import Table
from safetensors.numpy import load_file, save_file
from scipy import signal

from flowsr_jax import metrics
from flowsr_jax.metrics.backbones import NETS, pool_l2, taps
from flowsr_jax.metrics.dists import MEAN, STD
from flowsr_jax.metrics.lpips import SCALE, SHIFT
from flowsr_jax.metrics.perceptual_weights import DISTS_CHANNELS, LINEAR_FILE, linear_names


def _golden(shared, name):
    with np.load(shared / "golden" / name) as file:
        return {key: file[key] for key in file.files}


def random_backbone(net, seed):
    """The golden backbone {official name: float32} and the SHA-256 of its integers."""
    rng, weights, digest = np.random.RandomState(seed), {}, hashlib.sha256()
    for conv in NETS[net].convs:
        for name, shape in conv.shapes().items():
            q = rng.randint(-127, 128, size=shape).astype(np.int8)
            digest.update(q.tobytes())
            scale = 0.002
            if name.endswith("weight"):
                scale = np.sqrt(2 / (conv.inp * conv.kernel**2)) / 73.5
            weights[name] = q * np.float32(scale)
    return weights, digest.hexdigest()


@pytest.fixture(scope="module")
def images(shared):
    return _golden(shared, "metrics.npz")


@pytest.fixture(scope="module")
def backbone():
    return random_backbone("alex", 1801)[0]


@pytest.fixture(scope="module")
def alex(backbone):
    return metrics.load_lpips_weights(backbone)


@pytest.fixture(scope="module")
def vgg():
    return random_backbone("vgg", 1601)[0]


@pytest.fixture(scope="module")
def photos():
    """Eight noisy copies of a picture, [9,48,40,3] uint8, the picture last."""
    from skimage.data import astronaut

    rng, photo = np.random.default_rng(0), astronaut()[100:148, 200:240].astype(np.float64)
    noisy = photo + rng.normal(0, np.arange(1, 9).reshape(8, 1, 1, 1) * 4, (8, 48, 40, 3))
    return np.rint(np.clip([*noisy, photo], 0, 255)).astype(np.uint8)


def _pair(images, name):
    return images[f"dist/{name}"], images[f"ref/{name.split('/')[0]}"]


def _layers(params, images, names, **options):
    """Layer terms of the pairs, equal sizes in one batch (one compilation each)."""
    groups, found = {}, {}
    for name in names:
        groups.setdefault(_pair(images, name)[0].shape, []).append(name)
    for group in groups.values():
        a, b = (np.stack(x) for x in zip(*(_pair(images, n) for n in group), strict=True))
        terms = metrics.lpips(params, a, b, per_layer=True, **options)
        found |= dict(zip(group, terms, strict=True))
    return np.stack([found[name] for name in names])


def test_golden_recipe(shared, alex):
    """The regenerated backbones are the golden ones, and the shipped linear weights real."""
    golden = _golden(shared, "lpips.npz")
    weights, sha = random_backbone("alex", 1801)
    assert sha == golden["alex_sha256"]
    for name, value in weights.items():
        want = golden[f"alex_q/{name}"] * golden[f"alex_scale/{name}"]
        np.testing.assert_array_equal(value, want)
    assert random_backbone("vgg", 1601)[1] == _golden(shared, "vgg_metrics.npz")["vgg_sha256"]
    for name in linear_names():
        np.testing.assert_array_equal(alex[name], golden[f"lin_alex_v0.1/{name}"])
        for net in NETS:
            shipped = load_file(LINEAR_FILE)[f"{net}/{name}"]
            np.testing.assert_array_equal(shipped, golden[f"lin_{net}_v0.1/{name}"])


def test_golden_lpips(shared, images, alex):
    golden, table = _golden(shared, "lpips.npz"), Table("LPIPS, AlexNet")
    names = [str(n) for n in golden["pairs"]]
    layers = _layers(alex, images, names)
    table.check("val/layers", layers, golden["val/layers"], 1e-5)
    for key in ("val/total", "val/total_norm01"):
        error = layers.sum(1) / golden[key] - 1  # relative for every pair
        table.check(key, error, np.zeros(len(names)), 1e-5, absolute=True)
    a, b = _pair(images, str(golden["spatial/pair"]))
    maps = metrics.lpips(alex, np.stack([a, b]), b, spatial=True, per_layer=True)
    table.check("spatial/map", maps[0].sum(0), golden["spatial/map"], 1e-5)
    table.check("spatial/layer1", maps[0, 1], golden["spatial/layer1"], 1e-5)
    assert np.abs(maps[1]).max() == 0  # the second sample is the truth itself
    baseline = {**alex, **{n: jnp.ones_like(alex[n]) for n in linear_names()}}
    got = _layers(baseline, images, names).sum(1)
    table.check("val/total_baseline", got, golden["val/total_baseline"], 1e-5)
    i = names.index(str(golden["spatial/pair"]))
    table.check(
        "val/total_spatial_mean", maps[0].sum(0).mean(), golden["val/total_spatial_mean"][i], 1e-5
    )
    table.finish()


def test_golden_features(shared, images, alex):
    golden, table = _golden(shared, "lpips.npz"), Table("AlexNet features")
    reference = _pair(images, str(golden["spatial/pair"]))[1]
    x = (np.float32(reference / 127.5 - 1)[None] - SHIFT) / SCALE
    table.check("scaled_input_corner", x[0, :4, :4], golden["feat/scaled_input_corner"], 1e-6)
    for k, f in enumerate(jax.jit(taps)(alex, x), start=1):
        b, c, h, w = golden[f"feat/relu{k}_shape"]
        assert f.shape == (b, h, w, c)
        f = np.asarray(f, np.float64)
        table.check(f"relu{k}_first8ch", f[0, ..., :8], golden[f"feat/relu{k}_first8ch"], 1e-5)
        got = [f.mean(), f.std(ddof=1)]
        table.check(f"relu{k}_mean_std", got, golden[f"feat/relu{k}_mean_std"], 1e-5)
    table.finish()


def test_golden_gradient(shared, images, alex):
    golden, table = _golden(shared, "lpips.npz"), Table("LPIPS gradient")
    a, b = (np.float32(x) / 255 for x in _pair(images, str(golden["grad/pair"])))
    value, gradient = jax.value_and_grad(lambda x: metrics.lpips(alex, x, b))(a)
    table.check("value_f64", value, golden["grad/value_f64"], 1e-5)
    # The golden one is with respect to the image in [-1,1].
    table.check("d_total_d_img0", gradient / 2, golden["grad/d_total_d_img0"], 1e-4)
    table.finish()


def test_golden_vgg(shared, images, vgg):
    golden, table = _golden(shared, "vgg_metrics.npz"), Table("LPIPS-VGG and DISTS")
    names = [str(n) for n in golden["pairs"]]
    params = metrics.load_lpips_weights(vgg, net="vgg")
    layers = _layers(params, images, names, net="vgg")
    table.check("val/lpips_vgg_layers", layers, golden["val/lpips_vgg_layers"], 1e-5)
    error = layers.sum(1) / golden["val/lpips_vgg_total"] - 1
    table.check("val/lpips_vgg_total", error, np.zeros(len(names)), 1e-5, absolute=True)
    own = {"alpha": golden["dists_alpha"], "beta": golden["dists_beta"]}
    params = metrics.load_dists_weights(own, vgg)
    got = [metrics.dists(params, *_pair(images, name)) for name in names]
    table.check("val/dists", got, golden["val/dists"], 3e-6, absolute=True)
    table.check("val/dists_f32_official", got, golden["val/dists_f32_official"], 3e-6, True)
    x = _pair(images, "coffee/blur")[1][None] / np.float32(255)
    pooled = jax.jit(lambda p, y: taps(p, y, "vgg", l2_pool=True))(params, (x - MEAN) / STD)
    for k, f in enumerate([x, *pooled]):
        want = golden[f"dists_feat/stage{k}_corner"]
        b, c, h, w = golden[f"dists_feat/stage{k}_shape"]
        assert f.shape == (b, h, w, c) and c == DISTS_CHANNELS[k]
        f = np.asarray(f, np.float64)
        table.check(f"stage{k}_corner", f[0, :4, :4, : want.shape[-1]], want, 1e-5)
        got = [f.mean(), f.std(ddof=1)]
        table.check(f"stage{k}_mean_std", got, golden[f"dists_feat/stage{k}_mean_std"], 1e-5)
    table.finish()


def test_golden_diversity(shared, alex):
    golden, table = _golden(shared, "diversity.npz"), Table("Diversity")
    samples, gt = golden["samples"], golden["gt"]
    maps = metrics.lpips(alex, samples, gt, spatial=True)
    table.check("lpips_maps", maps, golden["lpips_maps"], 1e-5)
    for source, given in (("own maps", maps), ("given maps", golden["lpips_maps"])):
        got = metrics.ntire_diversity(given)
        for key, own in (
            ("ntire/lpips_per_sample", "per_sample"),
            ("ntire/LPIPS_mean", "lpips_mean"),
            ("ntire/global_best", "global_best"),
            ("ntire/local_best", "local_best"),
        ):
            table.check(f"{key}, {source}", got[own], golden[key], 1e-5)
        table.check(f"ntire/score, {source}", got["score"], golden["ntire/score"], 1e-3, True)
        want = golden["ntire22_full/lpips_score_n"]
        table.check(f"lpips_score_n, {source}", got["score_n"], want, 1e-3, True)
    got = metrics.ntire_mse_diversity(samples, gt)
    table.check("mse_global", got["per_sample"], golden["ntire22_full/mse_global"], 1e-6)
    table.check("mse_local_best", got["local_best"], golden["ntire22_full/mse_local_best"], 1e-6)
    table.check("mse_score", got["score"], golden["ntire22_full/mse_score"], 1e-4, True)
    pairs = metrics.pairwise_lpips(alex, samples, spatial=True)
    table.check("pairwise_lpips_mean", pairs, golden["diversity/pairwise_lpips_mean"], 1e-5)
    table.finish()


def test_golden_ms_ssim(images):
    table, found = Table("MS-SSIM"), []
    for i, name in enumerate(images["pairs"]):
        if min(images[f"dist/{name}"].shape[:2]) >= 161:
            a, b = _pair(images, str(name))
            got = metrics.ms_ssim(a, b)
            assert metrics.ms_ssim(np.float32(a / 255), b / 255) == got
            found.append(i)
            table.check(f"piq_ms_ssim {name}", got, images["val/piq_ms_ssim"][i], 1e-12)
            want = images["val/torchmetrics_ms_ssim"][i]
            table.check(f"torchmetrics_ms_ssim {name}", got, want, 2e-4)
    assert found == list(np.flatnonzero(np.isfinite(images["val/piq_ms_ssim"])))
    table.finish()


def _ms_ssim_by_definition(a, b):
    """One channel; the 2-D window written out, odd sizes padded as piq does."""
    line = np.exp(-np.square(np.arange(-5, 6)) / 4.5)
    window = np.outer(line, line) / line.sum() ** 2

    def filtered(x):
        return signal.convolve2d(x, window, mode="valid")

    value = 1.0
    for scale, weight in enumerate([0.0448, 0.2856, 0.3001, 0.2363, 0.1333]):
        if scale:
            pad = max(a.shape[0] % 2, a.shape[1] % 2)
            a, b = (np.pad(x, ((pad, 0), (pad, 0)), mode="edge") for x in (a, b))
            h, w = a.shape[0] // 2, a.shape[1] // 2
            a, b = (x[: 2 * h, : 2 * w].reshape(h, 2, w, 2).mean((1, 3)) for x in (a, b))
        ma, mb = filtered(a), filtered(b)
        cov = filtered(a * b) - ma * mb
        var = filtered(a * a) - ma**2 + filtered(b * b) - mb**2
        term = (2 * cov + 58.5225) / (var + 58.5225)
        if scale == 4:
            term = term * (2 * ma * mb + 6.5025) / (ma**2 + mb**2 + 6.5025)
        value *= max(term.mean(), 0) ** weight
    return value


def test_ms_ssim_by_its_definition():
    rng = np.random.default_rng(0)
    a, noise = rng.integers(0, 200, (165, 178)), rng.integers(0, 40, (165, 178))
    a, b = a.astype(np.uint8), (a + noise).astype(np.uint8)
    want = _ms_ssim_by_definition(a.astype(float), b.astype(float))
    assert metrics.ms_ssim(a, b) == pytest.approx(want, rel=1e-12)
    assert metrics.ms_ssim(a, a) == pytest.approx(1)
    assert metrics.ms_ssim(a, 255 - a) == 0  # a negative covariance counts as 0
    colour = np.stack([a, a, b], axis=-1)
    assert metrics.ms_ssim(colour, np.stack([a, b, b], axis=-1)) == pytest.approx((2 + want) / 3)
    y = metrics.ms_ssim(np.stack([a] * 3, -1), np.stack([b] * 3, -1), y=True)
    assert y != want and y == pytest.approx(want, abs=0.02)
    with pytest.raises(ValueError, match="160x178 .* 161"):
        metrics.ms_ssim(a[:160], a[:160])
    with pytest.raises(ValueError, match="159x172 .* 161"):
        metrics.ms_ssim(a, a, crop=3)


def test_one_number_for_both_dtypes_and_batches(alex, photos):
    a, b = photos[:8], photos[8]
    batch = metrics.lpips(alex, a, b)
    assert batch.shape == (8,) and (np.diff(batch) > 0).all()  # more noise is farther
    for dtype in (np.float32, np.float64):
        same = metrics.lpips(alex, a.astype(dtype) / dtype(255), b)
        np.testing.assert_array_equal(same, batch)
    np.testing.assert_allclose(metrics.lpips(alex, b, a), batch, rtol=1e-5)  # symmetric
    layers = metrics.lpips(alex, a, b, per_layer=True)
    assert layers.shape == (8, 5)
    np.testing.assert_allclose(layers.sum(1), batch, rtol=1e-6)
    one = metrics.lpips(alex, a[3], b)
    assert isinstance(one, float) and one == pytest.approx(batch[3], rel=1e-5)
    assert metrics.lpips(alex, jnp.asarray(a[3], jnp.float32) / 255, b) == one
    assert metrics.lpips(alex, b, b) == 0
    np.testing.assert_array_equal(np.asarray(metrics.lpips(dict(alex), a, b)), batch)


def test_pairwise(alex, photos):
    samples = photos[:3]
    pairs = [(0, 1), (0, 2), (1, 2)]
    for spatial in (False, True):
        found = [metrics.lpips(alex, *samples[list(p)], spatial=spatial) for p in pairs]
        got = metrics.pairwise_lpips(alex, samples / 255, spatial=spatial)
        assert got == pytest.approx(np.mean(found), rel=1e-5)
    with pytest.raises(ValueError, match="N >= 2"):
        metrics.pairwise_lpips(alex, samples[:1])


def test_under_transformations(alex):
    """Inside jit, vmap and grad; the smallest size; no NaN where all features are equal."""
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 2, 31, 31, 3), dtype=np.float32)
    batch = metrics.lpips(alex, a, b)
    assert np.isfinite(batch).all() and (batch > 0).all()
    inside = jax.jit(jax.vmap(lambda x, y: metrics.lpips(alex, x, y)))(a, b)
    np.testing.assert_allclose(inside, batch, rtol=1e-5)
    black = np.zeros((1, 31, 31, 3), np.float32)
    dead = {k: v if v.ndim > 1 else jnp.full_like(v, -1e4) for k, v in alex.items()}
    for params in (alex, dead):
        gradient = jax.grad(lambda x, p=params: metrics.lpips(p, x, black)[0])(black)
        assert np.isfinite(gradient).all()
    with pytest.raises(ValueError, match="float in .0,1. while traced, got dtype uint8"):
        jax.jit(lambda x: metrics.lpips(alex, x, x))(black.astype(np.uint8))


def test_dists_properties(vgg):
    weights = np.random.default_rng(0).random((2, sum(DISTS_CHANNELS)), dtype=np.float32)
    params = metrics.load_dists_weights(dict(zip(("alpha", "beta"), weights, strict=True)), vgg)
    a, b = np.random.default_rng(1).integers(0, 256, (2, 2, 16, 16, 3), dtype=np.uint8)
    batch = metrics.dists(params, a, b)
    assert batch.shape == (2,) and (batch > 0).all()
    np.testing.assert_array_equal(metrics.dists(params, a / 255, np.float32(b / 255)), batch)
    assert np.abs(metrics.dists(params, a, a)).max() < 1e-6
    one = metrics.dists(params, a[0], b)
    assert one[0] == pytest.approx(batch[0], abs=1e-6) and one.shape == (2,)
    gradient = jax.grad(lambda x: metrics.dists(params, x, b / 255)[0])(np.float32(a / 255))
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_l2_pool_is_its_convolution():
    x = np.random.default_rng(0).random((1, 7, 6, 2))
    hann = np.outer([0.25, 0.5, 0.25], [0.25, 0.5, 0.25])
    padded = np.pad(x**2, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))[:, ::2, ::2]
    want = np.sqrt(np.einsum("bhwcij,ij->bhwc", windows, hann) + 1e-12)
    np.testing.assert_allclose(pool_l2(jnp.asarray(x, jnp.float32)), want, rtol=1e-6)
    assert want.shape == (1, 4, 3, 2)


def test_weight_files(tmp_path, alex, backbone, monkeypatch):
    """Every kind of file gives the same parameters; nothing is made up when it is absent."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    hub = tmp_path / "torch" / "hub" / "checkpoints"
    with pytest.raises(FileNotFoundError) as absent:
        metrics.load_lpips_weights()
    for part in (NETS["alex"].file, str(hub), "https://download.pytorch.org", "random weights"):
        assert part in str(absent.value)
    hub.mkdir(parents=True)
    classifier = {"classifier.6.bias": np.zeros(1000, np.float32)}
    tree, storages = {}, {}
    for key, value in {**backbone, **classifier}.items():
        strides = [int(s) // 4 for s in np.zeros(value.shape, np.float32).strides]
        tree[key] = tf.tensor(value.shape, strides, key=key, count=value.size)
        storages[key] = value.tobytes()
    tf.write_zip(hub / NETS["alex"].file, tf.ordered(**tree), storages)
    np.savez(tmp_path / "backbone.npz", **backbone)
    slices = {"0": 1, "3": 2, "6": 3, "8": 4, "10": 5}
    whole = {
        f"net.slice{slices[index]}.{index}.{kind}": value
        for (_, index, kind), value in ((k.split("."), v) for k, v in backbone.items())
    }
    twice = {name: 2 * np.asarray(alex[name]) for name in linear_names()}
    save_file({**whole, **twice}, tmp_path / "whole.safetensors")
    save_file(twice, tmp_path / "linear.safetensors")
    cases = {
        None: 1,
        tmp_path / "backbone.npz": 1,
        tmp_path / "whole.safetensors": 2,
        str(tmp_path / "linear.safetensors"): 2,  # its backbone is the one of torch.hub
        (tmp_path / "backbone.npz", tmp_path / "linear.safetensors"): 2,
    }
    for paths, factor in cases.items():
        got = metrics.load_lpips_weights(paths)
        assert set(got) == set(alex)
        for name, value in got.items():
            want = alex[name] * (factor if name.startswith("lin") else 1)
            np.testing.assert_array_equal(value, want)


A = np.zeros((31, 33, 3), np.uint8)
REFUSED = {
    "net": (lambda p: metrics.lpips(p, A, A, net="squeeze"), "net = 'squeeze' is not one of"),
    "small": (lambda p: metrics.lpips(p, A[:30], A[:30]), "30x33 .*'alex' needs at least 31"),
    "shapes": (lambda p: metrics.lpips(p, A, A[:, 1:]), "one shape"),
    "batches": (
        lambda p: metrics.lpips(p, np.stack([A, A]), np.stack([A] * 3)),
        r"\(2, 31, 33, 3\) and \(3,",
    ),
    "grey": (lambda p: metrics.lpips(p, A[..., 0], A[..., 0]), "must be RGB"),
    "alpha": (lambda p: metrics.lpips(p, np.zeros((31, 31, 4)), A), "must be RGB"),
    "nan": (lambda p: metrics.lpips(p, A * np.nan, A), "not finite"),
    "-1..1": (lambda p: metrics.lpips(p, A - 1.0, A), r"for images in .-1,1.: \(x \+ 1\) / 2"),
    "0..255": (lambda p: metrics.lpips(p, A + 200.0, A), "floats span 200..200"),
    "integers": (lambda p: metrics.lpips(p, A.astype(int), A), "dtype int64"),
    "other weights": (
        lambda p: metrics.lpips(p, A, A, net="vgg"),
        "lack 22 tensors of VGG16 .*features.2.weight",
    ),
    "no dict": (lambda p: metrics.lpips(list(p), A, A), "got list"),
    "no alpha": (lambda p: metrics.dists(p, A, A), "tensors of VGG16"),
    "another net's file": (
        lambda p: metrics.load_lpips_weights(
            {k: np.zeros(s, np.float32) for k, s in NETS["vgg"].shapes().items()}
        ),
        "lack 6 tensors of AlexNet",
    ),
    "shape": (
        lambda p: metrics.load_lpips_weights({**p, "features.3.bias": np.zeros(64)}),
        r"features.3.bias has the shape \(64,\), AlexNet .* \(192,\)",
    ),
    "weights not finite": (
        lambda p: metrics.load_lpips_weights({**p, "features.3.bias": np.full(192, np.nan)}),
        "features.3.bias holds values that are not finite",
    ),
    "maps": (lambda p: metrics.ntire_diversity(np.zeros((3, 4))), r"\[N,H,W\]"),
    "negative maps": (lambda p: metrics.ntire_diversity(-np.ones((1, 2, 2))), "not negative"),
    "truth": (lambda p: metrics.ntire_mse_diversity(A[None], A[1:]), "of the same size"),
}


@pytest.mark.parametrize("label", REFUSED)
def test_refused(label, alex):
    call, message = REFUSED[label]
    with pytest.raises(ValueError, match=message):
        call(alex)


def test_smallest_vgg_images(vgg):
    params = metrics.load_lpips_weights(vgg, net="vgg")
    with pytest.raises(ValueError, match="15x33 .*'vgg' needs at least 16"):
        metrics.lpips(params, A[:15], A[:15], net="vgg")
    assert metrics.lpips(params, A[:16, :16], 255 - A[:16, :16], net="vgg") > 0
    own = dict.fromkeys(("alpha", "beta"), np.ones(sum(DISTS_CHANNELS), np.float32))
    with pytest.raises(ValueError, match="15x33 .* DISTS needs at least 16"):
        metrics.dists({**vgg, **own}, A[:15], A[:15])


def test_ntire_score_by_hand():
    maps = np.array([[[1.0, 3.0]], [[4.0, 2.0]]])
    got = metrics.ntire_diversity(maps)
    assert (got["global_best"], got["local_best"]) == (2, 1.5)
    assert got["score"] == pytest.approx(25) and got["lpips_mean"] == 2.5
    assert got["score_n"].tolist() == [0, 25]
    assert metrics.ntire_diversity(maps[:1])["score"] == 0
    assert metrics.ntire_diversity(np.stack([maps[0]] * 4))["score"] == 0
    assert metrics.ntire_diversity(0 * maps)["score"] == 0  # a perfect sample
    # One wrong pixel of the first sample: its box mean is spread over 16 x 16 positions.
    samples = np.zeros((2, 5, 6, 3), np.uint8)
    samples[0, 2, 3] = 16
    got = metrics.ntire_mse_diversity(samples, np.zeros((5, 6, 3)))
    assert got["per_sample"] == pytest.approx([256 / (20 * 21), 0])
    assert got["global_best"] == 0 and got["score"] == 0
