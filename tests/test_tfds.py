"""tfds sets: read without TensorFlow; the real builders run where it is installed."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowsr_jax.config import ConfigError
from flowsr_jax.data import (
    DataConfig,
    EmbeddedSource,
    FolderSource,
    TfdsSource,
    make_loader,
    make_source,
    valid_pairs,
)
from flowsr_jax.data.sources import prepare
from flowsr_jax.files.images import ImageError

ROOT = Path(__file__).resolve().parents[1]
DIV2K_OPTIONS = (
    *(f"bicubic_x{s}" for s in (2, 3, 4, 8)),
    *(f"unknown_x{s}" for s in (2, 3, 4)),
    *(f"realistic_{kind}_x4" for kind in ("mild", "difficult", "wild")),
)


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


def noise(rng, height: int, width: int, channels: int = 3) -> np.ndarray:
    return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)


def png(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(buffer, kind)
    return buffer.getvalue()


def write_set(root, name: str, version: str, features: dict, splits: dict) -> Path:
    """Write a set as tfds does, with tfds's own writer, which needs no TensorFlow."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.dataset_info import DatasetIdentity
    from tensorflow_datasets.core.file_adapters import FileFormat

    title, _, option = name.partition("/")
    folder = Path(root, title, option, version)
    folder.mkdir(parents=True)
    kinds = {
        "image": lambda shape: tfds.features.Image(shape=shape),
        "label": lambda count: tfds.features.ClassLabel(num_classes=count),
        "text": lambda _: tfds.features.Text(),
    }
    identity = DatasetIdentity(
        name=title,
        config_name=option or None,
        version=tfds.core.Version(version),
        data_dir=os.fspath(folder),
        module_name="",
    )
    info = tfds.core.DatasetInfo(
        builder=identity,
        features=tfds.features.FeaturesDict({k: kinds[a](b) for k, (a, b) in features.items()}),
    )
    writer = tfds.core.SequentialWriter(info, 3, file_format=FileFormat.ARRAY_RECORD)
    writer.initialize_splits(list(splits))
    for split, examples in splits.items():
        writer.add_examples({split: examples})
    writer.close_all()
    return folder


PAIR = {"hr": ("image", None), "lr": ("image", None)}
LABELLED = {"id": ("text", None), "image": ("image", (32, 32, 3)), "label": ("label", 10)}


@pytest.fixture
def div2k(tmp_path, rng):
    """A div2k/bicubic_x4 of 4 + 2 pairs (two files for training), and its pixels."""
    pixels = {
        split: [
            {"hr": noise(rng, 41 + i, 48), "lr": noise(rng, (41 + i) // 4, 12)} for i in range(n)
        ]
        for split, n in (("train", 4), ("validation", 2))
    }
    encoded = {s: [{k: png(v) for k, v in e.items()} for e in es] for s, es in pixels.items()}
    folder = write_set(tmp_path, "div2k/bicubic_x4", "2.0.0", PAIR, encoded)
    return tmp_path, folder, pixels


def div2k_config(root, **fields):
    named = {"tfds_name": "div2k/bicubic_x4", "tfds_dir": str(root), "patch_size": 16}
    return DataConfig(**{"source": "tfds", **named, **fields})


class TestReading:
    def test_pairs(self, div2k):
        root, _, pixels = div2k
        source = TfdsSource("div2k/bicubic_x4", "train", data_dir=str(root))
        assert (len(source), source.fields, source.scale) == (4, ("hr", "lr"), 4)
        copy = pickle.loads(pickle.dumps(source))
        for i, wanted in enumerate(pixels["train"]):
            for found in (source[i], copy[i]):
                assert set(found) == {"hr", "lr"}
                for key, value in wanted.items():
                    np.testing.assert_array_equal(found[key], value)
        assert source.name(2) == "div2k/bicubic_x4/train/2"
        for index in (4, -1):
            with pytest.raises(IndexError):
                source[index]

    def test_splits_and_slices(self, div2k):
        root, _, pixels = div2k
        half = TfdsSource("div2k/bicubic_x4", "train[50%:]", data_dir=str(root))
        assert len(half) == 2
        np.testing.assert_array_equal(half[0]["lr"], pixels["train"][2]["lr"])
        pairs = valid_pairs(make_source(div2k_config(root), "valid"), div2k_config(root))
        for pair, wanted in zip(pairs, pixels["validation"], strict=True):
            np.testing.assert_array_equal(pair["lr"], wanted["lr"])
            np.testing.assert_array_equal(pair["hr"], wanted["hr"][:40])

    def test_patches_are_cut_out_of_the_sets_own_lr(self, tmp_path):
        y, x = np.mgrid[:9, :10].astype(np.uint8)
        lr = np.stack([y, x, y], axis=2)
        example = {"hr": png(lr.repeat(4, 0).repeat(4, 1)), "lr": png(lr)}
        write_set(tmp_path, "div2k/bicubic_x4", "2.0.0", PAIR, {"train": [example]})
        config = div2k_config(tmp_path)
        with make_loader(make_source(config, "train"), config, batch_size=32, seed=0) as loader:
            batch = next(loader)
        assert batch["lr"].shape == (32, 4, 4, 3)
        np.testing.assert_array_equal(batch["hr"], batch["lr"].repeat(4, 1).repeat(4, 2))
        assert len({patch.tobytes() for patch in batch["lr"]}) > 20

    def test_whole_images_with_labels(self, tmp_path, rng):
        pixels = [noise(rng, 32, 32) for _ in range(8)]
        examples = [{"id": str(i), "image": png(p), "label": i} for i, p in enumerate(pixels)]
        write_set(tmp_path, "cifar10", "3.0.2", LABELLED, {"train": examples, "test": examples[:2]})
        config = DataConfig(
            source="tfds", tfds_name="cifar10", tfds_dir=str(tmp_path), valid_split="test",
            scale=1, patch_size=32, flips=False, rotations=False,
        )  # fmt: skip
        source = make_source(config, "train")
        assert source.fields == ("hr", "label")
        with make_loader(source, config, batch_size=16, seed=0) as loader:
            batch = next(loader)
        assert set(batch) == {"hr", "lr", "label"}
        assert batch["label"].dtype == np.int32 and len(set(batch["label"])) > 3
        for patch, label in zip(batch["hr"], batch["label"], strict=True):
            np.testing.assert_array_equal(patch, pixels[label])
        pairs = valid_pairs(make_source(config, "valid"), config)
        assert [pair["label"] for pair in pairs] == [0, 1]
        np.testing.assert_array_equal(pairs[1]["lr"], pairs[1]["hr"])

    def test_grey_images_get_three_channels(self, tmp_path, rng):
        grey = noise(rng, 9, 7, 1)
        features = {"image": ("image", None)}
        for encoded in (png(grey), png(grey, "JPEG")):
            name = f"grey{len(encoded)}"
            write_set(tmp_path, name, "1.0.0", features, {"train": [{"image": encoded}]})
            found = TfdsSource(name, "train", data_dir=str(tmp_path))[0]["hr"]
            assert found.shape == (9, 7, 3)
            wanted = np.asarray(Image.open(io.BytesIO(encoded)))
            np.testing.assert_array_equal(found, np.repeat(wanted[..., None], 3, axis=2))

    def test_the_newest_version_unless_one_is_named(self, tmp_path, rng):
        features = {"image": ("image", None)}
        for version, count in (("1.9.0", 1), ("1.10.0", 2)):
            examples = [{"image": png(noise(rng, 4, 4))}] * count
            write_set(tmp_path, "some", version, features, {"train": examples})
        assert len(TfdsSource("some", "train", data_dir=str(tmp_path))) == 2
        assert len(TfdsSource("some:1.9.0", "train", data_dir=str(tmp_path))) == 1

    def test_validation_images_of_a_folder(self, div2k, tmp_path_factory, rng):
        root = div2k[0]
        folder = tmp_path_factory.mktemp("photos")
        (folder / "a.png").write_bytes(png(noise(rng, 20, 20)))
        config = div2k_config(root, valid_dir=str(folder))
        assert type(make_source(config, "valid")) is FolderSource
        assert type(make_source(DataConfig(), "valid")) is EmbeddedSource

    def test_tensorflow_is_not_imported(self, div2k):
        code = (
            "import sys; from flowsr_jax.data import TfdsSource; "
            f"s = TfdsSource('div2k/bicubic_x4', 'train', data_dir={str(div2k[0])!r}); "
            "s[0]; print('tensorflow' in sys.modules, len(s))"
        )
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
        assert done.stdout.split() == ["False", "4"], done.stderr


class TestErrors:
    def test_not_prepared(self, tmp_path):
        message = (
            rf"div2k/bicubic_x4' is not prepared: no {tmp_path}/div2k/bicubic_x4/\*/dataset_info"
            rf".*flowsr prepare-data --tfds div2k/bicubic_x4 --data-dir {tmp_path}.*data.tfds_dir"
            r".*DIV2K_train_HR.zip \(3,530,603,713 bytes\).*Licence: academic research"
        )
        with pytest.raises(ConfigError, match=message):
            make_source(div2k_config(tmp_path), "train")

    def test_another_option_is_prepared(self, div2k):
        with pytest.raises(ConfigError, match=r"options there: bicubic_x4\)"):
            TfdsSource("div2k", "train", data_dir=str(div2k[0]))
        with pytest.raises(ConfigError, match="must be SET/OPTION"):
            TfdsSource("../div2k", "train", data_dir=str(div2k[0]))

    def test_tfrecord(self, div2k, main, capsys):
        root, folder, _ = div2k
        info = json.loads((folder / "dataset_info.json").read_text())
        for changed in ({**info, "fileFormat": "tfrecord"}, {**info, "fileFormat": None}):
            known = {k: v for k, v in changed.items() if v}
            (folder / "dataset_info.json").write_text(json.dumps(known))
            with pytest.raises(ConfigError, match="prepared as tfrecord, which cannot be read"):
                TfdsSource("div2k/bicubic_x4", "train", data_dir=str(root))
        assert main(["--tfds", "div2k/bicubic_x4", "--data-dir", str(root)]) == 2
        assert "prepared as tfrecord" in capsys.readouterr().err
        (folder / "dataset_info.json").write_text("{")
        with pytest.raises(ConfigError, match="dataset_info.json cannot be read"):
            TfdsSource("div2k/bicubic_x4", "train", data_dir=str(root))

    def test_split(self, div2k):
        message = r"split 'valid' of .*splits: train, validation; did you mean 'validation'"
        with pytest.raises(ConfigError, match=message):
            make_source(div2k_config(div2k[0], valid_split="valid"), "valid")

    def test_sizes_and_features(self, div2k, tmp_path, rng):
        root = div2k[0]
        with pytest.raises(ConfigError, match="LR images of scale 4, data.scale is 2"):
            make_source(div2k_config(root, scale=2), "train")
        config = div2k_config(root, patch_size=48)  # one of the four images is high enough
        with (
            pytest.raises(ConfigError, match="train/[012]' has 48x4[123] pixels, fewer than"),
            make_loader(make_source(config, "train"), config, batch_size=32, seed=0) as loader,
        ):
            next(loader)
        examples = [{"id": "a", "image": png(noise(rng, 32, 32)), "label": 0}]
        write_set(tmp_path, "cifar10", "3.0.2", LABELLED, {"train": examples})
        config = DataConfig(source="tfds", tfds_name="cifar10", tfds_dir=str(tmp_path), scale=1)
        with pytest.raises(ConfigError, match="have 32x32 pixels, at least 96x96"):
            make_source(config, "train")
        write_set(tmp_path, "words", "1.0.0", {"id": ("text", None)}, {"train": [{"id": "a"}]})
        with pytest.raises(ConfigError, match="'words' has the features id; needed are hr and lr"):
            TfdsSource("words", "train", data_dir=str(tmp_path))
        broken = [{"hr": png(noise(rng, 20, 20)), "lr": png(noise(rng, 4, 5))}]
        write_set(tmp_path, "odd/any", "1.0.0", PAIR, {"train": broken})
        config = div2k_config(tmp_path, tfds_name="odd/any")
        with pytest.raises(ConfigError, match="odd/any/train/0': LR has 5x4 pixels, HR 20x20"):
            valid_pairs(make_source(config, "train"), config)

    def test_own_lr_images_and_a_degradation_exclude_each_other(self, div2k):
        from flowsr_jax.data.degradations import DegradationConfig

        config = div2k_config(div2k[0], degradation=DegradationConfig("real_esrgan"))
        with pytest.raises(ConfigError, match="'real_esrgan' would not be used: the train images"):
            make_source(config, "train")

    def test_files_missing_or_damaged(self, div2k):
        root, folder, _ = div2k
        first, second = sorted(folder.glob("div2k-train*"))
        data = bytearray(first.read_bytes())
        place = data.index(b"IDAT") + 100
        data[place : place + 8] = bytes(8)
        first.write_bytes(data)
        source = TfdsSource("div2k/bicubic_x4", "train", data_dir=str(root))
        with pytest.raises(ImageError, match=r"bicubic_x4/train/[012]: cannot be read \("):
            for i in range(3):
                source[i]
        assert source[3]["hr"].shape == (44, 48, 3)
        second.unlink()
        with pytest.raises(ConfigError, match="1 files are missing, the first: .*train"):
            TfdsSource("div2k/bicubic_x4", "train", data_dir=str(root))

    def test_preparing_without_tensorflow(self, tmp_path, main, monkeypatch, capsys):
        monkeypatch.setattr(prepare.importlib.util, "find_spec", lambda name: None)
        assert main(["--tfds", "cifar10", "--data-dir", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "pip install tensorflow-cpu" in error
        absent = ["--manual-dir", str(tmp_path / "absent")]
        assert main(["--tfds", "cifar10", "--data-dir", str(tmp_path), *absent]) == 2
        assert "is not a folder" in capsys.readouterr().err
        assert not list(tmp_path.iterdir())

    def test_a_prepared_set_needs_no_tensorflow(self, div2k, main, monkeypatch, capsys):
        monkeypatch.setattr(prepare.importlib.util, "find_spec", lambda name: None)
        assert main(["--tfds", "div2k/bicubic_x4", "--data-dir", str(div2k[0])]) == 0
        assert f"prepared in {div2k[1]}" in capsys.readouterr().out


def zipped(folder: Path, name: str, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(folder / name, "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)


def tarred(folder: Path | None, name: str, files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz" if name.endswith("gz") else "w") as archive:
        for path, data in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    if folder:
        (folder / name).write_bytes(buffer.getvalue())
    return buffer.getvalue()


def npz(rng, size: int, labels: list[int]) -> tuple[bytes, np.ndarray]:
    """Return an archive member of imagenet_resized, and its images [n,H,W,3]."""
    images = rng.integers(0, 256, (len(labels), size, size, 3), dtype=np.uint8)
    flat, buffer = images.transpose(0, 3, 1, 2).reshape(len(labels), -1), io.BytesIO()
    np.savez(buffer, data=flat, labels=np.array(labels))
    return buffer.getvalue(), images


@pytest.fixture
def official(tmp_path, monkeypatch):
    """Let the real builder of a set accept the small archives in tmp_path/manual."""
    pytest.importorskip("tensorflow", reason="preparing tfds sets needs TensorFlow")
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import checksums

    def use(name: str) -> None:
        builder = tfds.builder(name, data_dir=tmp_path / "unused", file_format="array_record")
        for url in list(builder.url_infos):
            file = tmp_path / "manual" / url.rsplit("/", 1)[1]
            if file.exists():  # the dictionary belongs to the class: put back afterwards
                monkeypatch.setitem(builder.url_infos, url, checksums.compute_url_info(file))

    (tmp_path / "manual").mkdir()
    return use


class TestRealBuilders:
    def run(self, main, tmp_path, name: str, split: str) -> dict[bytes, dict]:
        """Prepare a set by the command; return its examples by the bytes of HR (tfds shuffles)."""
        arguments = ["--data-dir", str(tmp_path / "sets"), "--manual-dir", str(tmp_path / "manual")]
        if not (tmp_path / "sets").exists():
            assert main(["--tfds", name, *arguments]) == 0
        source = TfdsSource(name, split, data_dir=str(tmp_path / "sets"))
        found = [source[i] for i in range(len(source))]
        return {e["hr"].tobytes() + e.get("lr", np.zeros(0)).tobytes(): e for e in found}

    @pytest.mark.parametrize("option", DIV2K_OPTIONS)
    def test_div2k(self, option, official, main, tmp_path, rng):
        kind, _, scale = option.rpartition("_x")
        scale, wanted = int(scale), {}
        for split, long, ids in (("train", "train", (1, 2)), ("valid", "validation", (801,))):
            hr = {i: noise(rng, 6 * scale, 5 * scale) for i in ids}
            files = {f"DIV2K_{split}_HR/{i:04d}.png": png(p) for i, p in hr.items()}
            zipped(tmp_path / "manual", f"DIV2K_{split}_HR.zip", files)
            copies = ["w1", "w2", "w3", "w4"] if kind.endswith("wild") else [""]
            lr = {(i, c): noise(rng, 6, 5) for i in ids for c in copies}
            wanted[long] = {hr[i].tobytes() + p.tobytes() for (i, _), p in lr.items()}
            if kind.startswith("realistic"):
                title, inner = f"DIV2K_{split}_LR_{kind[10:]}", f"DIV2K_{split}_LR_{kind[10:]}"
            elif scale == 8:
                title, inner = f"DIV2K_{split}_LR_x8", f"DIV2K_{split}_LR_x8"
            else:
                title = f"DIV2K_{split}_LR_{kind}_X{scale}"
                inner = f"DIV2K_{split}_LR_{kind}/X{scale}"
            files = {f"{inner}/{i:04d}x{scale}{c}.png": png(p) for (i, c), p in lr.items()}
            zipped(tmp_path / "manual", f"{title}.zip", files)
        official(f"div2k/{option}")
        for split, pairs in wanted.items():
            assert set(self.run(main, tmp_path, f"div2k/{option}", split)) == pairs
        if option == "bicubic_x4":
            self.records(main, tmp_path, scale)

    def records(self, main, tmp_path, scale):
        """A split of a prepared set becomes records."""
        arguments = ["--data-dir", str(tmp_path / "sets"), "--crop", "0"]
        out = str(tmp_path / "records")
        assert main(["--tfds", "div2k/bicubic_x4", *arguments, "-o", out]) == 0
        config = DataConfig(source="array_record", train_dir=out, scale=scale, patch_size=20)
        source = make_source(config, "train")
        wanted = TfdsSource("div2k/bicubic_x4", "train", data_dir=str(tmp_path / "sets"))
        assert len(source) == len(wanted) == 2
        for i in range(2):
            for key in ("hr", "lr"):
                np.testing.assert_array_equal(source[i][key], wanted[i][key])

    def test_celeb_a_hq(self, official, main, tmp_path, rng):
        pixels = [noise(rng, 64, 64) for _ in range(3)]
        files = {f"img{i:05d}.png": png(p) for i, p in enumerate(pixels)}
        tarred(tmp_path / "manual", "data64x64.tar", files)
        official("celeb_a_hq/64")
        found = self.run(main, tmp_path, "celeb_a_hq/64", "train")
        assert set(found) == {p.tobytes() for p in pixels}
        assert set(self.run(main, tmp_path, "celeb_a_hq/64", "train[:2]")) < set(found)

    def test_imagenet2012(self, official, main, tmp_path, rng):
        photos = [png(noise(rng, 30 + i, 40), "JPEG") for i in range(4)]
        inner = {
            f"{wnid}.tar": tarred(None, "", {f"{wnid}_{i}.JPEG": photo})
            for i, (wnid, photo) in enumerate(zip(("n01440764", "n01443537"), photos, strict=False))
        }
        tarred(tmp_path / "manual", "ILSVRC2012_img_train.tar", inner)
        files = {f"ILSVRC2012_val_{i:08d}.JPEG": photos[1 + i] for i in (1, 2)}
        tarred(tmp_path / "manual", "ILSVRC2012_img_val.tar", files)
        tarred(tmp_path / "manual", "ILSVRC2012_img_test_v10102019.tar", {})
        official("imagenet2012")
        found = self.run(main, tmp_path, "imagenet2012", "train")
        wanted = {
            np.asarray(Image.open(io.BytesIO(p))).tobytes(): i for i, p in enumerate(photos[:2])
        }
        assert {k: e["label"] for k, e in found.items()} == wanted
        assert len(self.run(main, tmp_path, "imagenet2012", "validation")) == 2

    def test_cifar10(self, official, main, tmp_path, rng):
        files, wanted = {"batches.meta.txt": "\n".join("abcdefghij").encode()}, {}
        for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
            pixels, label = noise(rng, 32, 32), int(rng.integers(10))
            files[f"{name}.bin"] = bytes([label]) + pixels.transpose(2, 0, 1).tobytes()
            wanted[pixels.tobytes()] = label
        files = {f"cifar-10-batches-bin/{name}": data for name, data in files.items()}
        tarred(tmp_path / "manual", "cifar-10-binary.tar.gz", files)
        official("cifar10")
        train = self.run(main, tmp_path, "cifar10", "train")
        found = {**train, **self.run(main, tmp_path, "cifar10", "test")}
        assert len(train) == 5 and {k: e["label"] for k, e in found.items()} == wanted

    @pytest.mark.parametrize("size", [32, 64])
    def test_downsampled_imagenet(self, size, official, main, tmp_path, rng):
        sets = {
            "train": [noise(rng, size, size) for _ in range(3)],
            "valid": [noise(rng, size, size)],
        }
        for split, pixels in sets.items():
            files = {f"{split}_{size}x{size}/{i}.png": png(p) for i, p in enumerate(pixels)}
            tarred(tmp_path / "manual", f"{split}_{size}x{size}.tar", files)
        name = f"downsampled_imagenet/{size}x{size}"
        official(name)
        for split, pixels in (("train", sets["train"]), ("validation", sets["valid"])):
            found = self.run(main, tmp_path, name, split)
            assert set(found) == {p.tobytes() for p in pixels}
            assert "label" not in next(iter(found.values()))

    @pytest.mark.parametrize("size", [8, 16, 32, 64])
    def test_imagenet_resized(self, size, official, main, tmp_path, rng):
        parts = ("train_part1", "train_part2") if size == 64 else ("train",)
        wanted = {}
        for part in (*parts, "val"):
            data, images = npz(rng, size, [1, 1000])
            zipped(tmp_path / "manual", f"Imagenet{size}_{part}_npz.zip", {f"{part}.npz": data})
            for image, label in zip(images, (0, 999), strict=True):  # 1-based in the files
                wanted[image.tobytes()] = label
        name = f"imagenet_resized/{size}x{size}"
        official(name)
        train = self.run(main, tmp_path, name, "train")
        found = {**train, **self.run(main, tmp_path, name, "validation")}
        assert len(train) == 2 * len(parts) and {k: e["label"] for k, e in found.items()} == wanted

    def test_mistakes_are_one_line(self, official, main, tmp_path, capfd):
        arguments = ["--data-dir", str(tmp_path / "sets"), "--manual-dir", str(tmp_path / "manual")]
        for name, message in (
            ("div2kk/bicubic_x4", "div2k"),
            ("div2k", "it has the options bicubic_x2, bicubic_x3"),
            ("div2k/bicubic_x5", "bicubic_x"),
            ("celeb_a_hq/64", "data64x64.tar|manual"),
        ):
            assert main(["--tfds", name, *arguments]) == 2
            errors = [e for e in capfd.readouterr().err.splitlines() if e.startswith("error: ")]
            assert len(errors) == 1 and name in errors[0] and "could not be prepared" in errors[0]
            assert any(word in errors[0] for word in message.split("|"))
        tarred(tmp_path / "manual", "cifar-10-binary.tar.gz", {"a": b"not the official archive"})
        assert main(["--tfds", "cifar10", *arguments]) == 2
        assert "checksum" in capfd.readouterr().err.lower()
        assert not list((tmp_path / "sets").glob("*/*/dataset_info.json"))
