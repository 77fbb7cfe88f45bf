"""Invertible rescaling of files: down and up again, marks, misuse, exit statuses."""

import functools
import importlib.util
import io
import json
import struct
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

import flowsr_jax
from flowsr_jax.console import Summary, UsageError
from flowsr_jax.drawing import Downscaler, Sampler, image_key, image_strips
from flowsr_jax.files.images import read_image, read_rgb, write_png
from flowsr_jax.files.transparency import fill_hidden
from flowsr_jax.math.resize import imresize
from flowsr_jax.metrics import to_uint8
from flowsr_jax.models.irn import IRNConfig
from flowsr_jax.models.irn.compression import RestorerConfig
from flowsr_jax.models.irn.network import init
from flowsr_jax.upscaling import downscale_files, restore_files, upscale_files
from flowsr_jax.upscaling.mark import KEYWORD, Mark, MarkError, identity, read_mark

ROOT = Path(__file__).parents[1]
POOR = "the result will be poor"


@functools.cache
def make(scale, **options):
    """A tiny IRN, moved away from its start, where every block is the identity."""
    config = IRNConfig(scale=scale, blocks=(1,), growth=4, **options)
    rng = np.random.default_rng(0)

    def move(p):
        return p + 0.05 * rng.standard_normal(p.shape).astype(np.float32)

    return jax.tree.map(move, init(config, jax.random.key(0)))


def load_main(name):
    spec = importlib.util.spec_from_file_location(f"launch_{name}", ROOT / "launch" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def smooth(height, width, seed=0):
    """A picture with neighbours alike, uint8."""
    small = np.random.default_rng(seed).uniform(40, 215, (height // 6 + 2, width // 6 + 2, 3))
    return imresize(small, 6)[:height, :width].clip(0, 255).astype(np.uint8)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def deep_png(pixels):
    """The bytes of a 16-bit colour PNG."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    out = b"\x89PNG\r\n\x1a\n"
    for name, content in (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ):
        out += struct.pack(">I", len(content)) + name + content
        out += struct.pack(">I", zlib.crc32(name + content))
    return out


def lr_of(params, pixels):
    """The LR image that the public function makes of the padded image, uint8."""
    s = params.config.scale
    h, w = pixels.shape[:2]
    top = np.iinfo(pixels.dtype).max
    hr = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
    hr = np.pad(hr, [(0, -h % s), (0, -w % s), (0, 0)], mode="reflect")
    return np.asarray(flowsr_jax.downscale(params, hr[None].astype(np.float32) / top))[0]


def hr_of(params, lr, size, grey=False):
    hr = np.asarray(flowsr_jax.upscale(params, lr[None]))[0, : size[0], : size[1]]
    return to_uint8(hr @ np.float32([0.299, 0.587, 0.114]) if grey else hr)


def kinds(folder, s):
    """Files of awkward kinds and sizes; {name: (mode of the result, stored pixels)}."""
    alpha = np.zeros((13, 20), np.uint8)
    alpha[3:9, 4:15] = 200
    colour, grey = smooth(13, 20), smooth(13, 20, seed=1)[..., 0]
    made = {
        "rgb": ("RGB", smooth(2 * s + 1, 3 * s - 1)),
        "line": ("RGB", smooth(1, 2 * s)),
        "sub/deep/grey": ("L", grey),
        "sub/rgba": ("RGBA", np.dstack([colour, alpha])),
        "la": ("LA", np.dstack([grey, alpha])),
        "grey16": ("L", grey * np.uint16(257) + np.uint16(90)),
    }
    for name, (_, pixels) in made.items():
        save(folder / f"{name}.png", pixels)
    return made


@pytest.mark.parametrize("scale", [2, 3])
def test_down_then_up(tmp_path, scale, capsys):
    params = make(scale)
    made = kinds(tmp_path / "in", scale)
    (tmp_path / "in" / "broken.png").write_bytes(b"\x89PNG no more")
    found = downscale_files(params, tmp_path / "in", tmp_path / "lr")
    assert found == Summary(written=len(made), skipped=0, failed=1)
    assert "broken.png: failed: " in capsys.readouterr().err
    assert restore_files(params, tmp_path / "lr", tmp_path / "hr") == Summary(len(made), 0, 0)
    said = capsys.readouterr()
    assert said.err == "" and "images/s" in said.out and " left)\n" in said.out
    for name, (mode, pixels) in made.items():
        size = pixels.shape[:2]
        alpha = pixels[..., -1] if mode.endswith("A") else None
        colours = pixels[..., :-1].squeeze() if mode.endswith("A") else pixels
        if alpha is not None:  # what alpha hides is filled
            colours = fill_hidden(colours, alpha)
        with Image.open(tmp_path / "lr" / f"{name}.png") as file:
            assert file.mode == ("RGB" if alpha is None else "RGBA") and file.info
            lr = np.array(file)
        np.testing.assert_array_equal(lr[..., :3], lr_of(params, colours), err_msg=name)
        with Image.open(tmp_path / "hr" / f"{name}.png") as file:
            assert file.mode == mode and file.size == size[::-1]
            hr = np.array(file)
        if alpha is not None:
            np.testing.assert_array_equal(lr[..., 3], imresize(alpha, 1 / scale))
            wanted = imresize(lr[..., 3], scale)[: size[0], : size[1]]
            np.testing.assert_array_equal(hr[..., -1], wanted)
            hr = hr[..., :-1].squeeze()
        wanted = hr_of(params, lr[..., :3], size, grey=mode[0] == "L")
        np.testing.assert_allclose(hr.astype(int), wanted, atol=1, err_msg=name)
        assert (hr != wanted).mean() < 0.01


def test_the_model_is_told_from_its_weights():
    params = make(2)
    assert identity(params) == identity(jax.tree.map(np.asarray, params))
    assert identity(params) == identity(make(2, restorer=RestorerConfig(nf=4, nb=1, gc=4)))
    moved = jax.tree.map(lambda p: p * np.float32(1.0001), params)
    assert identity(params) != identity(moved) and identity(params) != identity(make(3))


def test_z_is_drawn_when_asked_for(tmp_path):
    params, rgb = make(2), smooth(9, 12)
    write_png(tmp_path / "a.png", rgb)
    downscale_files(params, tmp_path / "a.png", tmp_path / "lr")
    lr, pictures = read_rgb(tmp_path / "lr" / "a.png"), {}
    for name, how in {
        "zero": {},
        "cold": {"seed": 5, "temperature": 0.0},
        "warm": {"temperature": 0.5},
        "same": {"temperature": 0.5, "seed": 0},
        "seed": {"temperature": 0.5, "seed": 1},
        "default": {"seed": 0},
        "one": {"temperature": 1.0},
    }.items():
        restore_files(params, tmp_path / "lr", tmp_path / name, **how)
        pictures[name] = read_rgb(tmp_path / name / "a.png")
    for a, b in (("zero", "cold"), ("warm", "same"), ("default", "one")):
        np.testing.assert_array_equal(pictures[a], pictures[b])
    for a, b in (("zero", "warm"), ("warm", "seed"), ("warm", "one")):
        assert (pictures[a] != pictures[b]).any()
    assert upscale_files(params, tmp_path / "lr", tmp_path / "sample", seed=0).written
    np.testing.assert_array_equal(read_rgb(tmp_path / "sample" / "a.png"), pictures["one"])
    assert lr.shape == (5, 6, 3) and pictures["zero"].shape == rgb.shape


@pytest.mark.parametrize("scale", [2, 3])
def test_tiled_is_untiled(scale):
    """Odd sizes: the last window begins between the squares of the noise."""
    params, key = make(scale), image_key(0, "a")
    hr = smooth(103 * scale - 1, 121 * scale)

    def run(sampler, pixels, key):
        strips = list(image_strips(sampler, pixels, key))
        return np.concatenate(strips, axis=1)[0], len(strips)

    whole, one = run(Downscaler(params, tile=0), hr, None)
    tiled, several = run(Downscaler(params, tile=32), hr, None)
    assert whole.shape == (103, 121, 3) and one == 1 and several > 1
    np.testing.assert_allclose(tiled, whole, atol=0.1 / 255)
    lr = to_uint8(whole)
    np.testing.assert_array_equal(lr, lr_of(params, hr))
    for temperature in (0.0, 0.5):
        whole, tiled = (
            run(Sampler(params, temperature=temperature, tile=t), lr, key)[0] for t in (0, 32)
        )
        assert whole.shape == (103 * scale, 121 * scale, 3)
        np.testing.assert_allclose(tiled, whole, atol=0.1 / 255)


def test_colour_and_grey(tmp_path):
    """IRN-Color: the LR image is the grey one of the same size."""
    params = make(1)
    save(tmp_path / "in" / "a.png", smooth(7, 9))
    save(tmp_path / "in" / "b.png", smooth(7, 9)[..., 0])
    assert downscale_files(params, tmp_path / "in", tmp_path / "lr").written == 2
    lr = np.array(Image.open(tmp_path / "lr" / "a.png"))
    np.testing.assert_array_equal(lr, lr_of(params, smooth(7, 9))[..., 0])
    assert restore_files(params, tmp_path / "lr", tmp_path / "hr").written == 2
    hr = np.array(Image.open(tmp_path / "hr" / "a.png"))
    wanted = hr_of(params, lr[..., None], (7, 9))
    np.testing.assert_allclose(hr.astype(int), wanted, atol=1)
    assert Image.open(tmp_path / "hr" / "b.png").mode == "L"


# --- LR files that `down` did not make


@pytest.fixture(scope="module")
def lr_file(tmp_path_factory):
    """An LR file of make(2) with alpha, 7x5 pixels."""
    folder = tmp_path_factory.mktemp("lr_file")
    save(folder / "in.png", np.dstack([smooth(9, 14), smooth(9, 14, seed=3)[..., 0]]))
    downscale_files(make(2), folder / "in.png", folder / "out")
    return folder / "out" / "in.png"


def resaved(source, path, pixels=None, **text):
    """Write pixels (None: those of the file) with the mark of a file, its fields changed."""
    image = Image.open(source)
    info = PngImagePlugin.PngInfo()
    info.add_text(KEYWORD, json.dumps(json.loads(image.text[KEYWORD]) | text))
    save(path, np.array(image) if pixels is None else pixels, pnginfo=info)


def attempt(params, path, capsys, run=restore_files):
    """(summary, what was said on stderr, pixels or None)."""
    capsys.readouterr()
    found = run(params, path, path.parent / "out", overwrite=True)
    out = path.parent / "out" / f"{path.stem}.png"
    return found, capsys.readouterr().err, read_image(out).pixels if found.written else None


def test_mark_of_another_scale(tmp_path, lr_file, capsys):
    found, said, _ = attempt(make(3), lr_file, capsys)
    assert found == Summary(0, 0, 1)
    assert "in.png: failed: was made at scale 2, but the model's scale is 3" in said


def test_mark_of_other_weights(tmp_path, lr_file, capsys):
    other = jax.tree.map(lambda p: p * np.float32(1.1), make(2))
    found, said, out = attempt(other, lr_file, capsys)
    assert found == Summary(1, 0, 0) and out.shape == (9, 14, 3)
    assert said.count("warning:") == 1 and POOR in said
    assert identity(make(2)) in said and identity(other) in said


@pytest.mark.parametrize("run", [restore_files, upscale_files])
def test_unmarked_files_are_restored_with_a_warning(tmp_path, run, capsys):
    lr = smooth(5, 7)
    write_png(tmp_path / "a.png", lr)
    found, said, out = attempt(make(2), tmp_path / "a.png", capsys, run)
    assert found == Summary(1, 0, 0) and out.shape == (10, 14, 3)
    assert said.count("a.png: warning: ") == 1 and "not super-resolution: " + POOR in said
    if run is restore_files:
        np.testing.assert_allclose(out.astype(int), hr_of(make(2), lr, (10, 14)), atol=1)


def test_jpeg_is_taken_with_a_warning(tmp_path, lr_file, capsys):
    save(tmp_path / "a.jpg", np.array(Image.open(lr_file))[..., :3])
    found, said, out = attempt(make(2), tmp_path / "a.jpg", capsys)
    assert found == Summary(1, 0, 0) and out.shape == (10, 14, 3)
    assert said.count("warning: JPEG") == 1 and POOR in said
    repairing = make(2, restorer=RestorerConfig(nf=4, nb=1, gc=4))
    found, said, repaired = attempt(repairing, tmp_path / "a.jpg", capsys)
    assert found.written == 1 and said == "" and (repaired != out).any()
    assert attempt(make(2), lr_file, capsys)[1] == ""
    exact = attempt(make(2), lr_file, capsys)[2]
    # What is stored without loss needs no repair.
    np.testing.assert_array_equal(attempt(repairing, lr_file, capsys)[2], exact)


def test_alpha_needs_the_mark(tmp_path, lr_file, capsys):
    save(tmp_path / "a.png", np.array(Image.open(lr_file)))
    found, said, _ = attempt(make(2), tmp_path / "a.png", capsys)
    assert found == Summary(0, 0, 1)
    assert "a.png: failed: has an alpha channel that `flowsr rescale down` did not" in said
    resaved(lr_file, tmp_path / "a.png", alpha=False)
    assert attempt(make(2), tmp_path / "a.png", capsys)[0].failed == 1
    resaved(lr_file, tmp_path / "a.png")
    assert attempt(make(2), tmp_path / "a.png", capsys)[0].written == 1
    resaved(lr_file, tmp_path / "a.png", np.array(Image.open(lr_file))[..., :3])  # removed since
    found, said, out = attempt(make(2), tmp_path / "a.png", capsys)
    assert found.written == 1 and said == "" and out.shape == (9, 14, 3)


def test_more_than_8_bits_are_refused(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "rgb.png").write_bytes(deep_png(smooth(4, 5).astype(np.uint16) * 257))
    save(tmp_path / "in" / "grey.png", smooth(4, 5)[..., 0] * np.uint16(257))
    save(tmp_path / "in" / "float.tif", smooth(4, 5)[..., 0] / np.float32(255))
    (tmp_path / "in" / "wide.ppm").write_bytes(b"P6 2 1 1023\n" + bytes(12))
    assert restore_files(make(2), tmp_path / "in", tmp_path / "out") == Summary(0, 0, 4)
    assert capsys.readouterr().err.count(": failed: has more than 8 bits per channel") == 4


def test_depth_of_files_is_told(tmp_path):
    rgb = smooth(4, 5)
    for suffix in ("png", "tif", "bmp", "ppm", "gif", "jpg", "webp"):
        save(tmp_path / f"a.{suffix}", rgb)
        assert not read_image(tmp_path / f"a.{suffix}").deep, suffix
    (tmp_path / "565.bmp").write_bytes(
        b"BM" + struct.pack("<IHHI", 58, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 1, 1, 1, 16, 0, 4, 0, 0, 0, 0) + bytes(4)
    )  # fmt: skip
    assert not read_image(tmp_path / "565.bmp").deep
    (tmp_path / "deep.png").write_bytes(deep_png(rgb.astype(np.uint16) * 257))
    assert read_image(tmp_path / "deep.png").deep


# --- Marks that anybody wrote

GOOD = {
    "format": 1, "family": "irn", "weights": "0" * 16, "scale": 2, "height": 9, "width": 14,
    "grey": False, "alpha": False,
}  # fmt: skip
NONSENSE = {
    "no JSON": ("{", "is not JSON"),
    "deep": ("[" * 900, "is not JSON"),
    "a list": ("[1]", "is no JSON object"),
    "infinite": (GOOD | {"scale": 1e400}, "scale is not of type int"),
    "format": (GOOD | {"format": 2}, "format is not 1"),
    "format true": (GOOD | {"format": True}, "format is not 1"),
    "missing": ({k: v for k, v in GOOD.items() if k != "alpha"}, "alpha is not of type bool"),
    "truth": (GOOD | {"height": True}, "height is not of type int"),
    "family": (GOOD | {"family": "x\ny"}, "family is no name"),
    "weights": (GOOD | {"weights": "0" * 17}, "weights are not 16 hex digits"),
    "scale 0": (GOOD | {"scale": 0}, "scale or size is out of range"),
    "huge": (GOOD | {"scale": 10**300}, "scale or size is out of range"),
    "negative": (GOOD | {"height": -1}, "scale or size is out of range"),
    "size": (GOOD | {"height": 11}, "14x11 at scale 2 do not give 7x5 pixels"),
    "other scale": (GOOD | {"scale": 3}, "14x9 at scale 3 do not give 7x5 pixels"),
}


@pytest.mark.parametrize("label", NONSENSE)
def test_nonsense_marks(label):
    record, message = NONSENSE[label]
    text = record if isinstance(record, str) else json.dumps(record)
    with pytest.raises(MarkError, match=message):
        read_mark({KEYWORD: text}, 5, 7)


def test_marks_are_read():
    mark = Mark("irn", "0123456789abcdef", 4, 9, 14, grey=True, alpha=False)
    assert read_mark(mark.text(), 3, 4) == mark
    assert read_mark({KEYWORD: json.dumps(GOOD | {"more": 1})}, 5, 7).scale == 2
    assert read_mark({}, 3, 4) is None


def test_nonsense_is_as_good_as_no_mark(tmp_path, lr_file, capsys):
    rgb = np.array(Image.open(lr_file))[..., :3]
    resaved(lr_file, tmp_path / "a.png", rgb, height=10**9)
    found, said, out = attempt(make(2), tmp_path / "a.png", capsys)
    assert found.written == 1 and out.shape == (10, 14, 3)
    assert "its mark makes no sense (14x1000000000 at scale 2" in said and POOR in said


def test_long_texts_are_left_out(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text(KEYWORD, "x" * 100_000, zip=True)
    info.add_text("Comment", "short")
    save(tmp_path / "a.png", smooth(4, 4), pnginfo=info)
    assert dict(read_image(tmp_path / "a.png").text) == {"Comment": "short"}


# --- Batches and statuses


def test_a_stopped_batch_goes_on(tmp_path, monkeypatch):
    params = make(2)
    for name in "abc":
        save(tmp_path / "in" / f"{name}.png", smooth(6, 8))
    draw, drawn = Downscaler.draw, []

    def stop(self, *args):
        drawn.append(1)
        if len(drawn) == 2:
            raise KeyboardInterrupt
        return draw(self, *args)

    monkeypatch.setattr(Downscaler, "draw", stop)
    with pytest.raises(KeyboardInterrupt):
        downscale_files(params, tmp_path / "in", tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a.png"]
    again = downscale_files(params, tmp_path / "in", tmp_path / "out")
    assert again == Summary(written=2, skipped=1, failed=0)
    assert downscale_files(params, tmp_path / "in", tmp_path / "out", overwrite=True).written == 3


def test_weights_that_explode(tmp_path, capsys):
    write_png(tmp_path / "a.png", smooth(6, 8))
    broken = jax.tree.map(lambda p: p * np.float32(np.nan), make(2))
    assert downscale_files(broken, tmp_path / "a.png", tmp_path / "out").failed == 1
    said = capsys.readouterr().err
    assert "non-finite pixels" in said and "drawing again" not in said
    assert not list((tmp_path / "out").iterdir())


def test_requests_that_cannot_be_carried_out(tmp_path):
    write_png(tmp_path / "a.png", smooth(4, 4))
    demo = flowsr_jax.load("demo")
    for run in (downscale_files, restore_files):
        with pytest.raises(UsageError, match="family 'srflow' is no rescaling model"):
            run(demo, tmp_path / "a.png", tmp_path / "out")
        with pytest.raises(UsageError, match="tile = 3 must be"):
            run(make(2), tmp_path / "a.png", tmp_path / "out", tile=3)
        with pytest.raises(UsageError, match="no such file or folder"):
            run(make(2), tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(UsageError, match="temperature must be finite"):
        restore_files(make(2), tmp_path / "a.png", tmp_path / "out", temperature=-1.0)
    with pytest.raises(UsageError, match="seed = -1 must be"):
        restore_files(make(2), tmp_path / "a.png", tmp_path / "out", seed=-1)
    with pytest.raises(UsageError, match="back_project is for bicubic LR images"):
        upscale_files(make(2), tmp_path / "a.png", tmp_path / "out", back_project=True)
    assert not (tmp_path / "out").exists()


def test_commands(tmp_path, capsys):
    rescale, sample = load_main("rescale"), load_main("sample")
    save(tmp_path / "in" / "sub" / "a.png", smooth(7, 9))
    save(tmp_path / "in" / "b.png", smooth(7, 9)[..., 0])
    flowsr_jax.save(make(2), tmp_path / "model")

    def call(main, *args, source="lr", out="hr", model=tmp_path / "model"):
        paths = ["-i", str(tmp_path / source), "-o", str(tmp_path / out), "-n", str(model)]
        status = main([*args[:1], *paths, *args[1:]])
        return status, capsys.readouterr()

    assert call(rescale, "down", source="in", out="lr")[0] == 0
    assert call(rescale, "up")[0] == 0
    assert read_rgb(tmp_path / "hr" / "sub" / "a.png").shape == (7, 9, 3)
    status, said = call(rescale, "up", "--seed", "1", "--temperature", "0.5")
    assert (status, said.out.splitlines()[-1]) == (0, "0 written, 2 skipped, 0 failed")
    options = ["--overwrite", "--tile", "32", "--seed", "1", "--temperature", "0.5"]
    status, said = call(rescale, "up", *options)
    assert (status, said.out.splitlines()[-1]) == (0, "2 written, 0 skipped, 0 failed")
    status, said = call(sample, "--num-samples=2", out="samples")  # the size is that of the mark
    assert status == 0 and said.err == ""
    assert read_image(tmp_path / "samples" / "b_1.png").pixels.shape == (7, 9)
    assert "warning:" in call(sample, "--seed=0", source="in", out="sr")[1].err

    (tmp_path / "lr" / "bad.png").write_bytes(b"")
    assert call(rescale, "up")[0] == 1
    for verb in ("down", "up"):
        status, said = call(rescale, verb, source="in", out="x", model="demo")
        assert status == 2 and said.err.count("\n") == 1 and "no rescaling model" in said.err
    assert call(rescale, "up", "--temperature", "nan")[0] == 2
    for bad in (["sideways"], ["down", "--seed", "1"], []):
        with pytest.raises(SystemExit) as info:
            rescale([*bad, "-i", "a", "-o", "b", "-n", "c"])
        assert info.value.code == 2


def test_texts_of_the_lr_file_are_plain(lr_file):
    with Image.open(io.BytesIO(lr_file.read_bytes())) as file:
        assert file.text["Comment"].startswith("LR image that the rescaling model irn 2x made of")
        assert json.loads(file.text[KEYWORD])["weights"] == identity(make(2))
