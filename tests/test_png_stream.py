"""PNG files written row by row are what Pillow reads, whole or not there; heat maps."""

import io
import os
import stat
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from flowsr_jax.files import png_stream
from flowsr_jax.files.atomic import atomic_write, remove_leftovers
from flowsr_jax.files.heat_map import heat_map
from flowsr_jax.files.png_stream import PngRows, open_png

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def _image(height, width, channels, smooth=True):
    rng = np.random.default_rng(height + width + channels)
    image = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    if smooth:
        waves = np.sin(np.arange(height)[:, None, None] / 9) + np.cos(np.arange(width) / 7)[:, None]
        image = (image // 16 + 55 * (2 + waves)).astype(np.uint8)
    return image


@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize("channels", MODES)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 7), (1, 300), (300, 1), (40, 50)])
def test_pillow_reads_back_every_pixel(tmp_path, height, width, channels, smooth):
    image = _image(height, width, channels, smooth)
    with open_png(tmp_path / "a.png", height, width, channels) as png:
        for start in range(0, height, 7):
            png.write(image[start : start + 7])
    with Image.open(tmp_path / "a.png") as read:
        assert read.mode == MODES[channels] and read.size == (width, height)
        read.load()
        np.testing.assert_array_equal(np.array(read).reshape(image.shape), image)


def test_the_pieces_do_not_change_the_pixels(monkeypatch):
    image = _image(90, 33, 3)
    files = []
    for block, pieces in ((1 << 20, [90]), (1, [90]), (500, [1, 0, 40, 49])):
        monkeypatch.setattr(png_stream, "BLOCK_BYTES", block)
        file = io.BytesIO()
        png = PngRows(file, *image.shape)
        for part in np.split(image, np.cumsum(pieces)[:-1]):
            png.write(part)
        png.finish()
        np.testing.assert_array_equal(np.array(Image.open(file)), image)
        files.append(len(file.getvalue()))
    assert max(files) < 1.02 * min(files)  # each row is filtered against the one above it


def test_as_small_and_fast_as_pillow():
    data = pytest.importorskip("skimage.data")
    image = np.tile(data.astronaut(), (2, 2, 1))
    sizes, seconds = [], []
    for ours in (True, False):
        start, file = time.perf_counter(), io.BytesIO()
        if ours:
            png = PngRows(file, *image.shape)
            png.write(image)
            png.finish()
        else:
            Image.fromarray(image).save(file, format="PNG")
        seconds.append(time.perf_counter() - start)
        sizes.append(len(file.getvalue()))
    print(f"bytes {sizes}, seconds {seconds} (ours, Pillow)")
    assert sizes[0] < 1.15 * sizes[1] and seconds[0] < 10 * seconds[1]


def test_text_is_recorded(tmp_path):
    text = {"Description": "0 to 25 grey levels", "Author": "é"}
    with open_png(tmp_path / "a.png", 1, 1, 3, text) as png:
        png.write(np.zeros((1, 1, 3), np.uint8))
    assert Image.open(tmp_path / "a.png").text == text


def _too_many(png):
    png.write(np.zeros((3, 4, 3), np.uint8))


def _too_few(png):
    png.write(np.zeros((1, 4, 3), np.uint8))


def _wrong_width(png):
    png.write(np.zeros((1, 5, 3), np.uint8))


def _floats(png):
    png.write(np.zeros((1, 4, 3)))


@pytest.mark.parametrize("fault", [_too_many, _too_few, _wrong_width, _floats])
def test_a_fault_leaves_the_old_file(tmp_path, fault):
    (tmp_path / "a.png").write_text("old")
    with pytest.raises(ValueError, match="rows"), open_png(tmp_path / "a.png", 2, 4) as png:
        fault(png)
    assert os.listdir(tmp_path) == ["a.png"] and (tmp_path / "a.png").read_text() == "old"


def test_impossible_sizes(tmp_path):
    for size in ((0, 4, 3), (4, 0, 3), (2**31, 1, 3), (1, 1, 5)):
        with pytest.raises(ValueError), open_png(tmp_path / "a.png", *size):
            pass
    assert not os.listdir(tmp_path)


def test_file_has_ordinary_permissions(tmp_path):
    with open_png(tmp_path / "a.png", 1, 1, 1) as png:
        png.write(np.zeros((1, 1), np.uint8))
    (tmp_path / "plain").write_bytes(b"")
    assert len({stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}) == 1


@pytest.mark.skipif(os.name != "posix", reason="leftovers are recognised on POSIX systems only")
def test_leftovers_of_dead_processes_are_removed(tmp_path):
    code = (
        "import os, signal, sys\n"
        "from flowsr_jax.files.atomic import atomic_write\n"
        "with atomic_write(sys.argv[1]) as file:\n"
        "    file.write(b'half')\n"
        "    file.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "a.png"])
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".tmp-") and left.read_bytes() == b"half"
    strangers = [".tmp-elsewhere-1-0123456789abcdef", ".tmp-notes", "b.png"]
    for name in strangers:
        (tmp_path / name).write_bytes(b"")
    with atomic_write(tmp_path / "c.png") as file:
        remove_leftovers(tmp_path)
        file.write(b"x")
    assert sorted(os.listdir(tmp_path)) == sorted([*strangers, "c.png"])
    remove_leftovers(tmp_path / "missing")


def test_heat_map_is_inferno():
    values = np.linspace(0, 25, 256).reshape(16, 16)
    out = heat_map(values, 25.0)
    assert out.dtype == np.uint8 and out.shape == (16, 16, 3)
    np.testing.assert_array_equal(
        heat_map([-1, 0, 25, 1e9], 25.0)[[0, 2]], [out[0, 0], out[-1, -1]]
    )
    brightness = out.reshape(-1, 3) @ [0.299, 0.587, 0.114]
    assert (np.diff(brightness) > -1).all() and brightness[-1] > 200
    with pytest.raises(ValueError, match="top = 0"):
        heat_map(values, 0)
    colormaps = pytest.importorskip("matplotlib").colormaps
    wanted = colormaps["inferno"](values / 25.0, bytes=True)[..., :3].astype(int)
    assert np.abs(out - wanted).max() <= 7
