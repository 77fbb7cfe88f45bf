"""FID, KID and CMMD against the golden values; calibration of samples that obey a law."""

import numpy as np
import pytest
from golden_tools import Table
from safetensors.numpy import save_file

from flowsr_jax import metrics

CASES = ("well", "small", "shifted", "same", "equaln")
METHODS = ("eigh", "basicsr", "ttur", "torch_fidelity", "torchmetrics")


@pytest.fixture(scope="module")
def golden(shared):
    with np.load(shared / "golden" / "fid.npz") as file:
        return {key: file[key] for key in file.files}


@pytest.mark.parametrize("case", CASES)
def test_golden(golden, case):
    table = Table(f"FID and KID, {case}")
    x, y = golden[f"{case}/feat1"], golden[f"{case}/feat2"]
    stats = [golden[f"{case}/{key}"] for key in ("mu1", "sigma1", "mu2", "sigma2")]
    own = [*metrics.feature_stats(x), *metrics.feature_stats(y)]
    for name, got, want in zip(("mu1", "sigma1", "mu2", "sigma2"), own, stats, strict=True):
        table.check(name, got, want, 1e-12)
    # The methods differ from each other by 2e-8 where there are fewer images than features.
    limit, absolute = {"small": (1e-7, False), "same": (1e-12, True)}.get(case, (1e-12, False))
    for method in METHODS:
        want = golden[f"{case}/fid_{method}"]
        table.check(f"{method}, features", metrics.fid(x, y), want, limit, absolute)
        table.check(f"{method}, statistics", metrics.fid_from_stats(*stats), want, limit, absolute)
    want = golden[f"{case}/fid_float32_eigvals"]
    table.check("float32 eigenvalues", metrics.fid(x, y), want, 1e-3, absolute)
    want = golden[f"{case}/kid_general_unbiased"]
    table.check("kid_general_unbiased", metrics.kid(x, y), want, 1e-12)
    if len(x) == len(y):
        table.check(
            "kid_unbiased_all", metrics.kid(x, y), golden[f"{case}/kid_unbiased_all"], 1e-12
        )
        want = golden[f"{case}/kid_biased_all"]
        table.check("kid_biased_all", metrics.kid(x, y, biased=True), want, 1e-12, absolute=True)
    want = golden[f"{case}/mmd_rbf_sigma10_biased_x1000"]
    table.check("mmd_rbf_sigma10", metrics.cmmd(x, y, normalize=False), want, 1e-10, absolute=True)
    if case == "equaln":
        got = metrics.kid_subsets(x, y, indices=golden["equaln/kid_subset_indices"])
        # torch-fidelity keeps the features in float32.
        table.check("kid_subsets_mean_std", got, golden["equaln/kid_subsets_mean_std"], 1e-5)
    table.finish()


@pytest.fixture(scope="module")
def sets():
    rng = np.random.default_rng(0)
    return rng.normal(size=(60, 8)), 0.5 + rng.normal(size=(70, 8)) * 1.3


def test_known_gaussians():
    """Commuting covariances: |mu|^2 + sum (s1 - s2)^2; few images agree with many features."""
    s1, s2 = np.array([1.0, 2.0, 0.0]), np.array([3.0, 2.0, 1.0])
    got = metrics.fid_from_stats(np.zeros(3), np.diag(s1**2), np.array([0, 0, 2.0]), np.diag(s2**2))
    assert got == pytest.approx(4 + 4 + 0 + 1)
    x, y = np.random.default_rng(1).normal(size=(2, 5, 40))
    both = metrics.fid_from_stats(*metrics.feature_stats(x), *metrics.feature_stats(y))
    assert metrics.fid_from_features(x, y) == pytest.approx(both, rel=1e-6)
    # Five images span four directions: adding features of zero changes nothing.
    wider = [np.pad(v, ((0, 0), (0, 30))) for v in (x, y)]
    assert metrics.fid_from_features(*wider) == pytest.approx(metrics.fid_from_features(x, y))


def test_kernel_sums_in_blocks(sets, monkeypatch):
    x, y = sets
    whole = metrics.kid(x, y), metrics.kid(x, y, biased=True), metrics.cmmd(x, y)
    monkeypatch.setattr("flowsr_jax.metrics.distribution.BLOCK", 7)
    assert (metrics.kid(x, y), metrics.kid(x, y, biased=True), metrics.cmmd(x, y)) == (
        pytest.approx(whole)
    )
    scaled = metrics.cmmd(3 * x, y / 2)
    assert scaled == pytest.approx(whole[2])  # rows have unit length
    assert metrics.cmmd(x, x) == pytest.approx(0, abs=1e-9)


def test_subsets_are_seeded(sets):
    x, y = sets
    draw = metrics.kid_subsets(x, y, subsets=20, size=30, seed=1)
    assert draw == metrics.kid_subsets(x, y, subsets=20, size=30, seed=1)
    assert draw != metrics.kid_subsets(x, y, subsets=20, size=30, seed=2)
    mean, std = draw
    assert abs(mean - metrics.kid(x, y)) < 4 * std / np.sqrt(20) + 0.1 * abs(mean) and std > 0
    # Without replacement: a subset of everything is everything.
    assert metrics.kid_subsets(x, y[:60], subsets=2, size=60) == pytest.approx(
        (metrics.kid(x, y[:60]), 0)
    )


def test_files(tmp_path, sets):
    x, y = sets
    np.save(tmp_path / "x.npy", x.astype(np.float32))
    np.savez(tmp_path / "features.npz", features=y, labels=np.zeros(70))
    np.savez(tmp_path / "one.npz", pool_3=y)
    mu, sigma = metrics.feature_stats(y)
    np.savez(tmp_path / "stats.npz", mu=mu, sigma=sigma)
    save_file({"mu": mu, "sigma": sigma}, tmp_path / "stats.safetensors")
    first = x.astype(np.float32).astype(np.float64)
    np.testing.assert_array_equal(metrics.read_features(tmp_path / "x.npy"), first)
    want = metrics.fid_from_features(first, y)
    for name in ("features.npz", "one.npz", "stats.npz", "stats.safetensors"):
        assert metrics.fid(str(tmp_path / "x.npy"), tmp_path / name) == pytest.approx(want)
    assert metrics.read_features(tmp_path / "stats.npz").sigma.shape == (8, 8)


def test_files_refused(tmp_path, sets):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    pickled = np.array([[Bomb()]], dtype=object)
    np.save(tmp_path / "pickled.npy", pickled, allow_pickle=True)
    np.savez(tmp_path / "pickled.npz", features=pickled)
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "empty.npy").write_text("")
    np.savez(tmp_path / "two.npz", a=sets[0], b=sets[1])
    np.savez(tmp_path / "sigma.npz", mu=np.zeros(3), sigma=np.zeros((3, 2)))
    np.save(tmp_path / "flat.npy", np.zeros(5))
    for name, message in {
        "pickled.npy": "damaged",
        "pickled.npz": "damaged|refused|claims",
        "text.npy": "damaged",
        "empty.npy": "damaged",
        "two.npz": "holds a, b; wanted are mu and sigma",
        "sigma.npz": r"must be .d., sigma",
        "flat.npy": r"numbers \[n,d\]",
    }.items():
        with pytest.raises(ValueError, match=message) as error:
            metrics.read_features(tmp_path / name)
        assert name in str(error.value) and not (tmp_path / "ran").exists()
    for name in ("absent.npy", "absent.npz"):
        with pytest.raises(FileNotFoundError, match=name):
            metrics.read_features(tmp_path / name)


X = np.zeros((4, 3))
SAMPLES = np.zeros((4, 6, 5, 3), np.uint8)
REFUSED = {
    "one row": (lambda: metrics.fid(X[:1], X), "n >= 2"),
    "other features": (lambda: metrics.kid(X, X[:, :2]), "3 and 2 features per image"),
    "text": (lambda: metrics.kid(X, X.astype(str)), "must be numbers"),
    "nan": (lambda: metrics.fid(X, X * np.nan), "features2 has 12 values not finite"),
    "no symmetry": (
        lambda: metrics.fid_from_stats([0, 0], [[1, 2], [0, 1]], [0, 0], np.eye(2)),
        "sigma1 is not symmetric",
    ),
    "lengths": (lambda: metrics.fid_from_stats([0], [[1]], [0, 0], np.eye(2)), "got 1 and 2"),
    "subset": (lambda: metrics.kid_subsets(X, X, size=5), "size in 2..4"),
    "sigma": (lambda: metrics.cmmd(X, X, sigma=0), "sigma = 0"),
    "zero row": (lambda: metrics.cmmd(X, X + 1), "all zero"),
    "one sample": (lambda: metrics.spread_skill(SAMPLES[:1], SAMPLES[0]), "at least 2 samples"),
    "level": (lambda: metrics.coverage(SAMPLES, SAMPLES[0], 1.5), "level = 1.5"),
    "sizes": (lambda: metrics.rank_histogram(SAMPLES, SAMPLES[0, 1:]), "of the same size"),
}


@pytest.mark.parametrize("label", REFUSED)
def test_refused(label):
    call, message = REFUSED[label]
    with pytest.raises(ValueError, match=message):
        call()


def _draws(spread, dtype=np.float64):
    """K = 9 samples and a truth of one law, except that the samples have another spread."""
    rng = np.random.default_rng(0)
    mean = 0.3 + 0.4 * rng.random((40, 40, 3))
    truth = mean + 0.05 * rng.normal(size=mean.shape)
    samples = mean + 0.05 * spread * rng.normal(size=(9, *mean.shape))
    return [np.rint(255 * x).astype(np.uint8) if dtype == np.uint8 else x for x in (samples, truth)]


@pytest.mark.parametrize("dtype", [np.float64, np.uint8])
def test_calibrated_samples(dtype):
    samples, truth = _draws(1.0, dtype)
    found = metrics.spread_skill(samples, truth)
    assert found["ratio"] == pytest.approx(1, abs=0.03)
    assert found["mse"] == pytest.approx((1 + 1 / 9) * (0.05 * 255) ** 2, rel=0.05)
    counts = metrics.rank_histogram(samples, truth)
    assert counts.shape == (10,) and counts.sum() == truth.size
    assert np.square(counts / 480 - 1).sum() * 480 < 30  # chi square of 9 degrees of freedom
    if dtype == np.float64:  # rounding widens intervals that include their ends
        assert metrics.coverage(samples, truth, 1.0) == pytest.approx(0.8, abs=0.02)
    assert metrics.coverage(samples, truth, 0.5) < metrics.coverage(samples, truth, 0.9)


def test_overconfident_samples():
    samples, truth = _draws(0.5)
    assert metrics.spread_skill(samples, truth)["ratio"] < 0.6
    counts = metrics.rank_histogram(samples, truth)
    assert counts[0] > 2 * counts[5] and counts[9] > 2 * counts[4]


def test_ties_are_broken_at_random():
    samples, truth = np.zeros((3, 30, 30, 3), np.uint8), np.zeros((30, 30, 3), np.uint8)
    counts = metrics.rank_histogram(samples, truth, seed=1)
    np.testing.assert_array_equal(counts, metrics.rank_histogram(samples, truth, seed=1))
    assert np.abs(counts / 675 - 1).max() < 0.15
    assert metrics.spread_skill(samples, truth)["ratio"] == 1
