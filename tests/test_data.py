"""Sources, transforms and the training pipeline."""

from __future__ import annotations

import collections
import json
import logging
import pickle

import numpy as np
import pytest
from PIL import Image

from flowsr_jax.config import ConfigError, from_dict, to_dict
from flowsr_jax.data import (
    DataConfig,
    EmbeddedSource,
    FolderSource,
    make_loader,
    make_source,
    sources,
    valid_pairs,
)
from flowsr_jax.data.degradations import DegradationConfig, degrade_image
from flowsr_jax.data.transforms import (
    crop_float_lr,
    crop_lr,
    degrade,
    fits,
    random_color_permutation,
    random_crop,
    random_flip,
    random_rotation,
    training_patches,
    whole_cells,
)
from flowsr_jax.math.resize import imresize

SMALL = DataConfig(scale=2, patch_size=4)


# The LR image is HR with noise: what is drawn shows.
NOISY = DegradationConfig("blur_noise_jpeg", noise_sigma=(20.0, 20.0))
JPEG = DegradationConfig("blur_noise_jpeg", blur_sigma=(0.5, 1.5), jpeg_quality=(30, 60))


class Memory:
    """A source of arrays; its images can be told apart by their first channel."""

    def __init__(self, images, **fields):
        self.images, self.fields = images, fields

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return {"hr": self.images[index], **{k: v[index] for k, v in self.fields.items()}}

    def name(self, index):
        return f"image {index}"


def coloured(count: int, side: int = 4) -> Memory:
    """Return `count` plain images; image i has the colour (i // 256, i % 256, 0)."""
    colours = [(i // 256, i % 256, 0) for i in range(count)]
    return Memory([np.full((side, side, 3), c, np.uint8) for c in colours])


def images_of(batch) -> list[int]:
    """Return which image of `coloured` each patch is from."""
    return [int(p[0, 0, 0]) * 256 + int(p[0, 0, 1]) for p in batch["hr"]]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def noise(rng) -> Memory:
    """Three noise images whose patches are all different."""
    sizes = [(20, 24), (33, 17), (16, 16)]
    return Memory([rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes])


@pytest.fixture
def folder(tmp_path, rng):
    """Three good images (one in a sub-folder) among five files that are none."""
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    for name, size in {
        "b.png": (40, 30),
        "a.jpg": (32, 32),
        "deep/er/c.PNG": (33, 50),
        "small.png": (31, 64),
        "cut.png": (64, 64),
        "cut.jpg": (64, 64),
        ".hidden/no.png": (64, 64),
    }.items():
        pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    for name in ("cut.png", "cut.jpg"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "notes.txt").write_text("not an image")
    return tmp_path


class TestConfig:
    def test_round_trip(self):
        config = DataConfig(scale=8, patch_size=160, angles=(0, 90, 270))
        assert from_dict(DataConfig, json.loads(json.dumps(to_dict(config)))) == config

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"scale": 4, "patch_size": 98}, "take 96 or 100"),
            ({"scale": 0}, "scale = 0 must be at least 1"),
            ({"patch_size": 96.0}, "patch_size = 96.0"),
            ({"workers": -1}, "workers = -1"),
            ({"crops_per_image": 0}, "crops_per_image = 0"),
            ({"source": "embeded"}, "did you mean 'embedded'"),
            ({"source": "folder"}, "needs train_dir"),
            ({"train_dir": "photos"}, "not read by source = 'embedded', but by .*'folder'"),
            ({"source": "folder", "train_dir": "x", "textures": True}, "textures"),
            ({"angles": (0, 45)}, "angles"),
            ({"angles": ()}, "angles"),
            ({"degradation": "bicubic"}, "degradation = 'bicubic' must be a DegradationConfig"),
        ],
    )
    def test_refuses(self, fields, message):
        with pytest.raises(ConfigError, match=message):
            DataConfig(**fields)


class TestFolder:
    def test_good_images_sorted_bad_ones_named(self, folder, caplog):
        with caplog.at_level(logging.WARNING):
            source = FolderSource(folder, 32)
        names = [source.name(i) for i in range(len(source))]
        assert names == ["a.jpg", "deep/er/c.PNG"]
        reasons = dict(source.skipped)
        assert sorted(reasons) == [
            "b.png", "cut.jpg", "cut.png", "notes.txt", "small.png", "text.png"
        ]  # fmt: skip
        assert reasons["small.png"] == "too small: 31x64 pixels, at least 32x32 are needed"
        assert "not an image" in reasons["text.png"] and "(.txt)" in reasons["notes.txt"]
        assert "truncated" in reasons["cut.jpg"] and "cannot be decoded" in reasons["cut.png"]
        assert all(str(folder) not in reason for reason in reasons.values())
        for name, reason in reasons.items():
            assert f"skipped {name}: {reason}" in caplog.text
        assert f"skipped 6 of 8 files in {folder}" in caplog.text

    def test_pixels(self, folder):
        source = FolderSource(folder, 32)
        wanted = np.asarray(Image.open(folder / "deep" / "er" / "c.PNG"))
        found = source[1]["hr"]
        assert found.dtype == np.uint8 and found.shape == (50, 33, 3)
        np.testing.assert_array_equal(found, wanted)
        with pytest.raises(IndexError):
            source[2]

    def test_empty_folder(self, tmp_path):
        (tmp_path / "sub").mkdir()
        with pytest.raises(ValueError, match=f"no usable image in {tmp_path}: 0 files found"):
            FolderSource(tmp_path)

    def test_folder_without_a_usable_image_names_one(self, folder):
        message = f"no usable image in {folder}: 8 files found, 8 skipped.*a.jpg: too small"
        with pytest.raises(ValueError, match=message):
            FolderSource(folder, 1000)

    def test_missing_folder(self, tmp_path):
        with pytest.raises(ValueError, match="absent is not a folder"):
            FolderSource(tmp_path / "absent")

    def test_links_in_circles_end(self, folder):
        (folder / "deep" / "again").symlink_to(folder)
        assert len(FolderSource(folder, 32)) == 2

    def test_cache_is_bounded_and_drops_the_oldest(self, folder, monkeypatch):
        reads = []

        def read(path, **_):
            reads.append(path.name)
            return np.zeros((32, 32, 3), np.uint8)

        monkeypatch.setattr(sources, "read_rgb", read)
        monkeypatch.setattr(sources, "MIB", 2 * 32 * 32 * 3)  # room for two images
        source = FolderSource(folder, 1, cache_mib=1)
        assert len(source) == 7
        for i in (5, 6, 0, 1, 0, 2, 0, 1):  # what the check left there goes first
            source[i]
        # 0 stays (used again before 2 came), 1 was the oldest and is read anew.
        assert reads[-3:] == [source.name(i).split("/")[-1] for i in (1, 2, 1)]
        source = FolderSource(folder, 1, cache_mib=0)
        reads.clear()
        for _ in range(3):
            source[0]
        assert len(reads) == 3

    def test_shared_pixels_cannot_be_written(self, folder):
        with pytest.raises(ValueError, match="read-only"):
            FolderSource(folder, 32)[0]["hr"][0, 0, 0] = 1

    def test_pickles_without_pixels(self, folder):
        source = FolderSource(folder, 32)
        data = pickle.dumps(source)
        copy = pickle.loads(data)
        assert len(data) < 3000 and copy.skipped == source.skipped
        np.testing.assert_array_equal(copy[0]["hr"], source[0]["hr"])


class TestEmbedded:
    def test_splits_are_fixed(self):
        names = {}
        for split in ("train", "valid"):
            source = EmbeddedSource(split)
            names[split] = [source.name(i) for i in range(len(source))]
            for i in range(len(source)):
                hr = source[i]["hr"]
                assert hr.dtype == np.uint8 and hr.ndim == 3 and hr.shape[2] == 3
        assert names["valid"] == ["coffee", "chelsea", "flower"]
        assert len(names["train"]) == 6 and not set(names["train"]) & set(names["valid"])

    def test_textures_join_training_only(self):
        assert len(EmbeddedSource("train", textures=True)) == 12
        assert len(EmbeddedSource("valid", textures=True)) == 3

    def test_make_source(self, folder):
        assert isinstance(make_source(DataConfig(), "valid"), EmbeddedSource)
        config = DataConfig(source="folder", train_dir=str(folder), patch_size=32)
        assert len(make_source(config, "train")) == 2  # those that hold a patch
        assert isinstance(make_source(config, "valid"), EmbeddedSource)
        config = DataConfig(valid_dir=str(folder))
        assert len(make_source(config, "valid")) == 4
        with pytest.raises(ConfigError, match="split = 'test'"):
            make_source(config, "test")


class TestTransforms:
    @pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
    def test_lr_crop_equals_the_crop_of_the_whole(self, rng, scale):
        hr = rng.integers(0, 256, (101, 90, 3), dtype=np.uint8)
        whole = degrade(hr, scale)
        assert whole.shape == (101 // scale, 90 // scale, 3)
        size = whole.shape[1] // 3
        bottom, right = whole.shape[0] - size, whole.shape[1] - size
        for top, left in ((0, 0), (0, right), (bottom, 0), (bottom, right), (3, 2), (5, 3)):
            found = crop_lr(hr, top, left, size, scale)
            np.testing.assert_array_equal(found, whole[top : top + size, left : left + size])

    @pytest.mark.parametrize("scale", [2, 3, 4])
    def test_float_lr_crop_is_the_bicubic_before_rounding(self, rng, scale):
        blocks = 255 * rng.integers(0, 2, (8, 7, 3), dtype=np.uint8)
        hr = blocks.repeat(8, axis=0).repeat(8, axis=1)[:61, :50]
        whole = imresize(whole_cells(hr, scale).astype(np.float32) / 255, 1 / scale)
        bottom, right = (n - 7 for n in whole.shape[:2])
        for top, left in ((0, 0), (0, right), (bottom, 0), (bottom, right), (1, 3)):
            found = crop_float_lr(hr, top, left, 7, scale)
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, whole[top : top + 7, left : left + 7], atol=1e-6)
        assert whole.min() < 0 or whole.max() > 1  # it is not clipped
        config = DataConfig(scale=scale, patch_size=6 * scale, float_lr=True)
        pair = training_patches({"hr": hr}, rng, config)
        small = imresize(pair["hr"][0].astype(np.float32) / 255, 1 / scale)
        np.testing.assert_allclose(pair["lr"][0, 2:-2, 2:-2], small[2:-2, 2:-2], atol=1e-5)

    def test_float_lr_needs_the_bicubic(self):
        with pytest.raises(ConfigError, match="float_lr"):
            DataConfig(source="paired", train_dir="a", train_lr_dir="b", float_lr=True)

    def test_random_crops_are_aligned_and_reach_every_offset(self, rng):
        y, x = np.mgrid[:23, :20].astype(np.uint8)
        hr = np.stack([y, x, rng.integers(0, 256, y.shape, dtype=np.uint8)], axis=2)
        whole, seen = degrade(hr, 2), collections.Counter()
        for _ in range(3000):
            pair = random_crop(hr, 12, 2, rng)
            top, left = (int(n) for n in pair["hr"][0, 0, :2])
            seen[top, left] += 1
            np.testing.assert_array_equal(pair["hr"], hr[top : top + 12, left : left + 12])
            small = whole[top // 2 :, left // 2 :][:6, :6]
            np.testing.assert_array_equal(pair["lr"], small)
        assert sorted(seen) == [(t, l) for t in range(0, 12, 2) for l in range(0, 10, 2)]
        assert min(seen.values()) > 60  # of 100 expected

    def test_an_image_of_the_patch_size_fits_and_a_smaller_one_does_not(self, rng):
        hr = rng.integers(0, 256, (12, 13, 3), dtype=np.uint8)
        assert random_crop(hr, 12, 4, rng)["lr"].shape == (3, 3, 3)
        with pytest.raises(ValueError, match=r"\(12x13\) is smaller than a patch of 16x16"):
            random_crop(hr, 16, 4, rng)

    def test_flip_and_rotation_move_both_alike(self, rng):
        lr = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        pair = {"hr": lr.repeat(4, 0).repeat(4, 1), "lr": lr}
        seen = collections.Counter()
        for _ in range(400):
            found = random_rotation(random_flip(pair, rng), (0, 90, 180, 270), rng)
            np.testing.assert_array_equal(found["hr"], found["lr"].repeat(4, 0).repeat(4, 1))
            seen[found["lr"].tobytes()] += 1
        assert len(seen) == 8 and min(seen.values()) > 20  # of 50 expected

    def test_angles_are_counter_clockwise_and_only_those_asked_for(self, rng):
        lr = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        found = {random_rotation({"lr": lr}, (0, 90), rng)["lr"].tobytes() for _ in range(50)}
        assert found == {lr.tobytes(), np.rot90(lr).tobytes()}

    def test_colour_permutations_move_channels_together(self):
        rng = np.random.default_rng(0)
        hr = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
        pair = {"hr": hr, "lr": degrade(hr, 2)}
        found = set()
        for _ in range(60):
            out = random_color_permutation(pair, rng)
            np.testing.assert_array_equal(out["lr"], degrade(out["hr"], 2))
            np.testing.assert_array_equal(np.sort(out["hr"], axis=-1), hr)
            found.add(tuple(out["hr"][0, 0]))
        assert len(found) == 6

    @pytest.mark.parametrize(("flips", "rotations"), [(False, False), (True, False), (False, True)])
    def test_options_turn_augmentations_off(self, rng, flips, rotations):
        hr = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        config = DataConfig(scale=2, patch_size=8, flips=flips, rotations=rotations)
        found = {
            training_patches({"hr": hr}, np.random.default_rng(i), config)["hr"].tobytes()
            for i in range(60)
        }
        assert len(found) == (2 if flips else 4 if rotations else 1)


class TestOwnLR:
    def test_the_sources_lr_is_cut_on_its_grid(self, rng):
        lr = rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)
        hr = np.pad(lr.repeat(3, 0).repeat(3, 1), ((0, 2), (0, 0), (0, 0)))  # a remainder
        for _ in range(50):
            pair = random_crop(hr, 6, 3, rng, lr=lr)
            np.testing.assert_array_equal(pair["hr"], pair["lr"].repeat(3, 0).repeat(3, 1))

    @pytest.mark.parametrize(
        ("height", "good"), [(8, True), (9, True), (10, False), (7, False), (0, False)]
    )
    def test_sizes_must_fit(self, height, good):
        assert fits((height, 6), (4, 3), 2) == good
        images, lr = [np.zeros((height, 6, 3), np.uint8)], [np.zeros((4, 3, 3), np.uint8)]
        source = Memory(images, lr=lr)
        if good:
            assert valid_pairs(source, SMALL)[0]["hr"].shape == (8, 6, 3)
            return
        with pytest.raises(ConfigError, match=f"'image 0': LR has 3x4 pixels, HR 6x{height}"):
            valid_pairs(source, SMALL)

    def test_labels_stay_with_their_images(self):
        count = 20
        source = Memory(coloured(count).images, label=list(range(count)))
        config = DataConfig(scale=2, patch_size=4, crops_per_image=2)
        with make_loader(source, config, batch_size=32, seed=0) as loader:
            batch = next(loader)
        assert batch["label"].dtype == np.int32 and batch["label"].shape == (32,)
        assert list(batch["label"]) == images_of(batch)
        assert [pair["label"] for pair in valid_pairs(source, SMALL)] == list(range(count))


class TestScaleOne:
    def test_whole_images(self, rng):
        images = [rng.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(8)]
        config = DataConfig(scale=1, patch_size=32, flips=False, rotations=False)
        with make_loader(Memory(images), config, batch_size=16, seed=0) as loader:
            batch = next(loader)
        np.testing.assert_array_equal(batch["lr"], batch["hr"])
        assert {patch.tobytes() for patch in batch["hr"]} <= {i.tobytes() for i in images}
        pair = valid_pairs(Memory(images), config)[2]
        np.testing.assert_array_equal(pair["hr"], images[2])
        np.testing.assert_array_equal(pair["lr"], images[2])

    def test_pairs_of_one_size(self, rng):
        hr = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
        pair = random_crop(hr, 8, 1, rng, lr=255 - hr)
        np.testing.assert_array_equal(pair["lr"], 255 - pair["hr"])
        pair = random_crop(hr, 8, 1, rng, degradation=NOISY)
        assert pair["lr"].shape == (8, 8, 3) and (pair["lr"] != pair["hr"]).any()


class TestDegradations:
    @pytest.mark.parametrize("degradation", [NOISY, JPEG, DegradationConfig("real_esrgan")])
    @pytest.mark.parametrize("size", [(32, 32), (60, 75), (130, 140)])
    def test_patches_are_aligned(self, rng, degradation, size):
        y, x = np.mgrid[: size[0], : size[1]] * 255 // max(size)
        hr = np.stack([y, x, (x + y) // 2], axis=2).astype(np.uint8)
        differences = []
        for _ in range(16):
            pair = random_crop(hr, 32, 4, rng, degradation=degradation)
            assert pair["hr"].shape == (32, 32, 3) and pair["lr"].shape == (8, 8, 3)
            # Ramps: where a patch lies shows in its mean colour.
            differences.append(pair["hr"].mean((0, 1)) - pair["lr"].mean((0, 1)))
            if degradation.kind != "real_esrgan":  # which sharpens
                top, left = np.argwhere((hr == pair["hr"][0, 0]).all(-1))[0]
                np.testing.assert_array_equal(pair["hr"], hr[top : top + 32, left : left + 32])
        np.testing.assert_allclose(np.mean(differences, axis=0), 0, atol=6)

    def test_the_context_reaches_the_patch(self, rng):
        """A patch is that of the whole image, blurred as a whole, also at the edges."""
        hr = rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)
        blur = DegradationConfig("blur_noise_jpeg", blur_sigma=(1.0, 1.0), blur_size=9)
        whole = degrade_image(hr, 2, blur, rng)[1]
        for seed in range(20):
            pair = random_crop(hr, 32, 2, np.random.default_rng(seed), degradation=blur)
            again = np.random.default_rng(seed)
            top, left = int(again.integers(33)), int(again.integers(33))
            np.testing.assert_array_equal(pair["lr"], whole[top : top + 16, left : left + 16])

    def test_the_blocks_of_a_jpeg_begin_anywhere(self, rng):
        hr = np.full((400, 400, 3), 128, np.uint8)
        coarse = DegradationConfig("blur_noise_jpeg", noise_sigma=(60.0, 60.0), jpeg_quality=(5, 5))
        phases = set()
        for _ in range(60):
            lr = random_crop(hr, 128, 2, rng, degradation=coarse)["lr"].astype(int)
            steps = np.abs(np.diff(lr.mean(2), axis=0)).sum(1)
            phases.add(int(np.argmax([steps[p::8].mean() for p in range(8)])))
        assert phases == set(range(8))

    def test_batches_depend_on_the_seed_alone(self, noise):
        config = DataConfig(scale=2, patch_size=8, degradation=JPEG)

        def batches(seed, workers=0):
            with make_loader(noise, config, batch_size=4, seed=seed, workers=workers) as loader:
                return [next(loader)["lr"].tobytes() for _ in range(3)]

        assert batches(1) == batches(1) != batches(2)
        assert batches(1) == batches(1, workers=1)

    def test_validation_pairs_are_fixed(self, noise):
        config = DataConfig(scale=2, patch_size=8, degradation=NOISY)
        first, again = valid_pairs(noise, config), valid_pairs(noise, config)
        for a, b in zip(first, again, strict=True):
            np.testing.assert_array_equal(a["lr"], b["lr"])
        twice = Memory([noise.images[0]] * 2)  # the same image is degraded in two ways
        a, b = valid_pairs(twice, config)
        assert (a["lr"] != b["lr"]).any()
        one = valid_pairs(twice, config, count=1, crop=8)[0]
        np.testing.assert_array_equal(one["lr"], a["lr"][3:7, 4:8])

    def test_config_survives_json(self):
        config = DataConfig(degradation=JPEG)
        assert from_dict(DataConfig, json.loads(json.dumps(to_dict(config)))) == config
        hash(config)


class TestLoader:
    def test_batches(self, noise):
        config = DataConfig(scale=4, patch_size=16)
        with make_loader(noise, config, batch_size=8, seed=0) as loader:
            batch = next(loader)
        assert set(batch) == {"hr", "lr"}
        assert batch["hr"].shape == (8, 16, 16, 3) and batch["lr"].shape == (8, 4, 4, 3)
        assert all(v.dtype == np.uint8 and v.flags.c_contiguous for v in batch.values())

    def test_the_seed_decides(self, noise):
        def first(seed):
            with make_loader(noise, SMALL, batch_size=8, seed=seed) as loader:
                return next(loader)["hr"].tobytes()

        assert first(1) == first(1) and first(1) != first(2)

    def test_successive_batches_and_passes_differ(self, noise):
        config = DataConfig(scale=2, patch_size=8)
        with make_loader(noise, config, batch_size=128, seed=0) as loader:
            batches = [next(loader)["hr"].tobytes() for _ in range(9)]  # two passes
        assert len(set(batches)) == 9

    def test_same_batches_and_resumption_for_any_worker_count(self, folder):
        config = DataConfig(
            source="folder", train_dir=str(folder), patch_size=16, crops_per_image=2
        )
        source = make_source(config, "train")
        with make_loader(source, config, batch_size=4, seed=3, workers=0) as loader:
            wanted = [next(loader) for _ in range(7)]
            end = json.loads(json.dumps(loader.get_state()))
            after = next(loader)
        with make_loader(source, config, batch_size=4, seed=3, workers=2) as loader:
            found = [next(loader) for _ in range(3)]
            middle = json.loads(json.dumps(loader.get_state()))
            assert type(found[0]["hr"]) is np.ndarray
            loader.set_state(end)
            assert_equal(next(loader), after)
        with make_loader(source, config, batch_size=4, seed=3) as loader:
            loader.set_state(middle)
            assert loader.get_state() == middle
            found += [next(loader) for _ in range(4)]
            assert loader.get_state() == end
            loader.close()  # only stops reading ahead
            assert_equal(next(loader), after)
        for a, b in zip(wanted, found, strict=True):
            assert_equal(a, b)

    def test_refuses_states_of_other_batches(self, noise):
        loader = make_loader(noise, SMALL, batch_size=8, seed=0)
        state = loader.get_state()
        for name in ("seed", "global_batch"):
            with pytest.raises(ValueError, match=f"{name} = 9"):
                loader.set_state({**state, name: 9})
        loader.set_state({**state, "step": 3, "images": 9})  # images came or went: another order
        assert loader.get_state() == {**state, "step": 3}
        for bad in ({"step": 3}, {**state, "workers": 2}, b"3", None):
            with pytest.raises(ValueError, match="has the fields"):
                loader.set_state(bad)
        for step in (-1, 1.5, True):
            with pytest.raises(ValueError, match="step must be"):
                loader.set_state({**state, "step": step})

    def test_shares_are_disjoint_and_a_pass_is_complete(self):
        count = 600  # more than MIN_VISITS: a pass shows every image once
        source, shown = coloured(count), [[], []]
        for index in range(2):
            with make_loader(source, SMALL, batch_size=30, seed=5, shard=(index, 2)) as loader:
                for _ in range(20):
                    shown[index] += images_of(next(loader))
        for first in (0, 300):
            a, b = shown[0][first : first + 300], shown[1][first : first + 300]
            assert sorted(a + b) == list(range(count))
        assert shown[0][:300] != shown[0][300:]

    def test_global_batches_do_not_depend_on_the_number_of_processes(self, noise):
        def rows(count):
            found = []
            for index in range(count):
                with make_loader(
                    noise, SMALL, batch_size=12 // count, seed=5, shard=(index, count)
                ) as loader:
                    loader.set_state({**loader.get_state(), "step": 4})
                    found += [patch.tobytes() for patch in next(loader)["lr"]]
            return sorted(found)

        assert rows(1) == rows(2) == rows(3)

    def test_fewer_images_than_the_batch_and_the_processes(self):
        source, seen = coloured(3), collections.Counter()
        for index in range(4):
            with make_loader(source, SMALL, batch_size=64, seed=0, shard=(index, 4)) as loader:
                seen.update(images_of(next(loader)))
        assert set(seen) == {0, 1, 2} and min(seen.values()) > 50  # of 85 expected

    def test_crops_per_image(self):
        config = DataConfig(scale=2, patch_size=4, crops_per_image=3)
        with make_loader(coloured(600), config, batch_size=12, seed=0) as loader:
            found = np.reshape(images_of(next(loader)), (4, 3))
        assert len(set(found[:, 0])) == 4 and (found == found[:, :1]).all()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"batch_size": 0}, "batch_size = 0"),
            ({"batch_size": 7}, "a multiple of crops_per_image = 2"),
            ({"seed": -1}, "seed = -1"),
            ({"seed": 2**32}, "seed = 4294967296"),
            ({"shard": (2, 2)}, r"shard = \(2, 2\)"),
            ({"workers": -1}, "workers = -1"),
        ],
    )
    def test_refuses(self, noise, arguments, message):
        config = DataConfig(scale=2, patch_size=4, crops_per_image=2)
        with pytest.raises(ConfigError, match=message):
            make_loader(noise, config, **{"batch_size": 8, "seed": 0, **arguments})


class TestValidPairs:
    def test_whole_images(self, noise):
        pairs = valid_pairs(noise, SMALL)
        assert [p["name"] for p in pairs] == ["image 0", "image 1", "image 2"]
        np.testing.assert_array_equal(pairs[1]["hr"], noise.images[1][:32, :16])
        np.testing.assert_array_equal(pairs[1]["lr"], degrade(noise.images[1], 2))

    def test_cut_around_the_centre_to_a_multiple(self, noise):
        pair = valid_pairs(noise, SMALL, multiple=3, count=1)[0]  # 10x12 LR pixels
        np.testing.assert_array_equal(pair["hr"], noise.images[0][0:18])
        np.testing.assert_array_equal(pair["lr"], degrade(noise.images[0], 2)[0:9])
        pair = valid_pairs(noise, SMALL, multiple=2, count=1, crop=8)[0]
        np.testing.assert_array_equal(pair["hr"], noise.images[0][6:14, 8:16])
        np.testing.assert_array_equal(pair["lr"], degrade(noise.images[0], 2)[3:7, 4:8])

    def test_count_spreads_over_the_source(self):
        names = [p["name"] for p in valid_pairs(coloured(10), SMALL, count=3)]
        assert names == ["image 0", "image 3", "image 6"]

    def test_too_small(self, noise):
        with pytest.raises(ConfigError, match=r"'image 1' \(32x16 pixels.*holds no 9x9"):
            valid_pairs(noise, SMALL, multiple=9)


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])
