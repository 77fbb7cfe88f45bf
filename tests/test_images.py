"""Image files: each awkward kind is read right, or refused with one line that names it."""

import os
import stat
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from flowsr_jax.files import images
from flowsr_jax.files.images import ImageError, read_image, read_rgb, write_png

COLOUR = np.array([200, 100, 50], np.uint8)


def _rgb(height=4, width=6):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def _png(path, width, height, depth, colour, data, chunks=b""):
    """A PNG written by hand: also kinds and sizes that Pillow does not write."""

    def chunk(name, content):
        body = name + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunks
        + chunk(b"IDAT", zlib.compress(data))
        + chunk(b"IEND", b"")
    )
    return path


def test_round_trip_is_exact_and_an_ordinary_file(tmp_path):
    rgb = _rgb(5, 7)
    write_png(tmp_path / "a.png", rgb)
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png"), rgb)
    assert os.listdir(tmp_path) == ["a.png"]
    (tmp_path / "plain").write_bytes(b"")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a.png", "plain")}
    assert len(modes) == 1


def test_interrupted_write_keeps_the_old_file(tmp_path, monkeypatch):
    rgb = _rgb()
    write_png(tmp_path / "a.png", rgb)

    def stop(self, file, **options):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        write_png(tmp_path / "a.png", 255 - rgb)
    monkeypatch.undo()
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png"), rgb)
    assert os.listdir(tmp_path) == ["a.png"]


@pytest.mark.parametrize(
    "bad", [_rgb().astype(np.float32), _rgb()[..., 0], np.zeros((0, 3, 3), np.uint8)]
)
def test_write_refuses_what_is_not_uint8_rgb(tmp_path, bad):
    with pytest.raises(ValueError, match="uint8"):
        write_png(tmp_path / "a.png", bad)
    assert not os.listdir(tmp_path)


def test_palette_grey_bilevel_and_cmyk(tmp_path):
    flat = Image.new("RGB", (6, 4), tuple(COLOUR))
    flat.quantize(4).save(tmp_path / "palette.png")
    flat.quantize(4).save(tmp_path / "palette.gif")
    flat.convert("CMYK").save(tmp_path / "cmyk.tif")
    for name in ("palette.png", "palette.gif", "cmyk.tif"):
        out = read_rgb(tmp_path / name)
        assert out.shape == (4, 6, 3) and out.dtype == np.uint8
        assert np.abs(out.astype(int) - COLOUR).max() <= 2, name
    grey = _rgb()[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "grey.png"), np.repeat(grey[..., None], 3, 2))
    Image.fromarray(grey > 127).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "bits.png")[..., 1], (grey > 127) * 255)


def test_cmyk_jpeg(tmp_path):
    Image.new("RGB", (16, 16), tuple(COLOUR)).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read_rgb(tmp_path / "a.jpg").astype(int) - COLOUR).max() <= 4


def test_alpha_is_kept_apart_and_laid_over_white(tmp_path):
    rgba = np.dstack([_rgb(), np.array([0, 64, 128, 192, 254, 255] * 4, np.uint8).reshape(4, 6)])
    Image.fromarray(rgba).save(tmp_path / "a.png")
    picture = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(picture.pixels, rgba[..., :3])
    np.testing.assert_array_equal(picture.alpha, rgba[..., 3])
    cover = rgba[..., 3:] / 255
    np.testing.assert_array_equal(
        read_rgb(tmp_path / "a.png"), np.rint(rgba[..., :3] * cover + 255 * (1 - cover))
    )
    Image.fromarray(rgba[..., 2:]).save(tmp_path / "la.png")
    picture = read_image(tmp_path / "la.png")
    np.testing.assert_array_equal(picture.pixels, rgba[..., 2])
    np.testing.assert_array_equal(picture.alpha, rgba[..., 3])
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([0, 0, 0, 9, 9, 9])
    palette.save(tmp_path / "p.png", transparency=1)
    np.testing.assert_array_equal(read_rgb(tmp_path / "p.png"), [[[0] * 3, [255] * 3]])
    assert read_image(_png(tmp_path / "b.png", 1, 1, 8, 2, b"\0\1\2\3")).alpha is None


def test_grey_stays_grey(tmp_path):
    grey = _rgb()[..., 0]
    Image.fromarray(grey).save(tmp_path / "l.png")
    Image.fromarray(grey).save(tmp_path / "l.jpg")
    Image.fromarray(grey > 127).save(tmp_path / "1.png")
    Image.fromarray(grey).save(tmp_path / "t.png", transparency=int(grey[0, 0]))
    for name in ("l.png", "l.jpg", "1.png", "t.png"):
        picture = read_image(tmp_path / name)
        assert picture.grey and picture.pixels.dtype == np.uint8 and picture.top == 255
        assert (picture.alpha is not None) == (name == "t.png")
        np.testing.assert_array_equal(picture.rgb, np.repeat(picture.pixels[..., None], 3, 2))
    np.testing.assert_array_equal(read_image(tmp_path / "l.png").pixels, grey)
    np.testing.assert_array_equal(read_image(tmp_path / "1.png").pixels, (grey > 127) * 255)
    picture = read_image(tmp_path / "t.png")
    np.testing.assert_array_equal(picture.pixels, grey)
    np.testing.assert_array_equal(picture.alpha, (grey != grey[0, 0]) * 255)
    Image.fromarray(np.repeat(grey[..., None], 3, 2)).save(tmp_path / "rgb.png")
    np.testing.assert_array_equal(read_image(tmp_path / "rgb.png").pixels, grey)
    Image.fromarray(_rgb()).save(tmp_path / "colour.png")
    assert not read_image(tmp_path / "colour.png").grey


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    values = np.array([[0, 100, 257, 32768], [40000, 65278, 65535, 386]], np.uint16)
    if suffix == "pgm":
        path.write_bytes(b"P5 4 2 65535\n" + values.astype(">u2").tobytes())
    else:
        Image.fromarray(values).save(path)
    np.testing.assert_array_equal(read_rgb(path)[..., 0], np.rint(values / 257))
    picture = read_image(path)
    assert picture.top == 65535 and picture.pixels.dtype == np.uint16
    np.testing.assert_array_equal(picture.pixels, values)


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bit_png_keeps_all_bits(tmp_path, colour, channels):
    values = np.random.default_rng(1).integers(0, 65536, (3, 5, channels)).astype(">u2")
    data = b"".join(b"\0" + row.tobytes() for row in values)
    picture = read_image(_png(tmp_path / "a.png", 5, 3, 16, colour, data))
    assert picture.deep and picture.pixels.dtype == np.uint16
    has_alpha = channels in (2, 4)
    wanted = values[..., : channels - has_alpha]
    np.testing.assert_array_equal(picture.pixels, wanted[..., 0] if channels < 3 else wanted)
    assert (picture.alpha is not None) == has_alpha
    if has_alpha:
        np.testing.assert_array_equal(picture.alpha, values[..., -1])
    np.testing.assert_array_equal(picture.rgb, np.rint(np.broadcast_to(wanted, (3, 5, 3)) / 257))


@pytest.mark.parametrize("colour", [0, 2])
def test_a_transparent_colour_of_16_bits(tmp_path, colour):
    channels = 1 if colour == 0 else 3
    values = np.full((1, 2, channels), 300, ">u2")
    values[0, 1] = 301  # of the same high byte
    body = b"tRNS" + values[0, 0].tobytes()
    extra = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    path = _png(tmp_path / "a.png", 2, 1, 16, colour, b"\0" + values.tobytes(), extra)
    np.testing.assert_array_equal(read_image(path).alpha, [[0, 65535]])


def test_float_tiff(tmp_path):
    values = np.array([[0, 0.25, 1]], np.float32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.tif")[0, :, 0], [0, 64, 255])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    rgb = _rgb(4, 6)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(rgb).save(tmp_path / "a.png", exif=exif)
    turned = {
        1: rgb,
        2: rgb[:, ::-1],
        3: rgb[::-1, ::-1],
        4: rgb[::-1],
        5: rgb.swapaxes(0, 1),
        6: np.rot90(rgb, -1),
        7: rgb[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(rgb),
    }
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png"), turned[orientation])


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_lose_the_picture(tmp_path):
    rgb = _rgb()
    Image.fromarray(rgb).save(tmp_path / "a.png", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png"), rgb)


def _chunk(name, content, wrong=0):
    body = name + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body) ^ wrong)


LONG_TEXT = b"x" * 3_000_000
SIDE_CHUNKS = {
    "long tEXt": (_chunk(b"tEXt", b"Comment\0" + LONG_TEXT), ""),
    "long zTXt": (_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(LONG_TEXT)), ""),
    "long iTXt": (_chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(LONG_TEXT)), ""),
    "zTXt that is no zlib": (_chunk(b"zTXt", b"Comment\0\0abc"), ""),
    "iTXt cut off": (_chunk(b"iTXt", b"Comment\0\1"), ""),
    "tEXt with a wrong checksum": (_chunk(b"tEXt", b"Comment\0hello", 1), "tEXt chunk is damaged"),
    "gAMA with a wrong checksum": (_chunk(b"gAMA", b"\0\0\0\1", 1), "gAMA chunk is damaged"),
    "gAMA of 0": (_chunk(b"gAMA", bytes(4)), "gAMA chunk is damaged"),
    "cHRM of zeros": (_chunk(b"gAMA", b"\0\0\xb1\x8f") + _chunk(b"cHRM", bytes(32)), ""),
    "iCCP of zeros": (_chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(2_000_000))), "profile"),
    "iCCP that is no zlib": (_chunk(b"iCCP", b"x\0\0abc"), "profile is damaged"),
    "cICP of unknown colours": (_chunk(b"cICP", bytes([77, 13, 0, 1])), "are not known"),
    "cICP of high dynamic range": (_chunk(b"cICP", bytes([9, 16, 0, 1])), "PQ"),
    "eXIf of nonsense": (_chunk(b"eXIf", b"II*\0\xff\xff\xff\x7f"), ""),
    "a chunk of nobody's": (_chunk(b"prVt", b"abc"), ""),
    "a chunk of nobody's, damaged": (_chunk(b"prVt", b"abc", 1), "prVt chunk is damaged"),
}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("name", SIDE_CHUNKS)
def test_what_stands_beside_the_pixels_does_not_decide_over_them(tmp_path, name, depth):
    chunks, note = SIDE_CHUNKS[name]
    rgb = _rgb().astype(">u2" if depth == 16 else np.uint8)
    data = b"".join(b"\0" + row.tobytes() for row in rgb)
    picture = read_image(_png(tmp_path / "a.png", 6, 4, depth, 2, data, chunks))
    np.testing.assert_array_equal(picture.pixels, rgb)
    assert note in " ".join(picture.notes) and bool(note) == bool(picture.notes), picture.notes


def test_frames_that_are_not_taken_are_counted(tmp_path):
    frames = [Image.fromarray(_rgb() // (i + 1)) for i in range(3)]
    for ending in ("png", "webp", "gif", "avif"):
        options = {"lossless": True} if ending == "webp" else {}
        path = tmp_path / f"a.{ending}"
        frames[0].save(path, save_all=True, append_images=frames[1:], **options)
        picture = read_image(path)
        assert picture.notes == ("the first of its 3 frames is taken",), ending
        assert picture.format == ending.upper()
        if ending in ("png", "webp"):
            np.testing.assert_array_equal(picture.rgb, _rgb())
    frames[0].save(tmp_path / "one.gif")
    assert read_image(tmp_path / "one.gif").notes == ()


def test_the_content_decides_not_the_ending(tmp_path):
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "PPM", "GIF", "AVIF", "DIB"):
        Image.fromarray(_rgb(64, 64)).save(tmp_path / "photo.png", format=kind)
        assert read_image(tmp_path / "photo.png").format == kind
        assert read_rgb(tmp_path / "photo.png").shape == (64, 64, 3)


def test_one_pixel(tmp_path):
    write_png(tmp_path / "a.png", COLOUR.reshape(1, 1, 3))
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png"), COLOUR.reshape(1, 1, 3))


def _truncated(path):
    Image.fromarray(_rgb(64, 64)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _noise_inside(path):
    Image.fromarray(_rgb(64, 64)).save(path)
    data = bytearray(path.read_bytes())
    data[60:90] = bytes(30)
    path.write_bytes(bytes(data))


CASES = {
    "missing.png": (lambda path: None, "no such file"),
    "folder.png": (lambda path: path.mkdir(), "is a folder"),
    "empty.png": (lambda path: path.write_bytes(b""), "is empty"),
    "text.png": (lambda path: path.write_text("hello"), "not an image of a known kind"),
    "script.eps": (lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n"), "not an image"),
    "half.png": (_truncated, "cannot be decoded"),
    "half.jpg": (_truncated, "cannot be decoded"),
    "noise.png": (_noise_inside, "cannot be decoded"),
    "zero.png": (lambda path: _png(path, 0, 4, 8, 2, b""), "zero.png: "),
    "bomb.png": (lambda path: _png(path, 60000, 60000, 8, 2, b""), "decompression bomb"),
    "photo.heic": (lambda path: path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(12)), "pillow-heif"),
    "photo.png": (
        lambda path: path.write_bytes(b"\x76\x2f\x31\x01" + bytes(12)),
        "an OpenEXR file",
    ),
    "pipe.png": (os.mkfifo, "is a pipe or a device"),
    "half.tif": (_truncated, "cannot be decoded"),
    "int.tif": (lambda path: Image.fromarray(np.array([[1, 9]], np.int32)).save(path), "range"),
    "float.tif": (lambda path: Image.fromarray(np.array([[1, 9.0]], "f4")).save(path), "range"),
    "nan.tif": (lambda path: Image.fromarray(np.array([[np.nan]], "f4")).save(path), "finite"),
    "line\nbreak.png": (lambda path: None, r"line\nbreak.png: no such file"),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_with_one_line(tmp_path, name):
    make, reason = CASES[name]
    make(tmp_path / name)
    with pytest.raises(ImageError) as info:
        read_rgb(tmp_path / name)
    message = str(info.value)
    print(message)
    assert reason in message and str(tmp_path) in message and "\n" not in message


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_size_limit_is_pillows_own(tmp_path, monkeypatch):
    write_png(tmp_path / "a.png", _rgb(10, 12))
    monkeypatch.setattr(images.Image, "MAX_IMAGE_PIXELS", 119)
    with pytest.raises(ImageError, match="more than 119 pixels"):
        read_rgb(tmp_path / "a.png")
    monkeypatch.setattr(images.Image, "MAX_IMAGE_PIXELS", 120)
    assert read_rgb(tmp_path / "a.png").shape == (10, 12, 3)


def test_the_small_failing_files_are_one_photograph(shared):
    """Whatever its layout, profile and side chunks: the same picture."""
    folder = shared / "cases"
    wanted = read_image(folder / "badcrc_text.png").rgb.astype(int)
    for name, note in (
        ("icc_p3.png", ""),
        ("icc_swapped.png", ""),
        ("text_1.5MB_ztxt.png", ""),
        ("rgb16_planar.tif", ""),
        ("tifffile_default_3HW_u16.tif", ""),
        ("multiband4.tif", "1 of its 4 bands is left out"),
        ("multipage3.tif", "page 1 of 3 is taken"),
    ):
        picture = read_image(folder / name)
        assert np.abs(picture.rgb - wanted).mean() < 1, name
        assert picture.notes == ((note,) if note else ()), name
        assert picture.deep == ("16" in name), name
    grey = wanted @ [0.299, 0.587, 0.114]
    for name in ("u16_miniswhite.tif", "grey12in16.tif"):
        found = read_image(folder / name).pixels
        assert found.dtype == np.uint16 and np.corrcoef(found.ravel(), grey.ravel())[0, 1] > 0.9
    assert len(np.unique(found)) == 218  # levels of 12 bits in 16
    assert read_image(folder / "itxt_compressed_3MB.png").pixels.shape == (8, 8)
