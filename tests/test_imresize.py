"""imresize against MATLAB-compatible reference arrays and published LR files."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from flowsr_jax.math import resize
from flowsr_jax.math.resize import imresize, imresize_window

CUT = Path(__file__).parent / "data" / "imresize.npz"


def request_of(name: str) -> dict:
    """Return the arguments of a golden array: "down4", "up2", "to_20x31"."""
    if name.startswith("to_"):
        return {"output_shape": tuple(int(n) for n in name[3:].split("x"))}
    return {"scale": 1 / int(name[4:]) if name.startswith("down") else int(name[2:])}


def compare_golden(path: Path) -> int:
    arrays, count = np.load(path), 0
    for key in arrays:
        image, name, kind = key.split("/") if key.count("/") == 2 else (None, None, None)
        if image is None:
            continue
        count += 1
        x, wanted, arguments = arrays[f"{image}/in_{kind}"], arrays[key], request_of(name)
        found = imresize(x, **arguments)
        assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
        error = np.abs(found.astype(np.float64) - wanted).max()
        traced = np.asarray(jax.jit(lambda v, a=arguments: imresize(v, **a))(x))
        error_jit = np.abs(traced.astype(np.float64) - wanted).max() / np.abs(wanted).max()
        print(f"{key}: numpy {error:.1e}, jit {error_jit:.1e} relative")
        assert error <= (0 if kind == "uint8" else 1e-12), key
        assert error_jit <= (0 if kind == "uint8" else 1e-6), key
    return count


def test_golden_cut():
    assert compare_golden(CUT) >= 10


def test_golden_all(shared):
    assert compare_golden(shared / "golden" / "imresize_matlab.npz") == 23


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_set5_lr_files_byte_for_byte(shared, scale):
    files = sorted((shared / "data" / "Set5").glob("*.png"))
    assert len(files) == 5
    for file in files:
        hr = np.asarray(Image.open(file).convert("RGB"))
        hr = hr[: hr.shape[0] // scale * scale, : hr.shape[1] // scale * scale]
        lr = np.asarray(Image.open(file.parent / f"LR_x{scale}" / file.name).convert("RGB"))
        older = {"border": "replicate", "uint8_stages": True}
        found = imresize(hr, 1 / scale, **older)
        traced = np.asarray(jax.jit(lambda v: imresize(v, 1 / scale, **older))(hr))  # noqa: B023
        print(f"{file.name} x{scale}: jit differs in {(traced != lr).sum()} of {lr.size}")
        np.testing.assert_array_equal(found, lr)
        assert np.abs(traced.astype(int) - lr).max() <= 1
        assert (traced != lr).mean() < 1e-3
        assert (imresize(hr, 1 / scale) != lr).mean() > 0.001  # the default is another rule


def test_half_way_values_follow_the_border_rule():
    # Away from the edges a linear ramp keeps its values: here k + 0.5.
    image = np.tile(np.arange(16, dtype=np.uint8), (4, 1))
    inner = (1, slice(2, -2))
    even = imresize(image, output_shape=(4, 8))
    up = imresize(image, output_shape=(4, 8), border="replicate")
    np.testing.assert_array_equal(even[inner], [4, 6, 8, 10])  # of 4.5, 6.5, 8.5, 10.5
    np.testing.assert_array_equal(up[inner], [5, 7, 9, 11])
    for border, wanted in (("symmetric", even), ("replicate", up)):
        found = imresize(jnp.asarray(image), output_shape=(4, 8), border=border)
        np.testing.assert_array_equal(found, wanted)


def test_without_stages_one_rounding_at_the_end(rng):
    image = rng.integers(0, 256, (24, 20, 3), dtype=np.uint8)
    plain = np.rint(imresize(image.astype(np.float64), 1 / 4)).clip(0, 255)
    found = imresize(image, 1 / 4, uint8_stages=False)
    np.testing.assert_array_equal(found, plain)
    assert (imresize(image, 1 / 4) != found).any()
    np.testing.assert_array_equal(imresize(jnp.asarray(image), 1 / 4, uint8_stages=False), plain)


def test_ranks_agree(rng):
    batch = rng.random((2, 13, 9, 4))
    whole = imresize(batch, 0.6)
    assert whole.shape == (2, 8, 6, 4)
    np.testing.assert_array_equal(imresize(batch[1], 0.6), whole[1])
    np.testing.assert_array_equal(imresize(batch[1, :, :, 2], 0.6), whole[1, :, :, 2])


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
def test_numpy_stays_numpy_and_keeps_its_dtype(rng, dtype):
    image = (rng.random((12, 12, 3)) * 255).astype(dtype)
    before = image.copy()
    found = imresize(image, 1 / 3)
    assert type(found) is np.ndarray and found.dtype == dtype
    np.testing.assert_array_equal(image, before)
    if dtype == np.float32:  # computed in float64, rounded once
        np.testing.assert_array_equal(found, imresize(image.astype(float), 1 / 3).astype(dtype))


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.bfloat16, jnp.float32])
def test_jax_stays_jax_and_keeps_its_dtype(dtype):
    found = imresize(jnp.ones((12, 12, 3), dtype), 2)
    assert isinstance(found, jax.Array) and found.dtype == dtype and found.shape == (24, 24, 3)


def test_scale_one_changes_nothing(rng):
    image = rng.integers(0, 256, (7, 5, 3), dtype=np.uint8)
    np.testing.assert_array_equal(imresize(image, 1), image)


@pytest.mark.parametrize("limit", [resize.MAX_MATRIX, 0], ids=["matrix", "gather"])
@pytest.mark.parametrize("scale", [1 / 4, 3])
def test_gradient_is_the_transpose(rng, monkeypatch, limit, scale):
    monkeypatch.setattr(resize, "MAX_MATRIX", limit)
    x = rng.standard_normal((11, 14, 2))
    y = imresize(x, scale)
    v = rng.standard_normal(y.shape)
    found, pullback = jax.vjp(lambda a: imresize(a, scale), jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(found, y, atol=2e-6)
    (back,) = pullback(jnp.asarray(v, jnp.float32))
    np.testing.assert_allclose(np.vdot(back, x), np.vdot(v, y), rtol=1e-5)


def test_vmap_equals_a_batch(rng):
    batch = jnp.asarray(rng.random((3, 10, 12, 2)), jnp.float32)
    found = jax.vmap(lambda image: imresize(image, 1 / 2))(batch)
    np.testing.assert_allclose(found, imresize(batch, 1 / 2), atol=1e-6)


@pytest.mark.parametrize("scale", [1 / 2, 1 / 3, 1 / 4, 1 / 8, 0.37, 1, 2.5])
@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_window_equals_the_crop_of_the_whole(rng, scale, dtype):
    image = (rng.random((53, 70, 3)) * 255).astype(dtype)
    whole = imresize(image, scale)
    m, n = whole.shape[:2]
    windows = [(0, 0, m, n), (0, n - 1, 1, 1), (m - 2, 0, 2, 3), (m // 3, n // 4, m // 2, n // 2)]
    for top, left, height, width in windows:
        found = imresize_window(image, scale, top, left, height, width)
        np.testing.assert_array_equal(found, whole[top : top + height, left : left + width])


@pytest.mark.parametrize("window", [(-1, 0, 2, 2), (0, 0, 2, 0), (0, 5, 2, 2), (5, 0, 2, 2)])
def test_window_outside_is_refused(window):
    with pytest.raises(ValueError, match=r"must lie inside 0\.\.6"):
        imresize_window(np.zeros((12, 12, 3)), 1 / 2, *window)


@pytest.mark.parametrize(
    ("image", "arguments", "message"),
    [
        (np.zeros((4, 4)), {}, "either scale or output_shape"),
        (np.zeros((4, 4)), {"scale": 2, "output_shape": (2, 2)}, "either scale or output_shape"),
        (np.zeros((4, 4)), {"scale": 0}, "above 0, got 0"),
        (np.zeros((4, 4)), {"scale": -0.5}, "above 0, got -0.5"),
        (np.zeros((4, 4)), {"scale": float("nan")}, "above 0, got nan"),
        (np.zeros((4, 4)), {"scale": (2, 2)}, "one static number"),
        (np.zeros((4, 4)), {"output_shape": (2, 0)}, r"got \(2, 0\)"),
        (np.zeros((4, 4)), {"output_shape": 3}, "got 3"),
        (np.zeros((4, 4)), {"output_shape": (2.5, 2)}, r"got \(2.5, 2\)"),
        (np.zeros(4), {"scale": 2}, r"got shape \(4,\)"),
        (np.zeros((1, 1, 4, 4, 3)), {"scale": 2}, r"got shape \(1, 1, 4, 4, 3\)"),
        (np.zeros((0, 4, 3)), {"scale": 2}, "no pixels"),
        (np.zeros((4, 4), np.int64), {"scale": 2}, "got int64"),
        (jnp.zeros((4, 4), bool), {"scale": 2}, "got bool"),
        (np.zeros((4, 4)), {"scale": 2, "border": "reflect"}, "'symmetric', 'replicate'"),
    ],
)
def test_errors_name_what_came(image, arguments, message):
    with pytest.raises(ValueError, match=message):
        imresize(image, **arguments)


def test_a_traced_scale_is_refused():
    with pytest.raises(ValueError, match="one static number"):
        jax.jit(lambda s: imresize(jnp.zeros((4, 4)), s))(0.5)


@pytest.fixture
def rng():
    return np.random.default_rng(0)
