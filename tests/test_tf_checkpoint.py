"""TensorFlow checkpoints: read where TensorFlow is installed, else one clear error."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from golden_tools import Table
from test_glow_golden import batch_of, load, read, to_float

import flowsr_jax
from flowsr_jax.io import tf_checkpoint
from flowsr_jax.io.tf_checkpoint import read_checkpoint
from flowsr_jax.io.torch_file import WeightsFileError, read_weights
from flowsr_jax.io.torch_import import import_files, sha256
from flowsr_jax.models.unconditional import dequantize


def write(prefix, variables, slots=(), averages=None):
    """Write a checkpoint as OpenAI's code does: TF1 graph, Saver, slots with no names."""
    tf = pytest.importorskip("tensorflow", reason="TensorFlow writes the checkpoints of this test")
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        for value in slots:
            v1.Variable(value, use_resource=False)
        for name, value in {**variables, **(averages or {})}.items():
            v1.get_variable(name, initializer=value, use_resource=False)
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(prefix))
    assert sorted(p.suffix for p in prefix.parent.iterdir() if p.stem == prefix.name) == [
        ".data-00000-of-00001", ".index", ".meta",
    ]  # fmt: skip


@pytest.fixture
def golden(shared):
    return read(shared, "glow_small", "add_rev")


@pytest.fixture
def checkpoint(golden, tmp_path):
    """A checkpoint with the step, both moments of two variables, and averages of all."""
    _, _, variables = golden
    moments = [v for value in list(variables.values())[:2] for v in (value + 1, value - 1)]
    averages = {f"{k}{tf_checkpoint.AVERAGE}": 0.5 * v for k, v in variables.items()}
    prefix = tmp_path / "model_best_loss.ckpt"
    write(prefix, variables, [np.float32(3), *moments], averages)
    return prefix


def test_a_checkpoint_gives_the_golden_model(golden, checkpoint):
    config, arrays, variables = golden
    with pytest.warns(UserWarning, match=f"left out 5 variables .* {len(variables)} averages"):
        params = flowsr_jax.from_torch(checkpoint, n_bits=config.n_bits, size=config.size)
    assert params.config.n_bits == 5 and params.config.coupling == "additive"
    for a, b in zip(*map(jax.tree.leaves, (params, load(config, variables))), strict=True):
        np.testing.assert_array_equal(a, b)
    batch, table = batch_of(config, arrays), Table("add_rev from a checkpoint")
    image = dequantize(batch["hr"], batch["noise"], config.n_bits)
    for i, z in enumerate(flowsr_jax.encode(params, image)[0]):
        table.check(f"eps{i}", z, arrays[f"eps{i}"], 1e-4)
    noise = [arrays[f"sample_eps{i}"] for i in range(config.levels)]
    drawn = flowsr_jax.sample(params, None, None, noise=noise, temperature=arrays["sample_T"])
    table.check("sample_float", to_float(drawn), arrays["sample_float"], 1e-4, absolute=True)
    table.finish()


def test_any_of_its_files_and_its_notes(golden, checkpoint):
    variables = golden[2]
    for path in (checkpoint, f"{checkpoint}.index", f"{checkpoint}.data-00000-of-00001"):
        found = read_weights(path)
        assert set(found) == set(variables)
        for name, value in variables.items():
            np.testing.assert_array_equal(found[name], value)
    _, notes = import_files(checkpoint, n_bits=5)
    digests = [sha256(f"{checkpoint}.{end}") for end in ("index", "data-00000-of-00001")]
    assert notes["source"] == "model_best_loss.ckpt"
    assert notes["source_sha256"] == " + ".join(digests) and json.dumps(notes)


def test_averages(golden, checkpoint, tmp_path):
    variables, found = golden[2], read_checkpoint(checkpoint, averages=True)
    assert set(found) == set(variables)
    for name, value in variables.items():
        np.testing.assert_array_equal(found[name], 0.5 * value)
    write(tmp_path / "plain", variables)
    with pytest.raises(WeightsFileError, match="holds no averages"):
        read_checkpoint(tmp_path / "plain", averages=True)


def test_damage_is_one_error(checkpoint):
    data = checkpoint.with_name(checkpoint.name + ".data-00000-of-00001")
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(WeightsFileError, match="damaged TensorFlow checkpoint"):
        read_weights(checkpoint)
    data.unlink()
    with pytest.raises(WeightsFileError, match="damaged TensorFlow checkpoint"):
        read_weights(checkpoint)


def test_without_tensorflow_the_error_says_what_to_do(tmp_path, monkeypatch):
    for name in ("a.ckpt.index", "a.ckpt.meta"):
        (tmp_path / name).write_bytes(b"\0")
    monkeypatch.setattr(tf_checkpoint.importlib.util, "find_spec", lambda name: None)
    for name in ("a.ckpt", "a.ckpt.index", "a.ckpt.meta"):
        with pytest.raises(WeightsFileError, match="pip install tensorflow-cpu, or .*np.savez"):
            flowsr_jax.from_torch(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"b\.ckpt: no such file"):
        flowsr_jax.from_torch(tmp_path / "b.ckpt")
    with pytest.raises(FileNotFoundError, match="no TensorFlow checkpoint"):
        read_checkpoint(tmp_path / "b.ckpt")
