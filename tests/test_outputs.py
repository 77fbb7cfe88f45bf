"""What is written: depth, kind, size, profile, metadata; and that hidden colours stay hidden."""

import importlib.util
import itertools
from pathlib import Path

import jax
import numpy as np
import pytest
import tifffile
from fake_family import FAMILY, FakeConfig
from PIL import Image, ImageCms

from flowsr_jax.console import UsageError
from flowsr_jax.files.images import read_image
from flowsr_jax.files.metadata import Metadata, read_metadata
from flowsr_jax.files.transparency import fill_hidden
from flowsr_jax.files.writers import CLEAR, DEEP, KINDS, MAX_SIDE, Beside, WriteError, open_image
from flowsr_jax.math.resize import imresize
from flowsr_jax.models import FAMILIES
from flowsr_jax.upscaling import Output, upscale_files
from flowsr_jax.upscaling.finish import resized

ROOT = Path(__file__).parents[1]
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"></x:xmpmeta>'


@pytest.fixture(autouse=True)
def fake():
    with FAMILIES.using("fake", FAMILY):
        yield


@pytest.fixture
def params():
    """A family that repeats each pixel twice."""
    return FAMILY.init(FakeConfig(), jax.random.key(0))


def _values(dtype, shape):
    top = np.iinfo(dtype).max
    return np.random.default_rng(0).integers(0, top, shape, dtype=dtype, endpoint=True)


def _twice(x):
    return x.repeat(2, axis=0).repeat(2, axis=1)


def _exif(orientation=None):
    exif = Image.Exif()
    exif[0x010F] = "a maker"
    if orientation:
        exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("ending", sorted(KINDS))
def test_every_kind_of_file_at_every_depth(tmp_path, ending):
    kind, path = KINDS[ending], tmp_path / f"a{ending}"
    for depth, channels in itertools.product((8, 16), (1, 2, 3, 4)):
        image = _values(np.uint8 if depth == 8 else np.uint16, (9, 7, channels))
        metadata = Metadata(_exif().tobytes()[6:], XMP, (300.0, 150.0))
        beside = Beside({"iCCP": SRGB}, metadata, {})
        options = {"depth": depth, "quality": 100, "beside": beside}
        if depth == 16 and kind not in DEEP or channels in (2, 4) and kind not in CLEAR:
            with pytest.raises(WriteError), open_image(path, 9, 7, channels, **options):
                pass
            assert not path.exists()
            continue
        with open_image(path, 9, 7, channels, **options) as file:
            file.write(image[:4])
            file.write(image[4:])
        picture = read_image(path, keep_profile=True)
        assert (picture.format, picture.deep) == (kind, depth == 16)
        assert picture.profile == {"iCCP": SRGB}
        wanted = image[..., 0] if channels < 3 else image[..., :3]
        if kind == "JPEG":
            assert picture.pixels.shape == wanted.shape
        else:
            np.testing.assert_array_equal(picture.pixels, wanted)
            assert (picture.alpha is not None) == (channels in (2, 4))
        if channels in (2, 4):
            np.testing.assert_array_equal(picture.alpha, image[..., -1])
        found = read_metadata(path)
        assert found.xmp == XMP, kind
        if kind != "WEBP":  # it holds no resolution of its own
            assert np.allclose(found.dpi, (300, 150), atol=0.02), kind
        if kind != "TIFF":
            assert b"a maker" in found.exif, kind
        path.unlink()


def test_sizes_that_a_kind_does_not_have(tmp_path):
    for ending, side in ((".jpg", MAX_SIDE["JPEG"]), (".webp", MAX_SIDE["WEBP"])):
        with (
            pytest.raises(WriteError, match=f"at most {side} a side"),
            open_image(tmp_path / f"a{ending}", 1, side + 1),
        ):
            pass
    assert not list(tmp_path.iterdir())


def test_depth_follows_the_input_and_12_bits_in_16_keep_their_levels(tmp_path, params, capsys):
    levels = (np.arange(16 * 16, dtype=np.uint16) * 16).reshape(16, 16)  # 12 bits in 16
    colour = _values(np.uint16, (16, 16, 3))
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "grey.tif", levels, photometric="minisblack")
    tifffile.imwrite(tmp_path / "in" / "colour.tif", colour, photometric="rgb")
    Image.fromarray(colour.astype(np.uint8)).save(tmp_path / "in" / "eight.png")

    def found(out, **options):
        how = {"temperature": 0.0, "output": Output(**options)}
        assert upscale_files(params, tmp_path / "in", tmp_path / out, **how).failed == 0
        return {path.stem: read_image(path) for path in sorted((tmp_path / out).iterdir())}

    for ext in ("png", "tiff"):
        auto = found(f"auto_{ext}", ext=ext)
        np.testing.assert_array_equal(auto["grey"].pixels, _twice(levels))
        np.testing.assert_array_equal(auto["colour"].pixels, _twice(colour))
        assert not auto["eight"].deep and auto["eight"].format == ext.upper()
    assert "more than 8 bits" not in capsys.readouterr().err
    assert not any(picture.deep for picture in found("eight", depth=8).values())
    assert capsys.readouterr().err.count("more than 8 bits per channel are written as 8") == 2
    assert all(picture.deep for picture in found("sixteen", depth=16).values())
    assert found("jpg", ext="jpg")["colour"].format == "JPEG"
    assert "all that a JPEG file has" in capsys.readouterr().err
    with pytest.raises(UsageError, match="a WEBP file has 8 bits"):
        found("no", depth=16, ext="webp")


@pytest.mark.parametrize(
    "wrong", [{"ext": "bmp"}, {"depth": 12}, {"quality": 0}, {"quality": 101}, {"suffix": "a/b"}]
)
def test_wrong_options_are_named(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Output(**wrong)


@pytest.mark.parametrize("outscale", [2, 1.5, 1, 0.3])
def test_outscale_is_matlabs_bicubic_of_the_result(tmp_path, params, outscale):
    rgba = np.concatenate([_values(np.uint8, (50, 41, 3)), np.full((50, 41, 1), 200, np.uint8)], 2)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    for tile in (0, 32):
        out = tmp_path / f"{outscale}_{tile}"
        output = Output(outscale=outscale)
        how = {"temperature": 0.0, "output": output, "tile": tile}
        assert upscale_files(params, tmp_path / "a.png", out, **how).written
        picture = read_image(out / "a.png")
        size = round(50 * outscale), round(41 * outscale)
        wanted = imresize(_twice(rgba[..., :3]) / 255, output_shape=size)
        assert picture.pixels.shape[:2] == size
        np.testing.assert_allclose(picture.pixels, (wanted * 255).clip(0, 255), atol=0.51)
        assert np.abs(picture.alpha.astype(int) - 200).max() <= 1
    for wrong in (0, 2.1):
        with pytest.raises(UsageError, match="outscale"):
            upscale_files(params, tmp_path / "a.png", out, output=Output(outscale=wrong))


@pytest.mark.parametrize("target", [(30, 40), (7, 90), (61, 13), (1, 1)])
def test_strips_are_resized_as_the_whole_is(target):
    image = np.random.default_rng(0).random((2, 47, 29, 3)).astype(np.float32)
    wanted = np.stack([imresize(x, output_shape=target) for x in image])
    for cuts in ([0, 47], [0, 1, 2, 20, 46, 47]):
        strips = (image[:, a:b] for a, b in itertools.pairwise(cuts))
        found = np.concatenate(list(resized(strips, (47, 29), target)), axis=1)
        np.testing.assert_allclose(found, wanted, atol=2e-6)


HIDDEN = {"green": (0, 255, 0), "white": (255, 255, 255), "black": (0, 0, 0), "noise": None}


def _disc(hidden, seen=(200, 20, 20)):
    """A disc with a soft edge over colours that alpha 0 hides; straight RGBA."""
    y, x = np.mgrid[:48, :48] - 23.5
    alpha = np.clip((16 - np.hypot(x, y)) * 128 + 128, 0, 255).astype(np.uint8)
    gradient = np.linspace(0.6, 1, 48)[:, None, None] * np.float32(seen)
    colours = np.broadcast_to(gradient, (48, 48, 3)).astype(np.uint8)
    below = _values(np.uint8, (48, 48, 3)) if hidden is None else np.uint8(hidden)
    return np.dstack([np.where(alpha[..., None] > 0, colours, below), alpha])


@pytest.mark.parametrize("page", [0, 255])
@pytest.mark.parametrize("hidden", HIDDEN)
def test_hidden_colours_do_not_bleed_into_edges(hidden, page):
    """Enlarged apart, colours and alpha give what premultiplied bicubic gives."""
    rgba = _disc(HIDDEN[hidden])
    colours, alpha = rgba[..., :3] / 255, rgba[..., 3:] / 255

    enlarged = imresize(alpha, 4)
    seen = enlarged.clip(0, 1)
    straight = imresize(colours * alpha, 4) / np.where(enlarged > 0.02, enlarged, np.inf)

    def laid(colours):
        return 255 * (colours.clip(0, 1) * seen + (1 - seen) * page / 255)

    def worst(colours):
        return np.abs(laid(imresize(colours, 4)) - laid(straight)).max()

    filled = fill_hidden(rgba[..., :3], rgba[..., 3])
    np.testing.assert_array_equal(filled[rgba[..., 3] > 0], rgba[rgba[..., 3] > 0, :3])
    assert worst(filled / 255) < 6 < 12 < worst(colours)


def test_files_with_hidden_colours(tmp_path, params):
    rgba = _disc(HIDDEN["green"])
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert upscale_files(params, tmp_path / "a.png", tmp_path / "out", temperature=0.0).written
    picture = read_image(tmp_path / "out" / "a.png")
    assert picture.pixels[..., 1][picture.alpha > 0].max() <= 20
    Image.fromarray(rgba).save(tmp_path / "b.png")
    output = Output(ext="jpg", quality=100)
    assert upscale_files(params, tmp_path / "b.png", tmp_path / "out", output=output).written
    corner = read_image(tmp_path / "out" / "b.jpg").rgb[:4, :4]
    assert corner.min() >= 250  # laid over white


def test_profile_and_metadata_are_kept_on_request(tmp_path, params, capsys):
    from test_colour import P3_TO_XYZ, _chunk, _gama, _png, _profile

    icc = _profile("sRGB", P3_TO_XYZ)
    exif = _exif(orientation=6)
    rgb = _values(np.uint8, (6, 9, 3))
    Image.fromarray(rgb).save(
        tmp_path / "a.jpg", icc_profile=icc, exif=exif, xmp=XMP, dpi=(300, 300)
    )
    Image.fromarray(rgb).save(tmp_path / "a.png", icc_profile=icc)
    _png(tmp_path / "n.png", rgb, _gama(1.0), _chunk(b"cICP", bytes([12, 13, 0, 1])))
    stored = np.array(Image.open(tmp_path / "a.png"))

    def found(name, out, **options):
        how = {"temperature": 0.0, "output": Output(**options)}
        assert upscale_files(params, tmp_path / name, tmp_path / out, **how).written
        (path,) = (tmp_path / out).iterdir()
        return read_image(path, keep_profile=True), read_metadata(path)

    picture, metadata = found("a.jpg", "plain")
    assert picture.profile == {} and metadata == Metadata()
    assert "colours converted from test" in capsys.readouterr().out
    picture, metadata = found("a.jpg", "kept", keep_profile=True, keep_metadata=True, ext="webp")
    assert picture.profile["iCCP"] == icc and metadata.xmp == XMP and b"a maker" in metadata.exif
    assert picture.pixels.shape == (18, 12, 3)  # turned once: the copy says nothing of it
    for ext in ("png", "tiff"):
        picture, _ = found("a.png", f"p3_{ext}", keep_profile=True, ext=ext)
        assert picture.profile["iCCP"] == icc
        np.testing.assert_array_equal(picture.pixels, _twice(stored))
    picture, _ = found("n.png", "numbers", keep_profile=True)
    assert set(picture.profile) == {"gAMA", "cICP"}
    np.testing.assert_array_equal(picture.pixels, _twice(rgb))
    picture, _ = found("n.png", "numbers_tiff", keep_profile=True, ext="tiff")
    assert picture.profile == {} and (picture.pixels != _twice(rgb)).any()
    assert "a TIFF file holds no gAMA and cICP" in capsys.readouterr().err
    Image.fromarray(rgb[..., 0]).save(tmp_path / "g.png", icc_profile=icc)
    picture, _ = found("g.png", "grey", keep_profile=True)
    assert Image.open(tmp_path / "grey" / "g.png").mode == "RGB"  # its profile is one of RGB


def test_film_frames_share_their_noise(tmp_path, params):
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        Image.fromarray(np.full((8, 8, 3), 128, np.uint8)).save(tmp_path / "in" / f"{name}.png")
    how = {"temperature": 0.2, "same_noise": True}
    upscale_files(params, tmp_path / "in", tmp_path / "out", **how)
    a, b = (read_image(tmp_path / "out" / f"{name}.png").pixels for name in ("a", "b"))
    np.testing.assert_array_equal(a, b)
    upscale_files(params, tmp_path / "in", tmp_path / "own", temperature=0.2)
    a, b = (read_image(tmp_path / "own" / f"{name}.png").pixels for name in ("a", "b"))
    assert (a != b).any()


def test_pages_and_bands_of_tiff_files(tmp_path, params, capsys):
    bands = _values(np.uint8, (4, 8, 8))
    tifffile.imwrite(tmp_path / "a.tif", bands, photometric="minisblack", planarconfig="separate")
    how = {"temperature": 0.0, "overwrite": True}
    upscale_files(params, tmp_path / "a.tif", tmp_path / "out", **how)
    assert "a.tif: 3 of its 4 bands are left out" in capsys.readouterr().err
    upscale_files(params, tmp_path / "a.tif", tmp_path / "out", bands=(3, 2, 1), **how)
    found = read_image(tmp_path / "out" / "a.png").pixels
    np.testing.assert_array_equal(found, _twice(np.moveaxis(bands[[2, 1, 0]], 0, -1)))


def test_the_command_takes_the_flags(tmp_path, params, monkeypatch):
    spec = importlib.util.spec_from_file_location("launch_sample", ROOT / "launch" / "sample.py")
    launch = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(launch)
    monkeypatch.setattr("flowsr_jax.api.read_model", lambda path: params)
    rgb = _values(np.uint8, (6, 9, 3))
    for name in ("a", "b"):
        Image.fromarray(rgb).save(tmp_path / f"{name}.png")
    common = ["-n", "any", "--temperature", "0"]
    files = [str(tmp_path / f"{name}.png") for name in ("a", "b")]
    flags = ["--ext", "webp", "--quality", "100", "--suffix", "_x2", "--outscale", "1"]
    assert launch.main(["-i", *files, "-o", str(tmp_path / "out"), *flags, *common]) == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["a_x2.webp", "b_x2.webp"]
    assert (
        launch.main(["-i", files[0], "-o", str(tmp_path / "one.tif"), "--depth", "16", *common])
        == 0
    )
    assert read_image(tmp_path / "one.tif").deep
    assert launch.main(["-i", *files, "-o", str(tmp_path / "one.png"), *common]) == 2
    for shard in ("0/2", "1/2"):
        flags = ["--shard", shard, "--same-noise", "--keep-metadata", "--keep-profile"]
        launch.main(["-i", *files, "-o", str(tmp_path / "parts"), *flags, *common])
    assert len(list((tmp_path / "parts").iterdir())) == 2
    assert launch.main(["-i", *files, "-o", str(tmp_path / "x"), "--shard", "2/2", *common]) == 2
