"""TIFF: every layout in the product of the tags is read right, or refused by name."""

import itertools
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from flowsr_jax.files.images import ImageError, read_image

SAMPLES = {"miniswhite": 1, "minisblack": 1, "rgb": 3, "palette": 1, "separated": 4, "cielab": 3}
DTYPES = ("u1", "u2", "u4", "i1", "i2", "i4", "f2", "f4", "f8", "c8")
EXTRAS = ((), ("unspecified",), ("assocalpha",), ("unassalpha",), ("unassalpha", "unspecified"))
STORED = (("<", None), (">", None), ("<", "lzw"))
HEIGHT, WIDTH = 3, 5


def _values(dtype, shape):
    rng = np.random.default_rng(0)
    kind = np.dtype(dtype)
    if kind.kind in "fc":
        return rng.random(shape).astype(kind)
    top = np.iinfo(kind).max
    values = rng.integers(0, top, shape, dtype=kind, endpoint=True)
    values.flat[:2] = 0, top
    return values


def _whole(values):
    """Whole numbers as they are; floats in 0..1 as 16 bits."""
    if values.dtype.kind == "f":
        return np.rint(values.astype(np.float64) * 65535).astype(np.uint16)
    return values


def _wanted(values, photometric, extras):
    """What the pixels and alpha of the file should be, [H,W,C] and [H,W] or None."""
    count = SAMPLES[photometric]
    colours, rest = _whole(values[..., :count]), _whole(values[..., count:])
    top = np.iinfo(colours.dtype).max
    if photometric == "miniswhite":
        colours = top - colours
    if photometric == "separated":
        eight = colours if colours.dtype == np.uint8 else np.rint(colours / 257).astype(np.uint8)
        colours = np.array(Image.fromarray(eight, "CMYK").convert("RGB"))
    if not extras or extras[0] == "unspecified":
        return colours, None
    alpha = rest[..., 0]
    if extras[0] == "assocalpha" and photometric != "separated":
        straight = colours.astype(float) * top / np.maximum(alpha, 1)[..., None]
        colours = np.rint(np.minimum(straight, top)).astype(colours.dtype)
    return colours, alpha


@pytest.mark.parametrize("photometric", [p for p in SAMPLES if p != "palette"])
def test_every_layout_is_read_right_or_refused_by_name(tmp_path, photometric):
    path = tmp_path / "a.tif"
    read = refused = 0
    for dtype, planar, extras, (order, packed) in itertools.product(
        DTYPES, ("contig", "separate"), EXTRAS, STORED
    ):
        count = SAMPLES[photometric] + len(extras)
        if planar == "separate" and count == 1 or packed and dtype == "c8":
            continue
        values = _values(dtype, (HEIGHT, WIDTH, count))
        stored = np.moveaxis(values, -1, 0) if planar == "separate" else values
        stored = stored[..., 0] if count == 1 else stored
        tifffile.imwrite(
            path, stored, photometric=photometric, planarconfig=planar if count > 1 else None,
            extrasamples=extras, byteorder=order, compression=packed, metadata=None,
        )  # fmt: skip
        case = (photometric, dtype, planar, extras, order, packed)
        if photometric == "cielab" or dtype not in ("u1", "u2", "f2", "f4", "f8"):
            with pytest.raises(ImageError, match=r"is a TIFF .*\d x \d+ bits.* not supported"):
                read_image(path)
            refused += 1
            continue
        picture = read_image(path)
        colours, alpha = _wanted(values, photometric, extras)
        if extras[:1] == ("assocalpha",) and photometric == "separated":
            colours = picture.pixels  # CMYK times alpha: only that it is read
        wanted = colours[..., 0] if colours.shape[-1:] == (1,) else colours
        np.testing.assert_array_equal(picture.pixels, wanted, err_msg=str(case))
        assert picture.deep == (dtype != "u1"), case
        assert (picture.alpha is None) == (alpha is None), case
        if alpha is not None and picture.alpha.dtype == alpha.dtype:
            np.testing.assert_array_equal(picture.alpha, alpha, err_msg=str(case))
        assert any("left out" in n for n in picture.notes) == ("unspecified" in extras), case
        read += 1
    assert refused and (photometric == "cielab") == (read == 0)


def _by_hand(path, bits, photometric, rows, table=()):
    """A TIFF of few bits per sample, which tifffile does not write: 8 tags, one strip."""
    strip = b"".join(
        np.packbits(((row[:, None] >> np.arange(bits)[::-1]) & 1).ravel()).tobytes() for row in rows
    )
    tags = [(256, 4, rows.shape[1]), (257, 4, rows.shape[0]), (258, 3, bits), (259, 3, 1),
            (262, 3, photometric), (273, 4, 200), (277, 3, 1), (279, 4, len(strip))]  # fmt: skip
    entries = [struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags]
    colours = np.asarray(table, "<u2").tobytes()
    if colours:
        entries.append(struct.pack("<HHII", 320, 3, len(colours) // 2, 200 + len(strip)))
    head = struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + b"".join(entries) + bytes(4)
    path.write_bytes(head.ljust(200, b"\0") + strip + colours)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_and_few_bits(tmp_path, bits):
    rng = np.random.default_rng(bits)
    index = rng.integers(0, 2**bits, (HEIGHT, WIDTH), dtype=np.uint8)
    table = rng.integers(0, 256, (3, 2**bits), dtype=np.uint16)
    table[0, 0], index[0, 0] = 255, 0
    for colours in (table * 257, table):  # some writers put 8-bit values where 16 bits belong
        _by_hand(tmp_path / "p.tif", bits, 3, index, colours)
        np.testing.assert_array_equal(read_image(tmp_path / "p.tif").rgb, table.T[index])
    grey = np.rint(index * (255 / (2**bits - 1)))
    for photometric, wanted in ((0, 255 - grey), (1, grey)):
        _by_hand(tmp_path / "g.tif", bits, photometric, index)
        np.testing.assert_array_equal(read_image(tmp_path / "g.tif").pixels, wanted)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_depths_between_8_and_16_bits(tmp_path, bits):
    values = np.arange(15, dtype=np.uint16).reshape(HEIGHT, WIDTH) * ((2**bits - 1) // 14)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", bitspersample=bits,
                     compression="lzw" if bits == 16 else None)  # fmt: skip
    picture = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(picture.pixels, np.rint(values * (65535 / (2**bits - 1))))


def test_pages_and_bands_are_named_and_can_be_chosen(tmp_path):
    pages = _values("u1", (3, HEIGHT, WIDTH, 3))
    tifffile.imwrite(tmp_path / "pages.tif", pages, photometric="rgb")
    picture = read_image(tmp_path / "pages.tif")
    np.testing.assert_array_equal(picture.pixels, pages[0])
    assert picture.notes == ("page 1 of 3 is taken",)
    np.testing.assert_array_equal(read_image(tmp_path / "pages.tif", page=3).pixels, pages[2])
    with pytest.raises(ImageError, match="of 3 pages; it has no page 4"):
        read_image(tmp_path / "pages.tif", page=4)
    bands = _values("u2", (5, HEIGHT, WIDTH))
    tifffile.imwrite(tmp_path / "b.tif", bands, photometric="minisblack", planarconfig="separate")
    picture = read_image(tmp_path / "b.tif")
    np.testing.assert_array_equal(picture.pixels, bands[0])
    assert picture.notes == ("4 of its 5 bands are left out",)
    chosen = read_image(tmp_path / "b.tif", bands=(4, 3, 2)).pixels
    np.testing.assert_array_equal(chosen, np.moveaxis(bands[[3, 2, 1]], 0, -1))
    np.testing.assert_array_equal(read_image(tmp_path / "b.tif", bands=(5,)).pixels, bands[4])
    with pytest.raises(ImageError, match="one or three of 1..5"):
        read_image(tmp_path / "b.tif", bands=(1, 2, 6))


def test_previews_do_not_count(tmp_path):
    image, small = _values("u1", (8, 8, 3)), _values("u1", (4, 4, 3))
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(small, photometric="rgb", subfiletype=1)
        file.write(image, photometric="rgb")
    picture = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(picture.pixels, image)
    assert not picture.notes
    tifffile.imwrite(tmp_path / "raw.tif", small, photometric="rgb", subfiletype=1)
    with pytest.raises(ImageError, match="only a preview"):
        read_image(tmp_path / "raw.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path, orientation):
    values = _values("u1", (HEIGHT, WIDTH, 3))
    tag = [(274, 3, 1, orientation, True)]
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", extratags=tag)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif)
    a, b = (read_image(tmp_path / f"a.{end}").pixels for end in ("tif", "png"))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("packed", ["tiff_lzw", "jpeg", "tiff_adobe_deflate", "group4", None])
def test_damaged_and_compressed_files(tmp_path, packed):
    ramp = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    image = Image.fromarray(np.dstack([ramp, ramp[::-1], 255 - ramp]))
    image = image.convert("1") if packed == "group4" else image
    image.save(tmp_path / "a.tif", compression=packed)
    with Image.open(tmp_path / "a.tif") as found:
        wanted = np.array(found.convert("RGB"))
    assert np.abs(read_image(tmp_path / "a.tif").rgb.astype(int) - wanted).max() <= 4
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "half.tif").write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match="cannot be decoded"):
        read_image(tmp_path / "half.tif")


@pytest.mark.parametrize("packed", [None, "lzw", "deflate", "zstd", "packbits"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_files_that_end_too_early(tmp_path, packed, planar):
    values = _values("u2", (64, 48, 3))
    stored = values if planar == "contig" else np.moveaxis(values, -1, 0)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stored, photometric="rgb", planarconfig=planar, compression=packed,
                     rowsperstrip=16, metadata=None)  # fmt: skip
    np.testing.assert_array_equal(read_image(path).pixels, values)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    with pytest.raises(ImageError, match="cannot be decoded"):
        read_image(path)
