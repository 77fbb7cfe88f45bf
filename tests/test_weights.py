"""Parameter folders: exact round trip, never half a save, one clear error for each fault."""

import json
import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from fake_family import FAMILY, FakeConfig
from safetensors.numpy import load_file, save_file

from flowsr_jax.config import ConfigError
from flowsr_jax.io import weights
from flowsr_jax.io.torch_file import WeightsFileError
from flowsr_jax.models import FAMILIES


@pytest.fixture(autouse=True)
def fake():
    with FAMILIES.using("fake", FAMILY):
        yield


@pytest.fixture
def params():
    made = FAMILY.init(FakeConfig(width=4, blocks=(1, 2, 5)), jax.random.key(0))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), made)


def _same(a, b):
    assert a.config == b.config and jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def test_round_trip(tmp_path, params):
    weights.save(params, tmp_path / "new" / "model", metadata={"step": 3})
    out = weights.load(tmp_path / "new" / "model")
    _same(out, params)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(out))
    _same(weights.load(tmp_path / "new"), params)  # a run that holds model/
    assert sorted(p.name for p in (tmp_path / "new" / "model").iterdir()) == [
        "config.json",
        "params.safetensors",
    ]
    record = json.loads((tmp_path / "new" / "model" / "config.json").read_text())
    assert record == {
        "format": 2,
        "family": "fake",
        "config": {"width": 4, "blocks": [1, 2, 5], "broken": 0.0},
        "metadata": {"step": 3},
    }
    names = set(load_file(tmp_path / "new" / "model" / "params.safetensors"))
    assert {"net/block0/kernel", "out/gain", "out/steps"} < names


@pytest.mark.parametrize("storage", weights.STORAGE)
def test_half_precision_storage(tmp_path, params, storage):
    weights.save(params, tmp_path / "full")
    weights.save(params, tmp_path / "half", storage=storage)
    out = weights.load(tmp_path / "half")
    for x, y in zip(jax.tree.leaves(out), jax.tree.leaves(params), strict=True):
        assert x.dtype == y.dtype
        rounded = y.astype(storage).astype(y.dtype) if y.dtype == jnp.float32 else y
        np.testing.assert_array_equal(x, rounded)
    sizes = [(tmp_path / d / "params.safetensors").stat().st_size for d in ("half", "full")]
    assert sizes[0] < sizes[1]


def test_values_beyond_the_storage(tmp_path, params):
    large = jax.tree.map(lambda x: x * 1e6 if x.dtype == jnp.float32 else x, params)
    with pytest.raises(ValueError, match="values up to .* do not fit float16"):
        weights.save(large, tmp_path / "m", storage="float16")
    with pytest.raises(ConfigError, match="storage"):
        weights.save(params, tmp_path / "m", storage="int4")
    assert not (tmp_path / "m").exists()


def test_name_of_no_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="nor a model of the package .demo"):
        weights.load("demos")


def test_bfloat16_is_kept(tmp_path, params):
    low = params.replace(net=jax.tree.map(lambda x: x.astype(jnp.bfloat16), params["net"]))
    weights.save(low, tmp_path)
    _same(weights.load(tmp_path), low)
    tensors = load_file(tmp_path / "params.safetensors")
    assert tensors["net/block0/kernel"].dtype == ml_dtypes.bfloat16


@pytest.mark.parametrize("stop_at", ["params.safetensors", "config.json"])
def test_interrupted_save_keeps_a_loadable_model(tmp_path, params, monkeypatch, stop_at):
    weights.save(params, tmp_path)
    other = FAMILY.init(FakeConfig(width=2), jax.random.key(0))
    real = weights.os.replace

    def replace(source, target):
        if str(target).endswith(stop_at):
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr("flowsr_jax.files.atomic.os.replace", replace)
    with pytest.raises(KeyboardInterrupt):
        weights.save(other, tmp_path)
    monkeypatch.undo()
    assert len(list(tmp_path.iterdir())) == 2
    if stop_at == "params.safetensors":
        _same(weights.load(tmp_path), params)
    else:  # new tensors beside the old config.json: the record inside says what they are
        with pytest.warns(UserWarning, match="record inside is used"):
            _same(weights.load(tmp_path), other)


def test_save_touches_nothing_else(tmp_path, params):
    (tmp_path / "notes.txt").write_text("mine")
    weights.save(params, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    with pytest.raises(TypeError, match="must be a flowsr_jax Params, got dict"):
        weights.save({"a": 1}, tmp_path)


def _tensors(change):
    def apply(folder):
        tensors = load_file(folder / "params.safetensors")
        change(tensors)
        save_file(tensors, folder / "params.safetensors")

    return apply


def _record(**changes):
    def apply(folder):
        tensors = load_file(folder / "params.safetensors")
        save_file(tensors, folder / "params.safetensors")  # without the record inside
        record = json.loads((folder / "config.json").read_text()) | changes
        record = {key: value for key, value in record.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(record))

    return apply


def _cut(name, size):
    def apply(folder):
        (folder / name).write_bytes((folder / name).read_bytes()[:size])

    return apply


def _rename(tensors):
    tensors["net/blockX/kernel"] = tensors.pop("net/block0/kernel")


FAULTS = {
    "missing": (_tensors(lambda t: t.pop("out/gain")), r"1 missing: out/gain$"),
    "unexpected": (_tensors(lambda t: t.update(x=np.ones(1))), r"1 unexpected: x$"),
    "renamed": (_tensors(_rename), "1 missing: net/block0/kernel; 1 unexpected: net/blockX"),
    "shape": (
        _tensors(lambda t: t.update({"out/gain": np.ones(4, np.float32)})),
        r"1 of another shape: out/gain \(4,\) instead of \(3,\)",
    ),
    "other config": (
        _record(config={"width": 4, "blocks": [1] * 9}),
        r"6 missing: .* and 2 more; 2 of another shape",
    ),
    "cut tensors": (_cut("params.safetensors", 400), "params.safetensors: damaged"),
    "empty tensors": (_cut("params.safetensors", 0), "params.safetensors: damaged"),
    "cut config": (_cut("config.json", 20), "config.json: is not JSON"),
    "unknown field": (_record(config={"widht": 4}), "widht is not a field.*did you mean 'width'"),
    "bad value": (_record(config={"width": 0}), "width = 0 must be at least 1"),
    "unknown family": (_record(family="fakee"), "unknown model family 'fakee'.*'fake'"),
    "family of no name": (_record(family=[1]), "must be a JSON object with"),
    "newer format": (_record(format=3), "format 3 is unknown; this version reads 1 to 2"),
    "no family": (_record(family=None), "must be a JSON object with the fields"),
    "not an object": (lambda f: (f / "config.json").write_text("[]"), "must be a JSON object"),
}


@pytest.mark.filterwarnings("ignore:.*differs from the record")
@pytest.mark.parametrize("label", FAULTS)
def test_faults_give_one_clear_error(tmp_path, params, label):
    change, message = FAULTS[label]
    weights.save(params, tmp_path)
    if label == "not an object":
        _record()(tmp_path)
    change(tmp_path)
    with pytest.raises(ValueError) as info:
        weights.load(tmp_path)
    print(f"{label}: {info.value}")
    assert isinstance(info.value, WeightsFileError | ConfigError) or label == "unknown family"
    assert re.search(message, str(info.value)) and "\n" not in str(info.value)


def test_what_is_missing_is_said(tmp_path, params):
    weights.save(params, tmp_path / "run" / "model")
    (tmp_path / "run" / "model" / "config.json").unlink()
    (tmp_path / "empty").mkdir()
    wanted = {
        "nowhere": "nowhere: no such folder",
        "empty": "neither params.safetensors and config.json nor a folder model/",
        "run": "run/model: config.json is missing",
        "run/model/params.safetensors": "is a file",
    }
    for name, message in wanted.items():
        with pytest.raises(FileNotFoundError, match=message):
            weights.load(tmp_path / name)


def test_blocks_of_format_1_are_stacked_in_the_order_of_their_numbers():
    old = {f"encoder/blocks/{i}/w": np.full(2, i, np.float32) for i in range(12)}
    found = weights._stacked_blocks({"out/b": np.zeros(1, np.float32), **old})
    assert set(found) == {"out/b", "encoder/blocks/w"}
    np.testing.assert_array_equal(found["encoder/blocks/w"][:, 0], np.arange(12))


def test_a_flipped_bit_is_noticed(tmp_path, params, recwarn):
    weights.save(params, tmp_path, metadata={"step": 3})
    rng, noticed = np.random.default_rng(0), 0
    for name, flips in (("params.safetensors", 150), ("config.json", 40)):
        file = tmp_path / name
        whole = file.read_bytes()
        for _ in range(flips):
            data = bytearray(whole)
            data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
            file.write_bytes(data)
            try:
                _same(weights.load(tmp_path), params)
            except ValueError as error:  # WeightsFileError and ConfigError are
                assert "\n" not in str(error)
                noticed += 1
        file.write_bytes(whole)
    assert noticed > 150
    _same(weights.load(tmp_path), params)


def test_a_folder_without_checksums_is_read(tmp_path, params):
    weights.save(params, tmp_path)
    record = (tmp_path / "config.json").read_text().rstrip("\n")
    tensors = load_file(tmp_path / "params.safetensors")
    save_file(tensors, tmp_path / "params.safetensors", metadata={"flowsr_jax": record})
    _same(weights.load(tmp_path), params)


@pytest.mark.parametrize(
    "config",
    [
        "[" * 100_000,
        '{"format": 2, "family": "nice", "config": ' + '{"a": ' * 900 + "1" + "}" * 900 + "}",
        *(
            json.dumps({"format": 2, "family": family, "config": fields})
            for family, fields in (
                ("nice", {"couplings": 2147483648}),
                ("nice", {"shape": [2**16] * 3, "hidden": 2**16, "couplings": 2}),
                ("nice", {"temperature": float("inf")}),
                ("srflow", {"steps": [10**30, 1, 1]}),
                ("srflow", {"steps": [-1, 1, 1]}),
                ("srflow", {"hidden": -1}),
                ("srflow", {"transition_steps": 10**30}),
                ("srflow", {"encoder": {"nb": 10**30}}),
                ("srflow", {"encoder": {"in_channels": 0}}),
                ("srflow", {"encoder": {"out_channels": -1}}),
                ("sr3", {"unet": {"res_blocks": 10**9}}),
                ("sr3", {"unet": {"multipliers": [1] * 100}}),
                ("sr3", {"schedule": {"steps": 10**12}}),
                ("glow", {"levels": 10**6}),
                ("glow", {"compute": {"memory": {"a": {}}}}),
                ("realnvp", {"scales": 1000}),
                ("irn", {"blocks": [10**9, 1]}),
            )
        ),
    ],
    ids=lambda text: text[35:75].replace(" ", ""),
)
def test_a_config_of_a_stranger_is_refused_in_one_line(tmp_path, params, config):
    weights.save(params, tmp_path)
    tensors = load_file(tmp_path / "params.safetensors")
    save_file(tensors, tmp_path / "params.safetensors")
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ValueError, match=r"config|couplings") as caught:
        weights.load(tmp_path)
    assert "\n" not in str(caught.value)
