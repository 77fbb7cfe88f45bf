"""Colours: profiles, gAMA and cICP are converted to sRGB, or kept; none is dropped."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from flowsr_jax.files import colour
from flowsr_jax.files.images import ImageError, read_image

SRGB_TO_XYZ = np.array(
    [
        [0.4360747, 0.3850649, 0.1430804],
        [0.2225045, 0.7168786, 0.0606169],
        [0.0139322, 0.0971045, 0.7141733],
    ]
)  # fmt: skip  (Lindbloom, adapted to D50)
P3_TO_XYZ = np.array(
    [[0.5151187, 0.2919778, 0.1571035], [0.2411892, 0.6922441, 0.0665668],
     [-0.0010505, 0.0418791, 0.7840713]]
)  # fmt: skip
CURVES = {
    "sRGB": (b"para" + struct.pack(">4xHxx5i", 3, *(round(v * 65536) for v in
             (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))), colour.decode),
    "linear": (b"curv" + struct.pack(">4xI", 0), lambda x: x),
    "1.8": (b"curv" + struct.pack(">4xIH", 1, round(1.8 * 256)), lambda x: x ** (461 / 256)),
    "2.2": (b"para" + struct.pack(">4xHxxi", 0, round(2.2 * 65536)), lambda x: x**2.2),
    "table": (b"curv" + struct.pack(">4xI", 4096) + np.rint(
        np.linspace(0, 1, 4096) ** 2.4 * 65535).astype(">u2").tobytes(), lambda x: x**2.4),
}  # fmt: skip


def _xyz(values):
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))


def _profile(curve, to_xyz=None):
    """An ICC profile of version 4: RGB of a matrix, or grey of a curve alone."""
    tags = {b"wtpt": _xyz((0.9642, 1, 0.8249))}
    text = "test".encode("utf-16-be")
    tags[b"desc"] = b"mluc" + struct.pack(">4xII2s2sII", 1, 12, b"en", b"US", len(text), 28) + text
    tags[b"cprt"] = tags[b"desc"]
    if to_xyz is None:
        tags[b"kTRC"] = CURVES[curve][0]
    else:
        for name, column in zip("rgb", np.transpose(to_xyz), strict=True):
            tags[f"{name}XYZ".encode()] = _xyz(column)
            tags[f"{name}TRC".encode()] = CURVES[curve][0]
    start, table, body = 132 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    space = b"GRAY" if to_xyz is None else b"RGB "
    head = struct.pack(
        ">I4sI4s4s4s", start + len(body), b"lcms", 0x04300000, b"mntr", space, b"XYZ "
    )
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    head += struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _pixels(dtype, shape=(32, 32, 3)):
    top = np.iinfo(dtype).max
    return np.random.default_rng(0).integers(0, top, shape, dtype=dtype, endpoint=True)


def _wanted(pixels, curve, to_xyz):
    """By the book, in float64, in 0..255."""
    linear = CURVES[curve][1](pixels / np.iinfo(pixels.dtype).max)
    if to_xyz is not None:
        linear = linear @ (np.linalg.inv(SRGB_TO_XYZ) @ to_xyz).T
    return colour.encode(np.clip(linear, 0, 1)) * 255


SPACES = {
    "P3": ("sRGB", P3_TO_XYZ), "swapped": ("sRGB", SRGB_TO_XYZ[:, [1, 2, 0]]),
    "linear": ("linear", SRGB_TO_XYZ), "1.8": ("1.8", P3_TO_XYZ), "table": ("table", P3_TO_XYZ),
    "grey 2.2": ("2.2", None), "grey linear": ("linear", None), "grey 1.8": ("1.8", None),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("name", SPACES)
def test_profiles_are_converted_by_the_book(name, dtype):
    curve, to_xyz = SPACES[name]
    pixels = _pixels(dtype, (32, 32) if to_xyz is None else (32, 32, 3))
    found, converted = colour.to_srgb(pixels, {"iCCP": _profile(curve, to_xyz)})
    assert converted == "test" and found.dtype == dtype and found.shape == pixels.shape
    found = found * (255 / np.iinfo(dtype).max)
    # Near black the curve is steep: the last digits of the matrices are seen there.
    np.testing.assert_allclose(found, _wanted(pixels, curve, to_xyz), atol=1.0)
    assert np.abs(found - _wanted(pixels, curve, to_xyz)).mean() < (0.3, 0.05)[dtype == np.uint16]


@pytest.mark.parametrize("name", [name for name in SPACES if "linear" not in name])
def test_littlecms_agrees(name):
    curve, to_xyz = SPACES[name]
    pixels = _pixels(np.uint8, (32, 32) if to_xyz is None else (32, 32, 3))
    icc = _profile(curve, to_xyz)
    theirs, _ = colour._by_lcms(pixels, ImageCms.ImageCmsProfile(io.BytesIO(icc)), "")
    assert np.abs(colour.to_srgb(pixels, {"iCCP": icc})[0].astype(int) - theirs).max() <= 3


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_srgb_profiles_leave_every_pixel_as_it_is(dtype):
    pixels = _pixels(dtype)
    for profile in (
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        _profile("sRGB", SRGB_TO_XYZ),
    ):
        found, converted = colour.to_srgb(pixels, {"iCCP": profile})
        assert not converted
        np.testing.assert_array_equal(found, pixels)


def _chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(
        ">I", zlib.crc32(name + content)
    )  # fmt: skip


def _png(path, pixels, *chunks):
    deep = pixels.dtype == np.uint16
    kind = 0 if pixels.ndim == 2 else 2
    header = struct.pack(">IIBBBBB", *pixels.shape[1::-1], 16 if deep else 8, kind, 0, 0, 0)
    data = b"".join(b"\0" + row.astype(">u2" if deep else "u1").tobytes() for row in pixels)
    body = _chunk(b"IHDR", header) + b"".join(chunks) + _chunk(b"IDAT", zlib.compress(data))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body + _chunk(b"IEND", b""))
    return path


def _gama(value):
    return _chunk(b"gAMA", struct.pack(">I", round(value * 100000)))


def _chrm(primaries, white=colour.D65):
    numbers = [round(v * 100000) for v in (*white, *primaries)]
    return _chunk(b"cHRM", struct.pack(">8I", *numbers))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_numbers_of_png_files_are_applied(tmp_path, dtype):
    pixels = _pixels(dtype)

    def found(*chunks):
        picture = read_image(_png(tmp_path / "a.png", pixels, *chunks))
        return picture.pixels * (255 / picture.top), picture.converted

    p3 = _wanted(pixels, "sRGB", P3_TO_XYZ)
    icc = _chunk(b"iCCP", b"x\0\0" + zlib.compress(_profile("linear", P3_TO_XYZ)))
    for name, chunks, wanted in (
        ("gAMA", [_gama(1.0)], _wanted(pixels, "linear", SRGB_TO_XYZ)),
        ("gAMA", [_gama(1 / 2.2), _chrm(colour.P3)], p3),
        ("cICP", [_chunk(b"cICP", bytes([12, 13, 0, 1]))], p3),
        ("cICP", [_chunk(b"cICP", bytes([12, 13, 0, 1])), icc, _gama(1.0)], p3),
    ):
        pixels_found, converted = found(*chunks)
        assert converted == name
        np.testing.assert_allclose(pixels_found, wanted, atol=1.0)
    for chunks in (
        [_gama(0.45455)], [_gama(0.45455), _chrm(colour.REC709)],
        [_chunk(b"sRGB", b"\0"), _gama(1.0)],
        [_chunk(b"cICP", bytes([1, 13, 0, 1])), _gama(1.0)],
    ):  # fmt: skip
        pixels_found, converted = found(*chunks)
        assert not converted
        np.testing.assert_allclose(pixels_found, pixels * (255 / np.iinfo(dtype).max))


def test_numbers_of_avif_files_are_applied(tmp_path):
    path = tmp_path / "a.avif"
    image = Image.new("RGB", (16, 16), (220, 60, 50))
    image.save(path, quality=100)
    plain = read_image(path)
    assert not plain.converted and not plain.notes
    data = path.read_bytes()
    start = data.index(b"colrnclx") + 8
    for primaries, transfer, note in ((12, 13, ""), (1, 2, ""), (12, 1, ""), (9, 16, "PQ")):
        numbers = primaries.to_bytes(2, "big") + transfer.to_bytes(2, "big")
        path.write_bytes(data[:start] + numbers + data[start + 4 :])
        picture = read_image(path)
        assert note in " ".join(picture.notes) and bool(note) == bool(picture.notes)
        wanted = _wanted(plain.pixels, "sRGB", P3_TO_XYZ) if primaries == 12 else plain.pixels
        np.testing.assert_allclose(picture.pixels, wanted, atol=1.0)
    start = data.index(b"av1C") + 6
    path.write_bytes(data[:start] + bytes([data[start] | 0x40]) + data[start + 1 :])
    try:
        assert read_image(path).notes == ("its 10 bits per sample are read as 8",)
    except ImageError as error:  # a decoder that compares the box with the pixels
        assert "cannot be decoded" in str(error)


def test_cameras_that_name_adobe_rgb_in_exif(tmp_path):
    image, exif = Image.new("RGB", (16, 16), (200, 60, 50)), Image.Exif()
    linear = (np.array([200, 60, 50]) / 255) ** (563 / 256)
    adobe = colour._matrix(
        colour._to_xyz((0.64, 0.33, 0.21, 0.71, 0.15, 0.06), colour.D65), colour._white(colour.D65)
    )
    wanted = colour.encode(np.clip(adobe @ linear, 0, 1)) * 255
    for space, name in ((1, ""), (2, "Adobe RGB"), (0xFFFF, "")):  # the last: with R03 only
        exif.get_ifd(0x8769)[0xA001] = space
        image.save(tmp_path / "a.jpg", quality=100, exif=exif)
        picture = read_image(tmp_path / "a.jpg")
        assert picture.converted == name
        plain = np.array([200.0, 60, 50])
        assert np.abs(picture.pixels[8, 8] - (wanted if name else plain)).max() <= 6
    kept = read_image(tmp_path / "a.jpg", keep_profile=True)
    assert kept.profile == {}
    assert wanted[0] > 215  # Adobe RGB's red is farther out


def test_every_kind_of_file_with_a_profile_gives_the_same_colours(tmp_path):
    icc = _profile("sRGB", P3_TO_XYZ)
    image = Image.new("RGB", (16, 16), (250, 40, 30))
    wanted = _wanted(np.array(image)[:1, :1], "sRGB", P3_TO_XYZ)[0, 0]
    for kind, options in (
        ("png", {}), ("jpg", {"quality": 100}), ("webp", {"lossless": True}), ("tif", {}),
        ("avif", {"quality": 100}),
    ):  # fmt: skip
        image.save(tmp_path / f"a.{kind}", icc_profile=icc, **options)
        picture = read_image(tmp_path / f"a.{kind}")
        assert picture.converted == "test", kind
        assert np.abs(picture.pixels[8, 8] - wanted).max() <= 3, kind
        kept = read_image(tmp_path / f"a.{kind}", keep_profile=True)
        assert kept.profile["iCCP"] == icc and not kept.converted, kind
        assert np.abs(kept.pixels[8, 8] - np.array([250.0, 40, 30])).max() <= 2, kind
    tag = [(34675, 7, len(icc), icc, True)]
    deep = np.full((4, 4, 3), (250 * 257, 40 * 257, 30 * 257), np.uint16)
    tifffile.imwrite(tmp_path / "deep.tif", deep, photometric="rgb", extratags=tag)
    picture = read_image(tmp_path / "deep.tif")
    assert picture.deep and np.abs(picture.pixels[0, 0] / 257 - wanted).max() < 0.1


def test_profiles_of_another_kind_are_named_and_not_applied(tmp_path):
    grey, rgb = _profile("2.2"), _profile("sRGB", P3_TO_XYZ)
    image = Image.fromarray(_pixels(np.uint8))
    image.save(tmp_path / "a.png", icc_profile=grey)
    picture = read_image(tmp_path / "a.png")
    assert picture.notes == (
        "its colour profile is of another kind (GRAY); its colours are taken as sRGB",
    )
    image.convert("L").save(tmp_path / "g.png", icc_profile=_profile("linear", SRGB_TO_XYZ))
    wanted = _wanted(np.array(image.convert("L")), "linear", None)
    assert np.abs(read_image(tmp_path / "g.png").pixels - wanted).max() <= 2  # RGB profile of grey
    for broken in (rgb[:200], rgb[:128] + bytes(400), b"junk" * 50):
        picture = read_image(_png(tmp_path / "b.png", _pixels(np.uint16), _chunk(
            b"iCCP", b"x\0\0" + zlib.compress(broken))))  # fmt: skip
        assert len(picture.notes) == 1 and "taken as sRGB" in picture.notes[0], picture.notes
    cmyk = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
    cmyk.save(tmp_path / "c.jpg", icc_profile=rgb, quality=100)
    picture = read_image(tmp_path / "c.jpg", keep_profile=True)
    assert picture.pixels.shape == (4, 4, 3) and "another kind" in picture.notes[0]


def test_the_cases_of_one_photograph_agree(shared):
    p3, swapped = (read_image(shared / "cases" / f"icc_{n}.png") for n in ("p3", "swapped"))
    assert p3.converted and swapped.converted
    assert np.abs(p3.pixels.astype(int) - swapped.pixels).mean() < 1


def test_luma_and_curves_are_the_standards():
    assert sum(colour.LUMA) == pytest.approx(1)
    values = np.linspace(0, 1, 1000)
    np.testing.assert_allclose(colour.encode(colour.decode(values)), values, atol=1e-5)
