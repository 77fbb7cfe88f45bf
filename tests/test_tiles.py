"""Tiles: a tiled picture is the untiled one, drawn window by window from the same noise."""

import dataclasses
import functools
import itertools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flowsr_jax
from flowsr_jax.drawing import Sampler, image_strips
from flowsr_jax.drawing.noise import threefry, window_noise
from flowsr_jax.drawing.tiles import (
    RAMP,
    floor_length,
    padded_length,
    padded_size,
    ramp,
    reflected,
    spans,
)
from flowsr_jax.models import FAMILIES, get_family
from flowsr_jax.models.base import Family, Params
from flowsr_jax.models.rrdb.config import RRDBConfig
from flowsr_jax.models.srflow import SRFlowConfig
from flowsr_jax.upscaling import upscale_image

KEY = jax.random.key(7)
SMALL = SRFlowConfig(
    encoder=RRDBConfig(scale=2, nf=6, gc=4, nb=1), steps=(1, 1), hidden=6, stacked_blocks=(0,)
)


@dataclasses.dataclass(frozen=True)
class NoisyConfig:
    """2x nearest neighbour and noise of two resolutions, blurred: reaches 3 LR pixels far."""

    family: ClassVar[str] = "noisy"
    scale: ClassVar[int] = 2
    limit: float = 1e9  # noise beyond it makes a pixel non-finite


def _enlarged(x, factor):
    return jnp.repeat(jnp.repeat(x, factor, axis=-3), factor, axis=-2)


def _blurred(x):
    """Means of 3x3 pixels, zeros outside: so that the border of a window can be seen."""
    wide = jnp.pad(x, [(0, 0)] * (x.ndim - 3) + [(1, 1), (1, 1), (0, 0)])
    h, w = x.shape[-3:-1]
    return sum(wide[..., i : i + h, j : j + w, :] for i in range(3) for j in range(3)) / 9


@functools.partial(jax.jit, static_argnames="num_samples")
def _sample(params, lr, key, *, temperature=None, num_samples=None, noise=None):
    temperature = 1.0 if temperature is None else temperature
    fine, coarse = noise
    x = _enlarged(lr, 2) * params["gain"] + temperature * (fine + _enlarged(coarse, 4)) / 4
    for _ in range(5):
        x = _blurred(x)
    return jnp.where(jnp.abs(_enlarged(coarse, 4)) > params.config.limit, jnp.nan, x)


NOISY = Family(
    name="noisy",
    config_class=NoisyConfig,
    init=lambda config, key: Params({"gain": jnp.ones(3)}, config),
    losses={},
    sample=_sample,
    noise_shapes=lambda config, lr: [
        (lr[0], 2 * lr[1], 2 * lr[2], 3),
        (lr[0], lr[1] // 2, lr[2] // 2, 3),
    ],
    multiple=lambda config: 2,
)


def make_noisy(**config):
    return NOISY.init(NoisyConfig(**config), None)


@pytest.fixture(autouse=True)
def noisy():
    with FAMILIES.using("noisy", NOISY):
        yield


@pytest.fixture(scope="module")
def small():
    """A random SRFlow, filled by NumPy: its own initialisation takes seconds to compile."""
    rng = np.random.default_rng(0)

    def fill(path, x):
        values = rng.standard_normal(x.shape, np.float32)
        return np.linalg.qr(values).Q if path[-1].key == "weight" else 0.1 * values

    shapes = jax.eval_shape(functools.partial(get_family("srflow").init, SMALL), KEY)
    return jax.tree_util.tree_map_with_path(fill, shapes)


def _rgb(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _draw(params, rgb, tile, **options):
    sampler = Sampler(params, tile=tile, **options)
    return np.concatenate(list(image_strips(sampler, rgb, KEY)), axis=1)


# --- Where windows lie


def test_padded_lengths_are_few_and_not_much_too_long():
    lengths = [padded_length(n) for n in range(1, 1025)]
    assert sorted(set(lengths)) == [*range(32, 257, 32), 320, 384, 448, 512, 640, 768, 896, 1024]
    for n, padded in enumerate(lengths, 1):
        assert n <= padded <= max(n + 31, 1.25 * n)
        assert padded_length(padded) == padded == floor_length(padded)
        assert floor_length(n) <= max(n, 32) and padded_length(floor_length(n)) == floor_length(n)
    assert all(padded_length(n, 48) % 48 == 0 for n in range(1, 400))
    assert all(floor_length(n, 64) % 64 == 0 for n in range(1, 400))


def test_sizes_are_few_and_depend_on_the_image_alone():
    sides = range(1, 257, 5)
    sizes = {padded_size(h, w) for h in sides for w in sides}
    assert sizes == {(n, n) for n in (32, 64, 128, 192, 256)}
    for size in [*itertools.product(range(1, 600, 37), repeat=2)]:
        padded = padded_size(*size)
        assert all(n <= m for n, m in zip(size, padded, strict=True))
        assert padded_size(*padded) == padded
    assert padded_size(300, 20) == (320, 32) and padded_size(1000, 700) == (1024, 768)
    assert all(n % 48 == 0 for n in padded_size(50, 60, 48))


@pytest.mark.parametrize("step", [16, 64])
def test_windows_cover_an_axis(step):
    for length in [*range(1, 300, 7), 1000, 30000]:
        plane = padded_length(length, step)
        for window in {min(plane, w) for w in (64, 128, 192, 320)}:
            if window < 2 * step and window != plane:
                continue
            found = spans(length, window, step)
            total = np.zeros(length)
            for i, span in enumerate(found):
                assert span.start % step == 0 and 0 <= span.start <= plane - window
                weights = np.ones(span.last - span.first)
                if i:
                    rise = ramp(len(weights), 1)
                    weights[: len(rise)] = rise
                    assert span.first - span.start >= 8
                if i + 1 < len(found):
                    shared = span.last - found[i + 1].first
                    assert 0 < shared <= RAMP
                    weights[-shared:] -= ramp(shared, 1)
                    assert span.start + window - span.last >= 8
                total[span.first : span.last] += weights
            np.testing.assert_allclose(total, 1, atol=1e-6)
            # At its end an image meets the padded plane's border, or it is out of reach.
            assert found[-1].start + window in (plane, max(plane, length + 8)) or (
                found[-1].start + window >= length + 8
            )


def test_reflection_is_that_of_numpy():
    for n in (1, 2, 3, 10):
        wanted = np.pad(np.arange(n), (0, 25), mode="reflect")
        np.testing.assert_array_equal(reflected(0, n + 25, n), wanted)
        np.testing.assert_array_equal(reflected(5, 9, n), wanted[5:14])


# --- The noise


def test_noise_depends_on_the_place_alone():
    shapes = [(1, 32, 32, 3), (1, 8, 8, 5)]
    window = jax.jit(window_noise, static_argnums=(4, 5))
    whole = window(KEY, jnp.arange(3), 2, 1, (4, 5), tuple(shapes))
    assert [x.shape for x in whole] == [(3, 1, 128, 160, 3), (3, 1, 32, 40, 5)]
    part = window(KEY, jnp.array([2]), 3, 2, (2, 3), tuple(shapes))
    for x, y, side in zip(whole, part, (32, 8), strict=True):
        np.testing.assert_array_equal(x[2, :, side : 3 * side, side : 4 * side], y[0])
        assert abs(float(x.mean())) < 0.02 and abs(float(x.std()) - 1) < 0.02
    # No square, sample or resolution repeats another one.
    fine = np.asarray(whole[0]).reshape(3, 4, 32, 5, 32, 3).swapaxes(2, 3).reshape(60, -1)
    assert np.abs(np.corrcoef(fine) - np.eye(60)).max() < 0.1
    assert abs(np.corrcoef(fine[0][:320], np.ravel(whole[1][0, 0, :8, :8]))[0, 1]) < 0.2


def test_all_kinds_of_keys_are_taken():
    raw = jax.random.PRNGKey(3)
    assert (jax.random.key_data(threefry(raw)) == raw).all()
    assert threefry(jax.random.key(3, impl="rbg")).dtype == threefry(raw).dtype == KEY.dtype


def test_noise_in_place_of_a_key(small):
    lr = jax.random.uniform(KEY, (2, 4, 6, 3))
    shapes = get_family("srflow").noise_shapes(SMALL, lr.shape)
    noise = [np.random.default_rng(0).standard_normal(s, np.float32) for s in shapes]
    out = flowsr_jax.sample(small, lr, None, noise=noise, temperature=0.7)
    scaled = [np.float32(0.7) * z for z in noise]
    same = flowsr_jax.sample(small, lr, None, noise=scaled, temperature=1.0)
    np.testing.assert_allclose(out, same, atol=1e-6)
    assert np.abs(out - flowsr_jax.sample(small, lr, None, noise=noise, temperature=0.0)).max() > 0
    with pytest.raises(ValueError, match=r"noise must have the shapes \[\(3, 2, 2, 3, 48\)\]"):
        flowsr_jax.sample(small, lr, None, noise=noise, num_samples=3)
    with pytest.raises(TypeError, match="key must be one PRNG key"):
        flowsr_jax.sample(small, lr, None)
    rrdb = Params(small["encoder"], SMALL.encoder)
    with pytest.raises(ValueError, match="family 'rrdb' draws no noise"):
        flowsr_jax.sample(rrdb, lr, None, noise=noise)


# --- Tiled is untiled


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize(
    ("size", "tile"), [((70, 150), 32), ((129, 290), 64), ((33, 97), 32), ((200, 8), 64)]
)
def test_tiled_equals_untiled_everywhere(size, tile, temperature):
    """The receptive field, 3 LR pixels, is smaller than what tiles give away (8)."""
    rgb, params = _rgb(*size), make_noisy()
    how = {"num_samples": 2, "temperature": temperature}
    whole = _draw(params, rgb, 0, **how)
    assert whole.shape == (2, 2 * size[0], 2 * size[1], 3)
    assert (whole[0] == whole[1]).all() == (temperature == 0)
    windows = [Sampler(params, tile=t, **how).window(*size) for t in (tile, 0)]
    assert windows[0][:2] != windows[1][:2]
    np.testing.assert_allclose(_draw(params, rgb, tile, **how), whole, atol=2e-6)


def test_strips_are_as_high_as_tiles():
    sampler = Sampler(make_noisy(), tile=64)
    rows = [strip.shape[1] for strip in image_strips(sampler, _rgb(300, 40), KEY)]
    assert sum(rows) == 600 and len(rows) == 5 and all(n % 2 == 0 for n in rows)
    assert max(rows) <= 2 * 96


def test_tiled_srflow_equals_untiled_beyond_its_receptive_field(small):
    rgb, warm = _rgb(100, 200), {"temperature": 0.9}
    field = 0
    for row, column in ((40, 90), (50, 100)):  # how far a change is felt, in LR pixels
        other = rgb.copy()
        other[row, column] = 255 - other[row, column]
        moved = np.abs(_draw(small, rgb, 0, **warm) - _draw(small, other, 0, **warm))
        moved = moved.max(axis=(0, 3)) > 1e-6
        y, x = (np.flatnonzero(moved.any(axis=a)) / 2 for a in (1, 0))
        field = max(field, row - y[0], y[-1] - row, column - x[0], x[-1] - column)
    sampler = Sampler(small, tile=64)
    window = sampler.window(100, 200)[:2]
    assert window == (96, 96) and 4 < field < 30
    inside = []  # pixels that are no closer to a window's border than the field
    for n, plane in ((100, 128), (200, 224)):
        safe = np.ones(n, bool)
        for span in spans(n, 96, 16):
            place = np.arange(span.first, span.last)
            near = (span.start > 0) & (place - span.start < field)
            near |= (span.start + 96 < plane) & (span.start + 95 - place < field)
            safe[place] &= ~near
        inside.append(np.repeat(safe, 2))
    inside = np.ix_(*inside)
    for temperature in (0.0, 0.8):
        whole, tiled = (_draw(small, rgb, t, temperature=temperature)[0] for t in (0, 64))
        error = np.abs(tiled - whole)
        print(
            f"T={temperature}: field {field:g}, largest error {error[inside].max():.1e} on "
            f"{error[inside].size / error.size:.0%} beyond it, {error.max():.1e} anywhere"
        )
        assert error[inside].size > 0.3 * error.size and error[inside].max() < 1e-5
        assert error.max() < 0.5 / 255  # no seam


def test_only_the_tile_that_fails_is_drawn_again():
    rgb = _rgb(150, 150)
    how = {"tile": 64, "temperature": 0.5, "num_samples": 2}
    whole = upscale_image(make_noisy(), rgb, KEY, **how)
    said = []
    broken = make_noisy(limit=4.2)
    out = upscale_image(broken, rgb, KEY, **how, say=said.append)
    assert 1 <= len(said) <= 3 and all("of 2 samples; drawing again (1 of 3)" in x for x in said)
    same = (out == whole).all(axis=-1).mean()
    assert 0.5 < same < 1
