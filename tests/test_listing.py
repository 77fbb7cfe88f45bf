"""One lister: files by content, links followed, what is left out counted and named."""

import os

import numpy as np
import pytest
from PIL import Image

from flowsr_jax.console import UsageError
from flowsr_jax.data import FolderSource
from flowsr_jax.evaluation.pairs import find_cases
from flowsr_jax.files.images import ImageError
from flowsr_jax.files.listing import NO_FILE, list_images
from flowsr_jax.upscaling import plan
from flowsr_jax.upscaling.jobs import parse_shard

IMAGE = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
HEADS = {  # first bytes of files that are images, but not for us
    "a.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "a.jxl": b"\xff\x0a\xfa\x1f",
    "b.jxl": b"\0\0\0\x0cJXL \r\n\x87\n",
    "a.exr": b"\x76\x2f\x31\x01\2\0\0\0",
    "a.jp2": b"\0\0\0\x0cjP  \r\n\x87\n",
    "a.hdr": b"#?RADIANCE\n",
    "a.dng": b"II*\0\x08\0\0\0",
    "notes.txt": b"hello",
    "README": b"hello",
    "empty.dat": b"",
}


@pytest.fixture
def folder(tmp_path):
    """A folder with files of every kind, links, a circle, a pipe and a broken link."""
    root, away = tmp_path / "in", tmp_path / "away"
    (root / "sub").mkdir(parents=True)
    away.mkdir()
    for name, kind in (
        ("b.png", "PNG"), ("a.JPG", "JPEG"), ("c.jfif", "JPEG"), ("d.jpe", "JPEG"),
        ("e.dib", "DIB"),
        ("photo", "PNG"), ("f.dat", "TIFF"), ("sub/g.webp", "WEBP"), ("h.avif", "AVIF"),
        ("i.pnm", "PPM"), (".hidden.png", "PNG"), ("../away/linked.png", "PNG"),
    ):  # fmt: skip
        IMAGE.save(root / name, format=kind)
    for name, head in HEADS.items():
        (root / name).write_bytes(head)
    (root / ".trash").mkdir()
    IMAGE.save(root / ".trash" / "x.png")
    (root / "link").symlink_to(away)
    (root / "sub" / "up").symlink_to(root)
    (root / "again").symlink_to(root / "sub")
    (root / "nowhere.png").symlink_to(tmp_path / "missing.png")
    os.mkfifo(root / "pipe.png")
    return root


WANTED = [
    "a.JPG", "b.png", "c.jfif", "d.jpe", "e.dib", "f.dat", "h.avif", "i.pnm", "link/linked.png",
    "nowhere.png", "photo", "sub/g.webp",
]  # fmt: skip


def test_all_kinds_of_files(folder):
    found = list_images(folder)
    assert list(found.names) == WANTED
    assert found.files == [folder / name for name in WANTED]
    left = dict(found.left_out)
    assert left == {
        "a.heic": ".heic", "a.jxl": ".jxl", "b.jxl": ".jxl", "a.exr": ".exr", "a.jp2": ".jp2",
        "a.hdr": ".hdr", "a.dng": ".dng", "notes.txt": ".txt", "README": "no ending",
        "empty.dat": ".dat", "pipe.png": NO_FILE,
    }  # fmt: skip
    assert found.note().startswith("11 files of other kinds left out: .jxl (2), ")
    assert found.note().endswith(", and 5 more kinds")


def test_a_file_lists_itself(folder):
    found = list_images(folder / "b.png")
    assert (found.names, found.root, found.path) == (("b.png",), folder, folder / "b.png")
    assert found.note() == ""
    with pytest.raises(ImageError, match="is a pipe or device"):
        list_images(folder / "pipe.png")
    with pytest.raises(ImageError, match="no such file or folder"):
        list_images(folder / "nothing")


def test_all_commands_and_training_list_the_same(folder, tmp_path, caplog):
    jobs = plan(folder, tmp_path / "out")
    assert [job.name for job in jobs] == WANTED and jobs.notes == (list_images(folder).note(),)
    cases, notes = find_cases(folder)
    own = [name for name in WANTED if "/" not in name]  # a folder's own images come first
    assert [case.name for case in cases] == own and notes[0].endswith(jobs.notes[0])
    source = FolderSource(folder)
    assert [source.name(i) for i in range(len(source))] == [n for n in WANTED if "nowhere" not in n]
    assert {name for name, _ in source.skipped} == {
        "nowhere.png", *dict(list_images(folder).left_out)
    }  # fmt: skip
    assert "skipped a.heic: not an image file (.heic)" in caplog.text


def test_a_folder_of_other_kinds_says_so(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.heic").write_bytes(HEADS["a.heic"])
    with pytest.raises(
        UsageError, match=r"no images found \(1 file of another kind left out: .heic"
    ):
        plan(tmp_path / "in", tmp_path / "out")


def test_several_inputs_and_patterns(folder, tmp_path):
    def names(*sources):
        return [job.name for job in plan(sources, tmp_path / "out")]

    assert names(folder / "b.png", folder / "link") == ["b.png", "linked.png"]
    pattern = str(folder / "[ab].[Jp][Pn][Gg]")
    assert names(pattern, folder / "c.jfif") == ["a.JPG", "b.png", "c.jfif"]
    assert names(folder / "b.png", folder / "b.png") == ["b.png"]
    IMAGE.save(tmp_path / "b.jpg")
    with pytest.raises(UsageError, match="b.png and b.jpg would all be written to"):
        names(folder / "b.png", tmp_path / "b.jpg")


def test_the_output_may_be_a_file_for_one_input(folder, tmp_path):
    out = tmp_path / "result.png"
    (job,) = plan(folder / "b.png", out)
    assert job.files == (out,)
    (job,) = plan(folder / "b.png", tmp_path / "r.webp", 2, True)
    assert [path.name for path in job.files] == ["r_0.webp", "r_1.webp", "r_std.png"]
    for several in (folder, [folder / "b.png", folder / "a.JPG"]):
        with pytest.raises(UsageError, match="named like a file"):
            plan(several, out)
    out.mkdir()
    (job,) = plan(folder / "b.png", out)
    assert job.files == (out / "b.png",)
    with pytest.raises(UsageError, match="overwrite an input"):
        plan(folder / "b.png", folder / "b.png")


def test_shards_part_a_folder(tmp_path):
    (tmp_path / "in").mkdir()
    names = [f"{i:03d}.png" for i in range(60)]
    for name in names:
        (tmp_path / "in" / name).touch()
    for count in (1, 2, 7):
        shards = [plan(tmp_path / "in", tmp_path / "out", shard=(i, count)) for i in range(count)]
        parts = [[job.name for job in shard] for shard in shards]
        assert sorted(sum(parts, [])) == names
        assert min(map(len, parts)) >= 60 // count // 3
    (tmp_path / "in" / "new.png").touch()
    again = [job.name for job in plan(tmp_path / "in", tmp_path / "out", shard=(3, 7))]
    assert [name for name in again if name != "new.png"] == parts[3]  # whatever else is there
    assert parse_shard("3/7") == (3, 7)
    for text in ("7/7", "-1/7", "3", "a/b", "3/0", "3/7/1"):
        with pytest.raises(UsageError, match="must be I/N"):
            parse_shard(text)


def test_samples_of_similar_names_collide(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "a_0.png", "b.png"):
        IMAGE.save(tmp_path / "in" / name)
    problems = {job.name: job.problem for job in plan(tmp_path / "in", tmp_path / "out", 2)}
    assert not any(problems.values())  # a_0.png, a_1.png, a_0_0.png, ...
    IMAGE.save(tmp_path / "in" / "a_std.png")
    jobs = plan(tmp_path / "in", tmp_path / "out", 1, True)
    assert {job.name for job in jobs if job.problem} == {"a.png", "a_std.png"}
