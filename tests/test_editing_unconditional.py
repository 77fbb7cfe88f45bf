"""Glow's applications: pure functions on small models, and `launch/edit.py` on files."""

from __future__ import annotations

import csv
import importlib.util
import io
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

import flowsr_jax
from flowsr_jax.data import DataConfig, make_source
from flowsr_jax.editing import unconditional as edits
from flowsr_jax.editing.attributes import (
    Directions,
    read_directions,
    read_labels,
    write_directions,
)
from flowsr_jax.models import get_family

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = {
    "glow": {"levels": 2, "steps": 1, "hidden": 4, "size": 8},
    "conditional": {"levels": 2, "steps": 1, "hidden": 4, "size": 8, "classes": 3, "n_bits": 5},
    "realnvp": {"scales": 2, "dim": 2, "blocks": 1, "size": 8},
    "nice": {"shape": (8, 8, 3), "couplings": 2, "layers": 1, "hidden": 4},
}


def build(name, seed=0, **fields):
    """Parameters, moved away from their start."""
    family = get_family({"conditional": "glow"}.get(name, name))
    config = family.config_class(**{**CONFIGS[name], **fields})
    params = jax.jit(family.init, static_argnums=0)(config, jax.random.key(seed))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + 0.05 * rng.standard_normal(x.shape).astype(x.dtype), params)


def digits(split):
    """(float images [N,8,8,1], labels [N])."""
    source = make_source(DataConfig(source="digits", scale=1, patch_size=8, channels=1), split)
    found = [source[i] for i in range(len(source))]
    pixels = np.stack([x["hr"] for x in found]).astype(np.float32) / 255
    return pixels, np.array([x["label"] for x in found])


@pytest.fixture(scope="module", params=CONFIGS)
def case(request):
    """(parameters, options that the model needs)."""
    return build(request.param), {"label": 1} if request.param == "conditional" else {}


@pytest.fixture(scope="module")
def glow():
    return build("glow")


@pytest.fixture(scope="module")
def main():
    spec = importlib.util.spec_from_file_location("launch_edit", ROOT / "launch" / "edit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda *arguments: module.main([str(a) for a in arguments])


def images(count, seed=0, shape=(8, 8, 3)):
    values = np.random.default_rng(seed).integers(0, 256, (count, *shape))
    return jnp.asarray(values / 255, jnp.float32)


def save(path, pixels):
    Image.fromarray(np.asarray(pixels, np.uint8).squeeze()).save(path)


def load(path):
    with Image.open(path) as image:
        return np.asarray(image)


class TestCodes:
    def test_codes_are_the_latents_in_order_and_decode(self, case):
        params, label = case
        x = images(3)
        codes = edits.to_codes(params, x, **label)
        latents, _ = flowsr_jax.encode(params, x, **label)
        flat = [np.concatenate([np.ravel(z[i]) for z in latents]) for i in range(3)]
        np.testing.assert_array_equal(codes, np.stack(flat))
        for a, b in zip(edits.unflatten(params, codes), latents, strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(edits.from_codes(params, codes, **label), x, atol=1e-4)

    def test_another_shape(self, glow):
        x = images(2, shape=(4, 12, 3))
        codes = edits.to_codes(glow, x)
        np.testing.assert_allclose(edits.from_codes(glow, codes, (4, 12, 3)), x, atol=1e-4)
        with pytest.raises(ValueError, match=r"codes of images \(8, 8, 3\) must be \[B,192\]"):
            edits.from_codes(glow, codes)

    def test_codes_of_glow_are_after_the_priors(self, shared):
        """The released demo's space: eps of every level, the top one too."""
        from test_glow_golden import batch_of, read
        from test_glow_golden import load as load_golden

        from flowsr_jax.models.unconditional import dequantize

        config, golden, variables = read(shared, "glow_small", "aff_1x1")
        params, batch = load_golden(config, variables), batch_of(config, golden)
        codes = edits.to_codes(params, dequantize(batch["hr"], batch["noise"]))
        eps = [golden[f"eps{i}"].reshape(len(codes), -1) for i in range(config.levels)]
        np.testing.assert_allclose(codes, np.concatenate(eps, axis=1), atol=1e-4)

    def test_other_families_are_refused(self):
        for call in (
            lambda p: edits.to_codes(p, images(1)),
            lambda p: edits.temperature_sweep(p, jax.random.key(0)),
            lambda p: edits.interpolate_images(p, *images(2)),
        ):
            with pytest.raises(ValueError, match="'srflow' is no flow that draws images"):
                call(flowsr_jax.load("demo"))


class TestDraws:
    def test_a_sweep_is_one_noise(self, case):
        params, label = case
        key, temperatures = jax.random.key(2), (0.0, 0.5, 1.0)
        swept = edits.temperature_sweep(params, key, temperatures, num_samples=3, **label)
        assert swept.shape == (3, 3, 8, 8, 3)
        np.testing.assert_allclose(swept[0, 0], swept[0, 1], atol=1e-6)
        codes = [edits.to_codes(params, x, **label) for x in swept]
        np.testing.assert_allclose(codes[0], 0, atol=1e-3)
        np.testing.assert_allclose(codes[1], 0.5 * codes[2], atol=1e-3)

    def test_interpolation_ends_at_the_images(self, case):
        params, label = case
        first, second = images(2)
        row = edits.interpolate_images(params, first, second, 3, **label)
        np.testing.assert_allclose(row[0], first, atol=1e-4)
        np.testing.assert_allclose(row[2], second, atol=1e-4)
        codes = edits.to_codes(params, jnp.stack([first, second]), **label)
        middle = edits.to_codes(params, row, **label)[1]
        np.testing.assert_allclose(middle, codes.mean(axis=0), atol=2e-3)

    def test_mistakes(self, glow):
        with pytest.raises(ValueError, match="must have one shape"):
            edits.interpolate_images(glow, images(1)[0], images(1, shape=(4, 4, 3))[0])
        with pytest.raises(ValueError, match="multiples of 4, got 6x8"):
            edits.interpolate_images(glow, *images(2, shape=(6, 8, 3)))
        for points in (1, 2.0):
            with pytest.raises(ValueError, match="points = .* at least 2"):
                edits.interpolate_images(glow, *images(2), points)
        with pytest.raises(ValueError, match="label = 3 is out of range: 0 to 2"):
            edits.temperature_sweep(build("conditional"), jax.random.key(0), label=3)


class TestDirections:
    def test_formula_sign_and_streaming(self):
        rng = np.random.default_rng(0)
        codes = rng.standard_normal((50, 7)).astype(np.float32)
        values = rng.choice([-1, 1], (50, 3))
        want = [1.6 * (codes[v == 1].mean(axis=0) - codes[v == -1].mean(axis=0)) for v in values.T]
        for cuts in ([], [1, 10, 11, 40]):
            parts = zip(np.split(codes, cuts), np.split(values, cuts), strict=True)
            found = edits.attribute_directions(parts)
            np.testing.assert_allclose(found, want, atol=1e-6)
        assert found.dtype == np.float32
        flipped = edits.attribute_directions([(codes, -values)], factor=1.0)
        np.testing.assert_allclose(flipped, -np.array(want) / 1.6, atol=1e-6)

    def test_moving_and_scores(self):
        rng = np.random.default_rng(1)
        codes, directions = (rng.standard_normal((n, 9)).astype(np.float32) for n in (4, 2))
        moved = edits.manipulate(codes, directions, [0.66, -1.0])
        np.testing.assert_allclose(
            moved, codes + 0.66 * directions[0] - directions[1], rtol=1e-5, atol=1e-5
        )
        before, after = (edits.projection(z, directions) for z in (codes, codes + directions[1]))
        want = codes @ directions[1] / (directions[1] @ directions[1])
        np.testing.assert_allclose(before[:, 1], want, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(after[:, 1] - before[:, 1], 1, rtol=1e-4)
        line = edits.attribute_line(codes[0], directions[0], 3, 2.0)
        ends = [codes[0] - 2 * directions[0], codes[0], codes[0] + 2 * directions[0]]
        np.testing.assert_allclose(line, ends, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize(
        ("batches", "message"),
        [
            ([], "no images"),
            ([(np.zeros((2, 3)), np.array([[1], [0]]))], "must be 1 or -1, got 0"),
            ([(np.zeros((2, 3)), np.array([[1], [1]]))], "attribute 0: 2 images have it and 0"),
            ([(np.zeros((2, 3)), np.array([1, -1]))], r"must be \[2,A\]"),
        ],
    )
    def test_mistakes(self, batches, message):
        with pytest.raises(ValueError, match=message):
            edits.attribute_directions(iter(batches))

    def test_a_direction_makes_digits_of_its_class(self):
        """After a short training, moved digits are mostly nearest to the mean of the class."""
        pixels, labels = digits("train")
        family = get_family("nice")
        params = family.init(family.config_class((8, 8, 1), layers=1, hidden=50), jax.random.key(0))
        optimizer = optax.adam(1e-2)

        @jax.jit
        def train(params, state, key):
            batch = {"hr": jax.random.choice(key, jnp.asarray(pixels), (200,))}
            loss = family.losses["nll"]
            grads, _ = jax.grad(loss, has_aux=True)(params, {}, batch, jax.random.fold_in(key, 1))
            updates, state = optimizer.update(grads, state)
            return optax.apply_updates(params, updates), state

        state, held_out = optimizer.init(params), digits("valid")[0]
        bits = [flowsr_jax.bits_per_dim(params, held_out).mean()]
        for key in jax.random.split(jax.random.key(1), 200):
            params, state = train(params, state, key)
        bits.append(flowsr_jax.bits_per_dim(params, held_out).mean())
        print(f"bits/dim {bits[0]:.2f} -> {bits[1]:.2f}")
        assert bits[1] < bits[0] - 1

        means = np.stack([pixels[labels == c].mean(axis=0) for c in range(10)])

        def shares(x):
            distance = ((np.asarray(x)[:, None] - means) ** 2).sum(axis=(2, 3, 4))
            return np.bincount(distance.argmin(axis=1), minlength=10) / len(x)

        values = np.where(labels[:, None] == np.arange(10), 1, -1)
        directions = edits.attribute_directions([(edits.to_codes(params, pixels), values)])
        codes, table = edits.to_codes(params, held_out), []
        for c in range(10):
            moved = (edits.manipulate(codes, directions[c : c + 1], [a]) for a in (1.0, -1.0))
            more, less = (shares(edits.from_codes(params, z))[c] for z in moved)
            table.append((shares(held_out)[c], more, less))
            print(f"digit {c}: {table[-1][0]:.2f} of the images; +1 {more:.2f}, -1 {less:.2f}")
        before, more, less = np.array(table).T
        assert more.mean() > 0.7 and np.all(more > 3 * before) and np.all(less < 0.5 * before)


class TestFiles:
    def test_labels(self, tmp_path):
        file = tmp_path / "labels"
        for text in (
            "name,Young,Smiling\na.png,1,-1\n\nb c.png, +1,1\n",
            "\ufeffimage_id,Young,Smiling\r\na.png,1,-1\r\nb c.png,1,1\r\n",
            "2\nYoung,Smiling\na.png,1,-1\nb c.png,1,1\n",
        ):
            file.write_text(text, encoding="utf-8")
            found = read_labels(file)
            assert found.names == ("Young", "Smiling"), text
            assert found.values == {"a.png": (1, -1), "b c.png": (1, 1)}
        file.write_text("2\nYoung Smiling\n000001.jpg -1  1\n000002.jpg  1 -1\n")
        assert read_labels(file).values == {"000001.jpg": (-1, 1), "000002.jpg": (1, -1)}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "holds no labels"),
            ("a.png 1\nb.png -1\n", "line 1: the first line must name the attributes"),
            ("n,A\na.png,0\n", "line 2: A = '0' is neither 1 nor -1"),
            ("n,A,B\na.png,1,1\nb.png,1\n", "line 3: 1 values of 2 attributes"),
            ("n,A\na.png,1\na.png,-1\n", "line 3: 'a.png' has a line already"),
            ("n,A,A\na.png,1,1\n", "line 1: two attributes have one name"),
        ],
    )
    def test_label_mistakes(self, text, message, tmp_path):
        (tmp_path / "labels.csv").write_text(text)
        with pytest.raises(ValueError, match=message):
            read_labels(tmp_path / "labels.csv")

    def test_directions(self, tmp_path):
        array = np.arange(6, dtype=np.float32).reshape(2, 3)
        write_directions(tmp_path / "d.npz", Directions(("A", "B/é"), array))
        np.save(tmp_path / "d.npy", array)
        for name, names in (("d.npz", ("A", "B/é")), ("d.npy", ("0", "1"))):
            found = read_directions(tmp_path / name)
            assert found.names == names
            np.testing.assert_array_equal(found.array, array)
        np.testing.assert_array_equal(found.of(["1"]).array, array[1:])
        with pytest.raises(ValueError, match=r"no attribute '2' \(there are 0, 1\)"):
            found.of(["2"])

    @pytest.mark.parametrize("name", ["d.npy", "d.npz"])
    def test_files_that_are_no_directions(self, name, tmp_path):
        file, save_array = tmp_path / name, np.save if name == "d.npy" else np.savez
        save_array(file, np.array([[{}]], object), allow_pickle=True)  # pickled
        with pytest.raises(ValueError, match=r"d\.np[yz]: damaged"):
            read_directions(file)
        buffer = io.BytesIO()
        save_array(buffer, np.zeros(3, np.float32))
        for data in (buffer.getvalue(), buffer.getvalue()[:-30], b"", b"text"):
            file.write_bytes(data)
            with pytest.raises(ValueError, match=r"d\.np[yz]"):
                read_directions(file)


@pytest.fixture
def model(glow, tmp_path):
    flowsr_jax.save(glow, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def labelled(tmp_path):
    """20 images, brighter where they are Bright, and their labels."""
    folder, rng = tmp_path / "faces", np.random.default_rng(0)
    folder.mkdir()
    lines = ["image,Bright,Odd"]
    for i in range(20):
        save(folder / f"{i}.png", rng.integers(0, 128, (8, 8, 3)) + 100 * (i < 10))
        lines.append(f"{i}.png,{1 if i < 10 else -1},{1 if i % 2 else -1}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    return folder, tmp_path / "labels.csv"


class TestCommands:
    def test_temperature(self, main, model, tmp_path):
        out = tmp_path / "out"
        assert main("temperature", "-n", model, "-o", out, "--draws", 2) == 0
        sheet = load(out / "temperature.png")
        assert sheet.shape[1] == 7 * 100 + 4  # seven columns of 96 pixels
        stamp = (out / "temperature.png").stat().st_mtime_ns
        assert main("temperature", "-n", model, "-o", out, "--draws", 1) == 0
        assert (out / "temperature.png").stat().st_mtime_ns == stamp

    @pytest.mark.parametrize("name", ["glow", "nice"])
    def test_interpolate(self, main, name, tmp_path):
        grey = {"shape": (8, 8, 1)} if name == "nice" else {}
        flowsr_jax.save(build(name, **grey), tmp_path / "model")
        pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1 if grey else 3))
        for end, picture in zip("ab", pixels, strict=True):
            save(tmp_path / f"{end}.png", picture)
        arguments = ["interpolate", "-n", tmp_path / "model", "-o", tmp_path / "out", "--steps", 3]
        assert main(*arguments, "--pair", tmp_path / "a.png", tmp_path / "b.png") == 0
        row = [load(tmp_path / "out" / f"a_interpolate_{i}.png") for i in range(3)]
        for end, found in zip(pixels, (row[0], row[2]), strict=True):
            np.testing.assert_array_equal(found, np.broadcast_to(end, (8, 8, 3)))
        assert (row[1] != row[0]).any() and (row[1] != row[2]).any()

    def test_attribute(self, main, model, labelled, tmp_path, capsys):
        folder, labels = labelled
        out, image = tmp_path / "out", folder / "15.png"
        arguments = ["attribute", "-n", model, "-o", out, "--images", folder, "--labels", labels]
        assert main(*arguments, "--image", image, "--names", "Bright", "--steps", 3) == 0
        shown = capsys.readouterr().out
        assert "[20/20] 19.png" in shown and "of Bright" in shown
        row = [load(out / f"15_Bright_{i}.png") for i in range(3)]
        np.testing.assert_array_equal(row[1], load(image))  # no move is exact
        assert row[0].mean() < row[1].mean() - 20 < row[2].mean() - 40
        assert (out / "15_attributes.png").exists() and not list(out.glob("15_Odd*"))
        found = read_directions(out / "directions.npz")
        assert found.names == ("Bright", "Odd") and found.array.shape == (2, 192)

        # Once made, directions serve further images; a file of them needs no labels.
        assert main(*arguments, "--image", folder / "3.png", "--steps", 3) == 0
        assert "directions.npz is there" in capsys.readouterr().out
        again = tmp_path / "again"
        given = ["--directions", out / "directions.npz", "--image", image, "--steps", 3]
        assert main("attribute", "-n", model, "-o", again, *given) == 0
        np.testing.assert_array_equal(load(again / "15_Bright_2.png"), row[2])

        # A direction that leads out of the numbers fails alone.
        np.save(tmp_path / "two.npy", np.stack([np.full(192, 3e38, np.float32), found.array[0]]))
        given = ["--directions", tmp_path / "two.npy", "--image", image, "--steps", 3]
        assert main("attribute", "-n", model, "-o", tmp_path / "two", *given) == 1
        assert "0: failed: " in capsys.readouterr().err
        np.testing.assert_array_equal(load(tmp_path / "two" / "15_1_2.png"), row[2])

    def test_one_bad_image_is_left_out(self, main, model, labelled, tmp_path, capsys):
        folder, labels = labelled
        arguments = ["attribute", "-n", model, "--images", folder, "--labels", labels]
        save(folder / "12.png", np.zeros((8, 4, 3)))
        (folder / "13.png").write_bytes(b"no image")
        assert main(*arguments, "-o", tmp_path / "out") == 1
        error = capsys.readouterr().err
        assert "12.png: is 4x8, not 8x8" in error and "13.png: not an image" in error
        assert (tmp_path / "out" / "directions.npz").exists()

    def test_mistakes_are_one_line(self, main, model, labelled, tmp_path, capsys):
        folder, labels = labelled
        out, bad = tmp_path / "out", tmp_path / "bad"
        text = labels.read_text()
        bad.mkdir()
        (bad / "unknown").write_text(text + "\nx.png,1,1")
        (bad / "value").write_text(text.replace("3.png,1,1", "3.png,1,2"))
        (bad / "same").write_text("n,A\n0.png,1\n1.png,1")
        save(bad / "odd.png", np.zeros((6, 8, 3)))
        np.save(bad / "other.npy", np.ones((1, 10), np.float32))
        faces = ["attribute", "--images", folder, "--labels"]
        cases = {
            "1 of 21 images are not in": [*faces, bad / "unknown"],
            "line 5: Odd = '2' is neither 1 nor -1": [*faces, bad / "value"],
            "all images have A = 1": [*faces, bad / "same"],
            "no attribute 'bright'; did you mean 'Bright'?": [*faces, labels, "--names", "bright"],
            "needs --images and --labels": ["attribute", "--labels", labels],
            "multiples of 4, got 6x8": [*faces, labels, "--image", bad / "odd.png"],
            "steps = 1 must be": [*faces, labels, "--steps", 1],
            "of images of 10 values": [
                "attribute", "--directions", bad / "other.npy", "--image", folder / "1.png",
            ],
            "has no classes": ["temperature", "--label", 1],
            "multiples of 4, got 10x10": ["temperature", "--size", 10],
            "draws = 0": ["temperature", "--draws", 0],
            "seed = -1": ["temperature", "--seed", -1],
            "no such folder": ["depth", "--models", bad / "nothing"],
        }  # fmt: skip
        for message, (command, *rest) in cases.items():
            assert main(command, "-n", model, "-o", out, *rest) == 2, message
            error = capsys.readouterr().err
            assert error.count("\n") == 1 and message in error, error
            assert not list(out.glob("*.npz"))
        assert main("temperature", "-n", "demo", "-o", out) == 2
        assert "'srflow' is no flow that draws images from nothing" in capsys.readouterr().err

    def test_labels_of_a_conditional_model(self, main, tmp_path, capsys):
        flowsr_jax.save(build("conditional"), tmp_path / "model")
        arguments = ["temperature", "-n", tmp_path / "model", "-o", tmp_path / "out", "--draws", 1]
        for label, message in (
            ([], "give label, 0 to 2"),
            (["--label", 3], "out of range: 0 to 2"),
        ):
            assert main(*arguments, *label) == 2
            assert message in capsys.readouterr().err
        assert main(*arguments, "--label", 2) == 0

    def test_depth(self, main, model, tmp_path, capsys):
        flowsr_jax.save(build("glow", levels=1, channels=3), tmp_path / "flat")
        pixels = np.random.default_rng(0).integers(0, 256, (2, 20, 17, 3))
        (tmp_path / "photos").mkdir()
        for i in range(2):
            save(tmp_path / "photos" / f"{i}.png", pixels[i])
        save(tmp_path / "photos" / "small.png", pixels[0, :7])
        arguments = ["depth", "-n", model, "-o", tmp_path / "out", "--draws", 2]
        arguments += ["--models", tmp_path / "flat", "--images", tmp_path / "photos"]
        assert main(*arguments) == 1
        assert "small.png: is smaller than 8x8" in capsys.readouterr().err
        with open(tmp_path / "out" / "depth.csv") as file:
            rows = list(csv.DictReader(file))
        assert [row["levels"] for row in rows] == ["2", "1"]
        assert (tmp_path / "out" / "depth.png").exists()
        squares = [p[y : y + 8, x : x + 8] for p in pixels for y in (0, 8) for x in (0, 8)]
        hr = jnp.asarray(np.stack(squares) / 255, jnp.float32)
        for row, path in zip(rows, (model, tmp_path / "flat"), strict=True):
            assert row["squares"] == "8"
            bits = flowsr_jax.bits_per_dim(flowsr_jax.load(path), hr, key=jax.random.key(5))
            np.testing.assert_allclose(float(row["bits_per_dim"]), bits.mean(), atol=0.1)
