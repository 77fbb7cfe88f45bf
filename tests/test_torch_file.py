"""Weight files: official layouts are read exactly.  (Refusals: test_torch_refusals.py.)"""

import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest
import torch_files as tf
from safetensors.numpy import save_file

from flowsr_jax.io.torch_file import WeightsFileError, read_torch, read_weights
from flowsr_jax.io.torch_pickle import STORAGES

VALUES = np.arange(6, dtype=np.float32) - 2.5
LAYOUTS = ("zip", "legacy")


def _write(layout, path, tree, storages, **options):
    return {"zip": tf.write_zip, "legacy": tf.write_legacy}[layout](path, tree, storages, **options)


def _plain(layout, path):
    legacy = layout == "legacy"
    tree = tf.ordered(a=tf.tensor(legacy=legacy), b=tf.tensor((6,), (1,), legacy=legacy))
    return _write(layout, path, tree, {"0": VALUES.tobytes()})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_both_layouts(tmp_path, layout):
    out = read_torch(_plain(layout, tmp_path / "a.pth"))
    assert list(out) == ["a", "b"]
    np.testing.assert_array_equal(out["a"], VALUES.reshape(2, 3))
    np.testing.assert_array_equal(out["b"], VALUES)
    out["b"][0] = 9  # arrays of their own, although the file has one storage
    assert out["a"][0, 0] == VALUES[0]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", STORAGES)
def test_every_number_type(tmp_path, layout, kind):
    dtype = np.dtype(STORAGES[kind])
    values = np.array([0, 1, 3, 100, 7, 1], np.float64).astype(dtype)
    tree = tf.ordered(a=tf.tensor(kind=kind, legacy=layout == "legacy"))
    options = {"item": dtype.itemsize} if layout == "legacy" else {}
    path = _write(layout, tmp_path / "a.pth", tree, {"0": values.tobytes()}, **options)
    out = read_torch(path)["a"]
    assert out.dtype == dtype
    np.testing.assert_array_equal(out, values.reshape(2, 3))
    assert STORAGES["BFloat16Storage"] is ml_dtypes.bfloat16


@pytest.mark.parametrize("layout", LAYOUTS)
def test_views_offsets_scalars_and_empties(tmp_path, layout):
    def tensor(*args, **kwargs):
        return tf.tensor(*args, legacy=layout == "legacy", **kwargs)

    tree = tf.ordered(
        transposed=tensor((3, 2), (1, 3)),
        tail=tensor((2,), (1,), 4),
        columns=tensor((2,), (3,), 1),
        scalar=tensor((), (), 5),
        empty=tensor((0, 4), (4, 1)),
        old=tensor((6,), (1,), function="_rebuild_tensor"),
        parameter=tf.call(
            tf.name("torch._utils", "_rebuild_parameter"), tensor(), b"\x88", tf.ORDERED
        ),
        number=tf.whole(7),
        nothing=b"N",
        size=tf.call(tf.name("torch", "Size"), tf.sequence(tf.whole(2))),
        dtype=tf.name("torch", "float32"),
    )
    out = read_torch(_write(layout, tmp_path / "a.pth", tree, {"0": VALUES.tobytes()}))
    wanted = {
        "transposed": VALUES.reshape(2, 3).T,
        "tail": VALUES[4:],
        "columns": VALUES[[1, 4]],
        "scalar": VALUES[5],
        "empty": np.zeros((0, 4)),
        "old": VALUES,
        "parameter": VALUES.reshape(2, 3),
    }
    assert set(out) == set(wanted)  # what is no tensor is left out
    for key, value in wanted.items():
        np.testing.assert_array_equal(out[key], value, err_msg=key)
        assert out[key].flags.c_contiguous and out[key].flags.writeable


def test_dict_as_python_2_wrote_it(tmp_path):
    """OrderedDict called with a list of pairs, keys as byte strings."""
    pairs = b"](" + b"U\x01w" + tf.tensor() + b"\x86" + b"e"
    tree = tf.name("collections", "OrderedDict") + pairs + b"\x85R"
    path = tf.write_zip(tmp_path / "a.pth", tree, {"0": VALUES.tobytes()})
    assert list(read_torch(path)) == ["w"]


def test_later_pickle_protocol_and_names_of_any_kind(tmp_path):
    """Protocol 4 (short strings, STACK_GLOBAL, MEMOIZE) and storage keys that are no numbers."""

    def short(value):
        return b"\x8c" + bytes([len(value)]) + value.encode() + b"\x94"

    parts = (
        short("storage") + short("torch") + short("FloatStorage") + b"\x93",
        short("weights") + short("cpu") + b"K\x06",
    )
    tensor = (
        short("torch._utils") + short("_rebuild_tensor_v2") + b"\x93\x94"
        + b"((" + b"".join(parts) + b"tQ" + b"K\x00" + b"K\x06\x85" + b"K\x01\x85" + b"\x89}tR"
    )  # fmt: skip
    program = b"\x80\x04\x95" + struct.pack("<Q", 1) + b"}" + short("w") + tensor + b"s."
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("x/data.pkl", program)
        archive.writestr("x/data/weights", VALUES.tobytes())
        archive.writestr("x/.data/serialization_id", "1")
    np.testing.assert_array_equal(read_torch(tmp_path / "a.pth")["w"], VALUES)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_containers_and_module_prefix(tmp_path, layout):
    def tensor(offset):
        return tf.tensor((1,), (1,), offset, legacy=layout == "legacy")

    def read(tree):
        path = _write(layout, tmp_path / "a.pth", tree, {"0": VALUES.tobytes()})
        return {key: float(value[0]) for key, value in read_torch(path).items()}

    one, two = tf.ordered(**{"module.w": tensor(1)}), tf.ordered(w=tensor(2))
    assert read(one) == {"w": VALUES[1]}
    assert read(tf.mapping(params=one, params_ema=two)) == {"w": VALUES[2]}
    assert read(tf.mapping(epoch=tf.whole(3), state_dict=one, optimizer=tf.mapping())) == {
        "w": VALUES[1]
    }
    assert read(tf.mapping(state_dict=tf.mapping(params=two))) == {"w": VALUES[2]}
    assert read(tf.mapping(step=tf.whole(1), generator=two)) == {"w": VALUES[2]}
    assert read(tf.mapping(g=one, d=two)) == {"g.w": VALUES[1], "d.w": VALUES[2]}
    with pytest.raises(WeightsFileError, match="with and without"):
        read(tf.ordered(**{"module.w": tensor(1), "w": tensor(2)}))
    for tree in (b"]", tf.whole(3), tf.mapping(a=tf.whole(3)), b"}"):
        path = tf.write_zip(tmp_path / "b.pth", tree, {})
        with pytest.raises(WeightsFileError):
            read_torch(path)


def test_prefixes_of_formats_without_nested_dicts(tmp_path):
    """Flattened containers are opened like nested ones; what is left out is reported."""
    one, two = VALUES + 1, VALUES + 2

    def read(**tensors):
        lines = []
        np.savez(tmp_path / "a.npz", **{key.replace("__", "."): v for key, v in tensors.items()})
        out = read_weights(tmp_path / "a.npz", lines.append)
        return {key: float(value[0]) for key, value in out.items()}, lines

    assert read(w=one) == ({"w": -1.5}, [])
    assert read(module__w=one)[1] == ["removed the prefix 'module.' of 1 keys"]
    assert read(params__module__w=one)[0] == {"w": -1.5}
    out, lines = read(params__w=one, params_ema__w=two, step=one)
    assert out == {"w": -0.5}
    assert lines == ["took the keys that begin with 'params_ema.', left out 'params.w', 'step'"]
    assert read(state_dict__w=one)[1] == ["removed the prefix 'state_dict.'"]


def test_what_is_opened_and_left_out_is_reported(tmp_path):
    tree = tf.mapping(
        params=tf.ordered(w=tf.tensor()),
        params_ema=tf.ordered(**{"module.w": tf.tensor(), "step": tf.whole(3)}),
        epoch=tf.whole(7),
    )
    lines = []
    path = tf.write_zip(tmp_path / "a.pth", tree, {"0": VALUES.tobytes()})
    assert list(read_weights(path, lines.append)) == ["w"]
    assert lines == [
        "opened 'params_ema', left out 'params', 'epoch'",
        "left out what is no tensor: 'step'",
        "removed the prefix 'module.' of 1 keys",
    ]


def test_small_compressed_archive_is_read(tmp_path):
    tree = tf.ordered(a=tf.tensor())
    path = tf.write_zip(tmp_path / "a.pth", tree, {"0": VALUES.tobytes()}, method=8)
    np.testing.assert_array_equal(read_torch(path)["a"].ravel(), VALUES)


def test_other_formats_and_mappings(tmp_path):
    tree = {"module.w": VALUES, "n": np.arange(3)}
    np.savez(tmp_path / "a.npz", **tree)
    np.savez_compressed(tmp_path / "b.bin", **tree)
    (tmp_path / "b.bin.npz").rename(tmp_path / "b.bin")
    save_file(tree, tmp_path / "c.weights")
    _plain("legacy", tmp_path / "d.npz")  # the content counts, not the suffix
    for name in ("a.npz", "b.bin", "c.weights"):
        out = read_weights(tmp_path / name)
        assert set(out) == {"w", "n"}
        np.testing.assert_array_equal(out["w"], VALUES)
    assert set(read_weights(tmp_path / "d.npz")) == {"a", "b"}
    out = read_weights({"state_dict": tree})
    assert out["w"] is VALUES and set(out) == {"w", "n"}
    with pytest.raises(FileNotFoundError, match="nothing.pth: no such file"):
        read_weights(tmp_path / "nothing.pth")


GOLDEN = {"srflow_x4": (251, 518_723, None), "irn_x4": (92, 99_078, "weights/"),
          "sr3_small": (176, 433_875, "w/")}  # fmt: skip


@pytest.mark.parametrize("name", GOLDEN)
def test_official_files(shared, name):
    keys, count, prefix = GOLDEN[name]
    out = read_weights(shared / "golden" / f"{name}.pth")
    assert len(out) == keys and sum(value.size for value in out.values()) == count
    assert {value.dtype for value in out.values()} == {np.dtype(np.float32)}
    with np.load(shared / "golden" / f"{name}.npz") as golden:
        stored = [key for key in golden.files if prefix and key.startswith(prefix)]
        for key in stored:
            np.testing.assert_array_equal(out[key.removeprefix(prefix)], golden[key], err_msg=key)
    print(f"{name}: {keys} keys, {count} numbers, {len(stored)} compared exactly")
    assert bool(stored) == (prefix is not None)
