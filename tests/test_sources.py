"""Paired folders, mixtures, records, and what is said when a set is not there."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from flowsr_jax.config import ConfigError, from_dict, to_dict
from flowsr_jax.data import (
    ArrayRecordSource,
    DataConfig,
    EmbeddedSource,
    FolderSource,
    Mixture,
    PairedSource,
    make_loader,
    make_source,
    valid_pairs,
)
from flowsr_jax.data.sources import array_records
from flowsr_jax.data.sources.array_records import HEADER, decode_record, encode_record
from flowsr_jax.data.sources.cache import Cache
from flowsr_jax.data.sources.catalog import ENTRIES, advice
from flowsr_jax.data.sources.paired import pair_names
from flowsr_jax.data.sources.record_writer import write_records
from flowsr_jax.files.images import ImageError, write_png
from flowsr_jax.train.overrides import split_overrides

NAME = "records-00000.array_record"


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def noise(rng, height: int, width: int) -> np.ndarray:
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(root, files: dict[str, np.ndarray]) -> str:
    for name, pixels in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_png(root / name, pixels)
    return str(root)


@pytest.fixture
def pairs(tmp_path, rng):
    """Two HR images, the second with a remainder at scale 4, and LR images as DIV2K names them."""
    hr = {"0001.png": noise(rng, 24, 32), "0002.png": noise(rng, 31, 27)}
    lr = {"X4/0001x4.png": noise(rng, 6, 8), "X4/0002x4.png": noise(rng, 7, 6)}
    return save(tmp_path / "HR", hr), save(tmp_path / "LR", lr), hr, lr


class TestNames:
    @pytest.mark.parametrize(
        ("hr", "lr", "wanted"),
        [
            (["b.png", "a.jpg"], ["a.png", "b.webp"], [(0, 1), (1, 0)]),
            (["0001.png", "0002.png"], ["0001x4.png", "0002x4.png"], [(0, 0), (1, 1)]),
            (["000001.png", "000010.png"], ["000010x4.png", "000001x4.png"], [(0, 1), (1, 0)]),
            (["0001.png"], ["0001x4m.png"], [(0, 0)]),
            (["0001.png"], ["0001x4w2.png", "0001x4w1.png"], [(0, 0), (0, 1)]),
            (["HR/0001.png"], ["X4/0001x4.png"], [(0, 0)]),
            (["ax4.png", "a.png"], ["ax4.png", "ax4x4.png", "a.png"], [(0, 0), (0, 1), (1, 2)]),
            (["a/1.png", "b/1.png"], ["b/1x4.png", "a/1.png"], [(0, 1), (1, 0)]),
        ],
    )  # fmt: skip
    def test_pairs(self, hr, lr, wanted):
        assert pair_names(hr, lr, 4) == wanted

    @pytest.mark.parametrize(
        ("hr", "lr", "message"),
        [
            (["1.png", "2.png"], ["1.png"], "1 HR images have no LR image: 2.png"),
            (["1.png"], ["1.png", "3.png"], "1 LR images have no HR image: 3.png"),
            (["0001.png"], ["0001x2.png"], "0001x2.png is named as an LR image of scale 2"),
            (["000001.png"], ["0000x4.png"], "1 HR images .*; 1 LR images"),
            (["1.png"], ["a/1.png", "b/1.png"], "several LR files have the same name: 1"),
            (["1.png", "1.jpg"], ["1.png"], "several HR files have the same name: 1"),
            ([f"{i}.png" for i in range(9)], [], r"9 HR .* 1.png, 2.png, 3.png, 4.png, \.\.\."),
        ],
    )  # fmt: skip
    def test_refuses(self, hr, lr, message):
        with pytest.raises(ConfigError, match=message):
            pair_names(hr, lr, 4)


class TestPaired:
    def test_lr_is_used_as_it_is(self, pairs):
        hr_dir, lr_dir, hr, lr = pairs
        config = DataConfig(source="paired", train_dir=hr_dir, train_lr_dir=lr_dir, patch_size=24)
        source = make_source(config, "train")
        assert isinstance(source, PairedSource) and source.fields == ("hr", "lr")
        for i in range(2):
            np.testing.assert_array_equal(source[i]["hr"], hr[f"000{i + 1}.png"])
            np.testing.assert_array_equal(source[i]["lr"], lr[source.name(i)])
        copy = pickle.loads(pickle.dumps(source))
        np.testing.assert_array_equal(copy[1]["lr"], source[1]["lr"])
        found = valid_pairs(source, config)
        np.testing.assert_array_equal(found[1]["lr"], lr["X4/0002x4.png"])
        np.testing.assert_array_equal(found[1]["hr"], hr["0002.png"][:28, :24])

    def test_crops_are_aligned_on_the_lr_grid(self, tmp_path, rng):
        lr = noise(rng, 9, 8)
        hr = np.pad(lr.repeat(3, 0).repeat(3, 1), ((0, 2), (0, 1), (0, 0)))  # less than one cell
        config = DataConfig(
            source="paired", scale=3, patch_size=12, color_permutations=True,
            train_dir=save(tmp_path / "HR", {"a.png": hr}),
            train_lr_dir=save(tmp_path / "LR", {"a.png": lr}),
        )  # fmt: skip
        with make_loader(make_source(config, "train"), config, batch_size=64, seed=0) as loader:
            batch = next(loader)
        np.testing.assert_array_equal(batch["hr"], batch["lr"].repeat(3, 1).repeat(3, 2))
        assert len({patch.tobytes() for patch in batch["lr"]}) > 50

    def test_wrong_sizes_name_the_files(self, pairs, tmp_path):
        save(tmp_path / "LR", {"X4/0002x4.png": np.zeros((8, 6, 3), np.uint8)})
        message = r"1 LR images do not have 1/4 of the HR size: X4/0002x4.png 6x8 of 0002.png 27x31"
        with pytest.raises(ConfigError, match=message):
            PairedSource(*pairs[:2], 4)

    def test_damaged_and_small_images_leave_with_their_partners(self, pairs, tmp_path, rng):
        save(tmp_path / "HR", {"0003.png": noise(rng, 40, 40), "0004.png": noise(rng, 40, 40)})
        save(tmp_path / "LR", {"0003x4.png": noise(rng, 10, 10)})
        (tmp_path / "LR" / "0004x4.png").write_bytes(b"no image")
        (tmp_path / "HR" / "notes.txt").write_text("none either")
        source = PairedSource(*pairs[:2], 4, 28)
        assert [source.name(i) for i in range(len(source))] == ["0003x4.png"]
        reasons = dict(source.skipped)
        assert set(reasons) == {"HR/notes.txt", "LR/0004x4.png", "X4/0001x4.png", "X4/0002x4.png"}
        assert reasons["X4/0002x4.png"] == "too small: 27x31 HR pixels, 28 are needed"
        with pytest.raises(ConfigError, match="no usable pair in .*HR.*LR.*: 4 pairs"):
            PairedSource(*pairs[:2], 4, 100)

    def test_several_lr_images_of_one_hr_image(self, tmp_path, rng):
        hr = save(tmp_path / "HR", {"0001.png": noise(rng, 16, 16)})
        lr = {f"0001x4w{i}.png": noise(rng, 4, 4) for i in (1, 2)}
        source = PairedSource(hr, save(tmp_path / "LR", lr), 4)
        assert [source.name(i) for i in range(2)] == list(lr)
        assert source[0]["hr"] is source[1]["hr"]
        np.testing.assert_array_equal(source[1]["lr"], lr["0001x4w2.png"])

    def test_unpaired_files_say_where(self, pairs, tmp_path, rng):
        save(tmp_path / "HR", {"0009.png": noise(rng, 8, 8)})
        config = DataConfig(
            source="paired", train_dir=pairs[0], train_lr_dir=pairs[1], patch_size=24
        )
        message = rf"{tmp_path}/HR \(HR\) and {tmp_path}/LR \(LR\): 1 HR images .*: 0009.png"
        with pytest.raises(ConfigError, match=message):
            make_source(config, "train")

    def test_validation_pairs_beside_any_source(self, pairs):
        config = DataConfig(valid_dir=pairs[0], valid_lr_dir=pairs[1])
        assert isinstance(make_source(config, "valid"), PairedSource)
        assert isinstance(make_source(config, "train"), EmbeddedSource)


class TestMixture:
    def test_all_images_in_one_sequence(self, tmp_path, rng):
        files = [
            {"a.png": noise(rng, 8, 8)},
            {"b.png": noise(rng, 9, 9), "c.png": noise(rng, 8, 9)},
        ]
        folders = tuple(save(tmp_path / f"set{i}", part) for i, part in enumerate(files))
        config = DataConfig(source="folder", train_dir=folders, valid_dir=folders, patch_size=8)
        source = make_source(config, "train")
        assert isinstance(source, Mixture) and source.fields == ("hr",)
        assert [source.name(i) for i in range(len(source))] == ["a.png", "b.png", "c.png"]
        for i, wanted in enumerate(p for part in files for p in part.values()):
            np.testing.assert_array_equal(pickle.loads(pickle.dumps(source))[i]["hr"], wanted)
        for index in (3, -1):
            with pytest.raises(IndexError):
                source[index]
        assert [p["name"] for p in valid_pairs(make_source(config, "valid"), config)] == [
            "a.png", "b.png", "c.png"
        ]  # fmt: skip

    def test_of_pairs(self, pairs):
        twice = DataConfig(
            source="paired", train_dir=pairs[:1] * 2, train_lr_dir=pairs[1:2] * 2, patch_size=24
        )
        assert len(make_source(twice, "train")) == 4

    def test_parts_must_give_the_same(self, pairs):
        with pytest.raises(
            ConfigError, match=r"part 0 gives \('hr', 'lr'\), part 1 gives \('hr',\)"
        ):
            Mixture([PairedSource(*pairs[:2], 4), FolderSource(pairs[0])])
        with pytest.raises(ConfigError, match="at least one"):
            Mixture([])

    def test_config_survives_json_and_the_command_line(self):
        argument = "--config.data.train_dir=('data/DIV2K', 'data/Flickr2K')"
        folders = split_overrides([argument])[1]["data.train_dir"]
        config = from_dict(DataConfig, {"source": "folder", "train_dir": list(folders)})
        assert config.folders("train") == (("data/DIV2K", "data/Flickr2K"), ())
        assert from_dict(DataConfig, json.loads(json.dumps(to_dict(config)))) == config
        hash(config)

    def test_the_message_names_the_missing_one(self, pairs):
        config = DataConfig(source="folder", train_dir=(pairs[0], "no/Flickr2K_HR"))
        with pytest.raises(ConfigError, match="Flickr2K_HR' is not a folder.*Flickr2K.tar"):
            make_source(config, "train")


class TestConfig:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"source": "paired", "train_dir": "x"}, "source = 'paired' needs train_lr_dir"),
            (
                {"source": "folder", "train_dir": "x", "train_lr_dir": "y"},
                "train_lr_dir = 'y' is not read by source = 'folder', but by 'paired'",
            ),
            ({"source": "paired", "train_dir": ("x", "y"), "train_lr_dir": "z"}, "1 folders.* 2"),
            ({"valid_lr_dir": "x"}, "valid_lr_dir names 1 folders, valid_dir 0"),
            ({"source": "tfds"}, "source = 'tfds' needs tfds_name"),
            ({"tfds_name": "cifar10"}, "tfds_name = 'cifar10' is not read by source = 'embedded'"),
            ({"source": "tfds", "tfds_name": "a", "train_dir": "x"}, "train_dir = 'x' is not read"),
            ({"source": "array_record"}, "'array_record' needs train_dir"),
        ],
    )
    def test_refuses(self, fields, message):
        with pytest.raises(ConfigError, match=message):
            DataConfig(**fields)


class TestMissing:
    @pytest.mark.parametrize("source", ["folder", "paired", "array_record"])
    def test_a_missing_folder_says_what_to_download_and_set(self, source, tmp_path):
        lr = {"train_lr_dir": "LR"} if source == "paired" else {}
        folder = str(tmp_path / "DIV2K" / "DIV2K_train_HR")
        with pytest.raises(ConfigError) as error:
            make_source(DataConfig(source=source, train_dir=folder, **lr), "train")
        text = str(error.value)
        for part in (
            f"data.train_dir = {folder!r} is not a folder (looked in {folder})",
            "DIV2K_train_HR.zip (3,530,603,713 bytes)",
            "data.vision.ee.ethz.ch/cvl/DIV2K/",
            "Licence: academic research only",
            "set data.train_dir",
        ):
            assert part in text

    def test_unknown_sets_and_lr_folders(self, pairs):
        config = DataConfig(valid_dir="no/where")
        with pytest.raises(ConfigError, match="data.valid_dir = 'no/where'.*Any folder of PNG"):
            make_source(config, "valid")
        config = DataConfig(source="paired", train_dir=pairs[0], train_lr_dir="no/LR")
        with pytest.raises(ConfigError, match="data.train_lr_dir = 'no/LR' is not a folder"):
            make_source(config, "train")

    def test_every_set_is_found_by_its_names(self):
        names = {
            "DIV2K": "data/div2k_valid", "Flickr2K": "DF2K", "FFHQ": "ffhq/images1024x1024",
            "CelebA-HQ": "celeb_a_hq/256", "CelebA": "data/CelebA/train",
            "downsampled": "downsampled_imagenet/32x32", "resized": "imagenet_resized/8x8",
            "ImageNet": "imagenet2012", "CIFAR-10": "cifar10",
        }  # fmt: skip
        assert len(names) == len(ENTRIES)
        for title, name in names.items():
            assert advice(name).startswith(title) and "Licence: " in advice(name)
        assert "CelebA-HQ" in advice("data/CelebAMask-HQ") and advice("holiday") == ""


class TestCache:
    def test_it_is_bounded_counts_once_and_pickles_empty(self):
        reads = []

        def get(cache, key):
            def read():
                reads.append(key)
                return {"hr": np.zeros(40, np.uint8), "label": 3}

            return cache.get(key, read)

        cache = Cache(100)
        for key in (1, 2, 1, 3, 1, 2):
            assert get(cache, key)["label"] == 3
        assert reads == [1, 2, 3, 2]
        with pytest.raises(ValueError, match="read-only"):
            get(cache, 2)["hr"][0] = 1
        reads.clear()
        get(pickle.loads(pickle.dumps(cache)), 2)
        assert reads == [2]


@pytest.fixture
def records(tmp_path, rng):
    """Whole images as records in three files, and the pixels."""
    pixels = {f"{i}.png": noise(rng, 20 + i, 24) for i in range(5)}
    source = FolderSource(save(tmp_path / "photos", pixels))
    folder = tmp_path / "records"
    write_records(source, folder, crop=0, scale=4, shard_mib=0)
    return folder, pixels


class TestRecords:
    @pytest.mark.parametrize(
        "fields", [("hr",), ("hr", "lr"), ("hr", "label"), ("hr", "lr", "label")]
    )
    def test_a_record_gives_back_what_went_in(self, rng, fields):
        full = {"hr": noise(rng, 6, 9), "lr": noise(rng, 2, 3), "label": 7}
        example = {k: full[k] for k in fields}
        found, name = decode_record(encode_record(example, "sub/é.png@0,4"))
        assert name == "sub/é.png@0,4" and tuple(found) == fields
        for key, value in example.items():
            np.testing.assert_array_equal(found[key], value)

    def test_reading(self, records):
        folder, pixels = records
        config = DataConfig(source="array_record", train_dir=str(folder), patch_size=20)
        source = make_source(config, "train")
        assert isinstance(source, ArrayRecordSource) and source.fields == ("hr", "lr")
        assert [source.name(i) for i in range(len(source))] == list(pixels)
        copy = pickle.loads(pickle.dumps(source))
        wanted = valid_pairs(FolderSource(folder.parent / "photos"), config)
        for i, pair in enumerate(valid_pairs(copy, config)):
            assert set(source[i]) == {"hr", "lr"}
            np.testing.assert_array_equal(pair["hr"], wanted[i]["hr"])
            np.testing.assert_array_equal(pair["lr"], wanted[i]["lr"])
        for index in (5, -1):
            with pytest.raises(IndexError):
                source[index]
        # As validation images they are recognised, whatever the training images are.
        assert len(make_source(DataConfig(valid_dir=str(folder)), "valid")) == 5

    def test_batches_are_those_of_the_images(self, records):
        folder, _ = records
        photos = DataConfig(source="folder", train_dir=str(folder.parent / "photos"), patch_size=20)
        stored = DataConfig(source="array_record", train_dir=str(folder), patch_size=20)

        def batch(config, **options):
            source = make_source(config, "train")
            with make_loader(source, config, batch_size=8, seed=1, **options) as loader:
                return next(loader)

        wanted = batch(photos)
        for found in (batch(stored), batch(stored, workers=1)):
            for key in ("hr", "lr"):
                np.testing.assert_array_equal(found[key], wanted[key])

    def test_what_does_not_fit(self, records, tmp_path):
        folder, _ = records
        for scale, size, message in (
            (2, 8, "LR images of scale 4, data.scale is 2"),
            (4, 24, "20x24 pixels, at least 24x24 are needed"),
        ):
            with pytest.raises(ConfigError, match=message):
                ArrayRecordSource(folder, scale, size)
        with pytest.raises(ConfigError, match="no finished records; write them with"):
            ArrayRecordSource(tmp_path / "photos", 4)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"format": "flowsr_jax records 2"}, "is not 'flowsr_jax records 1'"),
            ({"fields": ["lr"]}, "fields"),
            ({"scale": None}, "no whole number"),
            ({"smallest": [20]}, "smallest"),
            ({"shards": []}, "no shards"),
            ({"shards": [{"file": "../x.array_record", "records": 1, "bytes": 1}]}, "'../x"),
            ({"shards": [{"file": NAME, "records": -1, "bytes": 1}]}, "no whole number"),
            ({"shards": [{"file": NAME, "records": 10**40, "bytes": 1}]}, "no whole number"),
            ({"shards": 3}, "TypeError"),
        ],
    )  # fmt: skip
    def test_an_index_of_strangers(self, records, change, message):
        path = records[0] / "records.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
        with pytest.raises(ConfigError, match=f"records.json cannot be read .*{message}"):
            ArrayRecordSource(records[0], 4)

    @pytest.mark.parametrize("text", ["", "[]", "{}", "nonsense", "\x80", "[" * 99999])
    def test_an_index_that_is_none(self, records, text):
        (records[0] / "records.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(ConfigError, match="records.json cannot be read"):
            ArrayRecordSource(records[0], 4)

    def test_missing_and_cut_files(self, records):
        file = records[0] / "records-00001.array_record"
        data = file.read_bytes()
        file.write_bytes(data[:-1000])
        with pytest.raises(ConfigError, match=f"00001.array_record has {len(data) - 1000} bytes"):
            ArrayRecordSource(records[0], 4)
        file.unlink()
        with pytest.raises(ConfigError, match="00001.array_record has no bytes"):
            ArrayRecordSource(records[0], 4)

    def test_damaged_bytes_are_one_clear_error(self, records, rng):
        file = records[0] / "records-00001.array_record"
        good = file.read_bytes()
        for _ in range(20):
            bad = bytearray(good)
            bad[int(rng.integers(40, 1500))] ^= 1 << int(rng.integers(8))
            file.write_bytes(bad)
            source = ArrayRecordSource(records[0], 4)
            with pytest.raises(
                ImageError, match=rf"^{records[0]}: record 1 is damaged \([^\n]+\)$"
            ):
                source[1]
            assert source[0]["hr"].shape == (20, 24, 3)

    def test_records_of_strangers(self, records, rng):
        """A whole file of whole records, but not of what they should be."""
        from array_record.python.array_record_module import ArrayRecordWriter

        good = encode_record({"hr": noise(rng, 8, 8), "lr": noise(rng, 2, 2)}, "a")
        other = {"hr": noise(rng, 8, 8), "lr": noise(rng, 4, 4)}
        huge = HEADER.pack(b"FSR1", 2**32 - 1, 2**32 - 1, 1, 1, -1, 0) + b"123"
        bad = {
            "fewer than a header": good[:10],
            "does not begin as a record": b"ABCD" + good[4:],
            "its header says": good[:-1],
            "35 bytes, its header says 5": huge,
            "without pixels": HEADER.pack(b"FSR1", 0, 0, 0, 0, -1, 0),
            r"it holds \('hr',\)": encode_record({"hr": other["hr"]}, "a"),
            "LR image does not fit": encode_record(other, "a"),
            "its label is": HEADER.pack(b"FSR1", 1, 1, 1, 1, 2**40, 0) + bytes(6),
        }
        file = records[0] / "records-00000.array_record"
        writer = ArrayRecordWriter(str(file), array_records.WRITER_OPTIONS)
        for record in (good, *bad.values()):
            writer.write(record)
        writer.close()
        path = records[0] / "records.json"
        shard = {"file": file.name, "records": len(bad) + 1, "bytes": file.stat().st_size}
        path.write_text(json.dumps({**json.loads(path.read_text()), "shards": [shard]}))
        source = ArrayRecordSource(records[0], 4)
        assert source[0]["hr"].shape == (8, 8, 3)
        for i, message in enumerate(bad, 1):
            with pytest.raises(ImageError, match=f"record {i} is damaged .*{message}"):
                source[i]
        shard["records"] += 1  # more than there are
        path.write_text(json.dumps({**json.loads(path.read_text()), "shards": [shard]}))
        with pytest.raises(ImageError, match=f"record {len(bad) + 1} is damaged"):
            ArrayRecordSource(records[0], 4)[len(bad) + 1]
