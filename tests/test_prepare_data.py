"""launch/prepare_data.py: crops, restarts, what it says; the records are read back."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from flowsr_jax.config import ConfigError
from flowsr_jax.data import ArrayRecordSource, FolderSource, PairedSource
from flowsr_jax.data.sources import record_writer
from flowsr_jax.data.sources.crops import corners
from flowsr_jax.data.sources.record_writer import write_records
from flowsr_jax.data.transforms import degrade
from flowsr_jax.files.images import ImageError, write_png

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def main():
    file = ROOT / "launch" / "prepare_data.py"
    spec = importlib.util.spec_from_file_location("launch_prepare_data", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture
def photos(tmp_path, rng):
    """Three images in a folder, one of them deeper; their pixels by name."""
    pixels = {
        name: rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        for name, size in {"a.png": (40, 33), "b/c.png": (32, 32), "d.png": (70, 48)}.items()
    }
    for name, image in pixels.items():
        (tmp_path / "HR" / name).parent.mkdir(parents=True, exist_ok=True)
        write_png(tmp_path / "HR" / name, image)
    return tmp_path / "HR", pixels


def read(folder, scale=4, min_size=1) -> dict[str, dict]:
    source = ArrayRecordSource(folder, scale, min_size)
    return {source.name(i): source[i] for i in range(len(source))}


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_flipped_bit_is_noticed(photos, tmp_path, main):
    folder, _ = photos
    out = tmp_path / "out"
    assert main([str(folder), "-o", str(out), "--crop", "16", "--step", "16"]) == 0
    whole, rng, noticed = read(out), np.random.default_rng(0), 0
    for file in sorted(out.iterdir()):
        before = file.read_bytes()
        used = np.flatnonzero(np.frombuffer(before, np.uint8))  # the rest of a block is zeros
        for _ in range(30):
            data = bytearray(before)
            data[rng.choice(used)] ^= 1 << int(rng.integers(8))
            file.write_bytes(data)
            try:
                found = read(out)
            except (ConfigError, ImageError):
                noticed += 1
                continue
            assert found.keys() == whole.keys()
            for name, example in whole.items():
                np.testing.assert_array_equal(found[name]["hr"], example["hr"])
        file.write_bytes(before)
    assert noticed >= 20


class TestCrops:
    @pytest.mark.parametrize(
        ("length", "crop", "step", "unit", "wanted"),
        [
            (32, 32, 16, 1, [0]),
            (40, 32, 16, 1, [0, 8]),
            (64, 32, 16, 1, [0, 16, 32]),
            (65, 32, 40, 1, [0, 33]),
            (67, 32, 16, 4, [0, 16, 32]),
            (71, 32, 16, 4, [0, 16, 32, 36]),
        ],
    )
    def test_corners(self, length, crop, step, unit, wanted):
        assert corners(length, crop, step, unit) == wanted

    def test_crops_of_hr_alone(self, photos, tmp_path, main, capsys):
        folder, pixels = photos
        out = tmp_path / "out"
        arguments = [str(folder), "-o", str(out), "--crop", "32", "--step", "16"]
        assert main(arguments) == 0
        assert "13 records of 3 images, 0 left out" in capsys.readouterr().out
        found = read(out)
        assert sorted(found) == sorted(
            ["a.png@0,0", "a.png@0,1", "a.png@8,0", "a.png@8,1", "b/c.png@0,0"]
            + [f"d.png@{top},{left}" for top in (0, 16, 32, 38) for left in (0, 16)]
        )
        for name, example in found.items():
            file, _, corner = name.partition("@")
            top, left = map(int, corner.split(","))
            assert set(example) == {"hr"}
            np.testing.assert_array_equal(
                example["hr"], pixels[file][top : top + 32, left : left + 32]
            )

    def test_lr_of_the_whole_image(self, photos, tmp_path, main):
        folder, pixels = photos
        out = tmp_path / "out"
        assert (
            main([str(folder), "-o", str(out), "--crop", "16", "--step", "8", "--scale", "4"]) == 0
        )
        found = read(out, min_size=16)
        assert len(found) == 4 * 3 + 3 * 3 + 8 * 5
        for name, example in found.items():
            file, _, corner = name.partition("@")
            top, left = (int(n) // 4 for n in corner.split(","))
            whole = degrade(pixels[file], 4)
            np.testing.assert_array_equal(example["lr"], whole[top : top + 4, left : left + 4])
            crop = pixels[file][4 * top : 4 * top + 16, 4 * left : 4 * left + 16]
            np.testing.assert_array_equal(example["hr"], crop)

    def test_lr_of_another_folder(self, photos, tmp_path, main, rng, capsys):
        folder, pixels = photos
        (tmp_path / "LR").mkdir()
        lr = {}
        for name, image in pixels.items():
            stem = Path(name).stem
            shape = [n // 2 for n in image.shape[:2]]
            lr[name] = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
            write_png(tmp_path / "LR" / f"{stem}x2.png", lr[name])
        wrong = np.zeros((3, 3, 3), np.uint8)
        write_png(tmp_path / "LR" / "dx2.png", wrong)
        arguments = [str(folder), "-o", str(tmp_path / "out"), "--crop", "0", "--scale", "2"]
        assert main([*arguments, "--lr-dir", str(tmp_path / "LR")]) == 1
        out = capsys.readouterr().out
        assert "skipped dx2.png: LR has 3x3 pixels, HR 48x70: not the scale 2" in out
        assert "2 records of 2 images, 1 left out" in out
        found = read(tmp_path / "out", 2)
        assert sorted(found) == ["ax2.png", "cx2.png"]
        np.testing.assert_array_equal(found["ax2.png"]["hr"], pixels["a.png"][:, :32])
        np.testing.assert_array_equal(found["cx2.png"]["lr"], lr["b/c.png"])


class TestFaults:
    def test_bad_files_are_named_and_left_out(self, photos, tmp_path, main, capsys):
        folder, _ = photos
        (folder / "bad.png").write_bytes(b"no image")
        (folder / "notes.txt").write_text("none either")
        out = tmp_path / "out"
        arguments = [str(folder), "-o", str(out), "--crop", "40", "--step", "40"]
        assert main(arguments) == 1
        text = capsys.readouterr().out
        assert "skipped bad.png: not an image of a known kind" in text
        assert "skipped a.png: too small: 33x40 pixels, at least 40 are needed" in text
        assert "4 records of 1 images, 3 left out" in text
        names = [name for name, _ in json.loads((out / "records.json").read_text())["skipped"]]
        assert names == ["a.png", "b/c.png", "bad.png"]
        before = files_of(out)
        assert main(arguments) == 1  # nothing left to do
        assert files_of(out) == before

    def test_names_that_are_no_text(self, photos, tmp_path, main, capsys):
        folder, pixels = photos
        name = b"caf\xe9\n.png"  # Latin-1, and a line end
        write_png(os.path.join(folder, os.fsdecode(name)), pixels["a.png"])
        (folder / os.fsdecode(b"bad" + name)).write_bytes(b"no image")
        arguments = [str(folder), "-o", str(tmp_path / "out"), "--crop", "0"]
        assert main(arguments) == 1
        assert "skipped badcaf\\udce9\\n.png: not an image" in capsys.readouterr().out
        found = read(tmp_path / "out")
        np.testing.assert_array_equal(found["caf?\\n.png"]["hr"], pixels["a.png"])

    def test_nothing_usable(self, photos, tmp_path, main, capsys):
        arguments = [str(photos[0]), "-o", str(tmp_path / "out"), "--crop", "480"]
        assert main(arguments) == 2
        assert "no usable image: 3 skipped (the first: a.png: too small" in capsys.readouterr().err
        assert files_of(tmp_path / "out") == {}

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["absent/DIV2K_train_HR", "-o", "out"], "is not a folder (looked in"),
            (["HR", "-o", "out", "--crop", "30", "--scale", "4"], "must be multiples of scale = 4"),
            (["HR", "-o", "out", "--step", "0"], "step = 0 must be an integer of at least 1"),
            (["HR", "-o", "HR/a.png"], "File exists"),
        ],
    )
    def test_mistakes_are_one_line(self, photos, main, capsys, monkeypatch, arguments, message):
        monkeypatch.chdir(photos[0].parent)
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and message in error

    @pytest.mark.parametrize(
        "arguments", [[], ["HR"], ["HR", "--tfds", "cifar10"], ["HR", "-o", "x", "--lr-dir", "y"]]
    )
    def test_usage(self, main, arguments):
        with pytest.raises(SystemExit) as error:
            main(arguments)
        assert error.value.code == 2

    def test_paired_sources_need_a_scale(self, photos, tmp_path):
        source = PairedSource(photos[0], photos[0], 1)
        with pytest.raises(ConfigError, match="scale is needed"):
            write_records(source, tmp_path / "out")


class TestRestarts:
    OPTIONS = {"crop": 16, "step": 8, "scale": 4, "shard_mib": 0}  # a file per image

    def stopped(self, source, folder, monkeypatch, after: int, error=KeyboardInterrupt):
        """Write records until `after` files are done."""
        write, written = record_writer._write_shard, []

        def failing(*arguments):
            if len(written) == after:
                raise error
            written.append(write(*arguments))
            return written[-1]

        with monkeypatch.context() as patch, pytest.raises(error):
            patch.setattr(record_writer, "_write_shard", failing)
            write_records(source, folder, **self.OPTIONS)

    @pytest.mark.parametrize("after", [0, 1, 2])
    def test_it_goes_on_and_ends_the_same(self, photos, tmp_path, monkeypatch, after):
        source = FolderSource(photos[0], check=False)
        write_records(source, tmp_path / "straight", **self.OPTIONS)
        out = tmp_path / "out"
        self.stopped(source, out, monkeypatch, after)
        assert not (out / "records.json").exists()
        with pytest.raises(ConfigError, match="no finished records"):
            ArrayRecordSource(out, 4)
        kept = {p.name: p.stat().st_mtime_ns for p in out.glob("*.array_record")}
        assert len(kept) == after
        left = out / f".tmp-{socket.gethostname()}-4194305-0123456789abcdef"  # no process has it
        left.write_bytes(b"what a kill left behind")
        write_records(source, out, **self.OPTIONS)
        assert files_of(out) == files_of(tmp_path / "straight")
        for name, changed in kept.items():
            assert (out / name).stat().st_mtime_ns == changed

    def test_other_images_or_options_are_refused(self, photos, tmp_path, monkeypatch):
        source, out = FolderSource(photos[0], check=False), tmp_path / "out"
        self.stopped(source, out, monkeypatch, 1)
        for finished in (False, True):
            if finished:
                write_records(source, out, **self.OPTIONS)
            with pytest.raises(ConfigError, match="step 8 there, 4 now.*take another folder"):
                write_records(source, out, **{**self.OPTIONS, "step": 4})
        (photos[0] / "a.png").write_bytes((photos[0] / "d.png").read_bytes())
        with pytest.raises(ConfigError, match="digest"):
            write_records(FolderSource(photos[0], check=False), out, **self.OPTIONS)

    def test_a_full_disk_leaves_nothing_half_written(self, photos, tmp_path, monkeypatch):
        def full(path):
            raise OSError(28, "No space left on device")

        source, out = FolderSource(photos[0], check=False), tmp_path / "out"
        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
            patch.setattr(record_writer, "atomic_write", full)
            write_records(source, out, **self.OPTIONS)
        assert files_of(out) == {}

    def test_killed(self, photos, tmp_path, rng):
        for i in range(60):
            write_png(
                photos[0] / f"z{i:03d}.png", rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)
            )
        code = (
            "import sys; from flowsr_jax.data import FolderSource; "
            "from flowsr_jax.data.sources.record_writer import write_records; "
            f"write_records(FolderSource(sys.argv[1], check=False), sys.argv[2], **{self.OPTIONS})"
        )
        out = tmp_path / "out"
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(photos[0]), str(out)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        )
        deadline = time.monotonic() + 120
        while len(list(out.glob("*.array_record"))) < 3:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (out / "records.json").exists()
        source = FolderSource(photos[0], check=False)
        write_records(source, out, **self.OPTIONS)
        write_records(source, tmp_path / "straight", **self.OPTIONS)
        assert files_of(out) == files_of(tmp_path / "straight")

    def test_progress(self, photos, tmp_path):
        seen = []
        summary = write_records(
            FolderSource(photos[0], check=False),
            tmp_path / "out",
            **self.OPTIONS,
            advance=lambda done, total: seen.append((done, total)),
        )
        assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
        assert summary.images == 3 and summary.skipped == ()
        assert len(read(tmp_path / "out")) == summary.records
