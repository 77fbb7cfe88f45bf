"""The restricted reader: official layouts are read exactly, everything else is refused."""

import pickle
import struct
import time
import zipfile

import ml_dtypes
import numpy as np
import pytest
import torch_files as tf
from safetensors.numpy import save_file

from flowsr_jax.io.torch_file import (
    UnsafeFileError,
    WeightsFileError,
    read_torch,
    read_weights,
)
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
    with pytest.raises(WeightsFileError, match="'g', 'd'"):
        read(tf.mapping(g=one, d=two))
    with pytest.raises(WeightsFileError, match="with and without"):
        read(tf.ordered(**{"module.w": tensor(1), "w": tensor(2)}))
    for tree in (b"]", tf.whole(3), tf.mapping(a=tf.whole(3)), b"}"):
        path = tf.write_zip(tmp_path / "b.pth", tree, {})
        with pytest.raises(WeightsFileError):
            read_torch(path)


def _run(module, attribute, command):
    return tf.call(tf.name(module, attribute), tf.text(command))


def _hostile(command, legacy=False):
    """{label: (pickle body, the name or instruction that must be in the message)}."""
    python = f"__import__('os').system({command!r})"
    system = _run("os", "system", command)
    pid = tf.sequence(tf.text("storage"), system, tf.text("0"), tf.text("cpu"), tf.whole(6)) + b"Q"
    rebuild = tf.name("torch._utils", "_rebuild_tensor_v2")
    stack_global = tf.text("os") + tf.text("system") + b"\x93" + tf.text(command) + b"\x85R"
    dotted = tf.text("torch._utils") + tf.text("_rebuild_tensor_v2.__globals__") + b"\x93"
    return {
        "os.system": (system, "os.system"),
        "posix.system": (_run("posix", "system", command), "posix.system"),
        "eval": (_run("builtins", "eval", python), "builtins.eval"),
        "exec of Python 2": (_run("__builtin__", "execfile", python), "__builtin__.execfile"),
        "subprocess": (_run("subprocess", "check_output", command), "subprocess.check_output"),
        "getattr": (_run("builtins", "getattr", "x"), "builtins.getattr"),
        "in a state dict": (tf.ordered(a=tf.tensor(legacy=legacy), b=system), "os.system"),
        "in a persistent id": (tf.ordered(a=pid), "os.system"),
        "in tensor arguments": (tf.ordered(a=tf.call(rebuild, system)), "os.system"),
        "in BUILD": (tf.ORDERED + system + b"b", "os.system"),
        "by STACK_GLOBAL": (stack_global, "os.system"),
        "dotted name": (dotted, "_rebuild_tensor_v2.__globals__"),
        "by INST": (b"(" + tf.text(command) + b"ios\nsystem\n", "os.system"),
        "by OBJ": (b"(" + tf.name("os", "system") + tf.text(command) + b"o", "os.system"),
        "NEWOBJ of a known name": (tf.name("collections", "OrderedDict") + b")\x81", "NEWOBJ"),
        "extension code": (b"\x82\x01", "EXT1"),
        "whole model": (tf.name("srflow.models", "SRFlowNet") + b")R", "srflow.models.SRFlowNet"),
        "numpy scalar": (tf.name("numpy.core.multiarray", "scalar"), "multiarray.scalar"),
        "storage class as a function": (_run("torch", "load", "x"), "torch.load"),
        "newline in a name": (b"\x8c\x02o\n\x8c\x06system\x93", "system"),
    }


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("label", _hostile(""))
def test_hostile_pickles_are_refused_by_name(tmp_path, layout, label):
    ran = tmp_path / "ran"
    tree, named = _hostile(f"touch {ran}", layout == "legacy")[label]
    path = _write(layout, tmp_path / "a.pth", tree, {"0": VALUES.tobytes()})
    with pytest.raises(UnsafeFileError) as info:
        read_weights(path)
    message = str(info.value)
    print(f"{label}: {message}")
    assert named in message and str(path) in message and "\n" not in message
    assert not ran.exists()


def test_the_hostile_files_would_run_in_the_standard_reader(tmp_path):
    """Guards the test above: the attack works where nothing stops it."""
    ran = tmp_path / "ran"
    tree, _ = _hostile(f"touch {ran}")["os.system"]
    pickle.loads(b"\x80\x02" + tree + b".")
    assert ran.exists()


def _deep_key():
    # Tuples of themselves, 64 deep: hashing the key in the standard reader never ends.
    return b"}" + b")" + b"q\x00h\x00\x86" * 64 + b"Ns"


DAMAGED = {
    "beyond its storage": (tf.ordered(a=tf.tensor((7,), (1,))), "reach beyond"),
    "offset too large": (tf.ordered(a=tf.tensor(offset=1)), "reach beyond"),
    "stride too large": (tf.ordered(a=tf.tensor(stride=(4, 1))), "reach beyond"),
    "negative offset": (tf.ordered(a=tf.tensor(offset=-1)), "not plain sizes"),
    "negative stride": (tf.ordered(a=tf.tensor(stride=(-3, 1))), "not plain sizes"),
    "negative size": (tf.ordered(a=tf.tensor(shape=(-2, -3))), "not plain sizes"),
    "strides of another rank": (tf.ordered(a=tf.tensor(stride=(1,))), "not plain sizes"),
    "huge storage": (tf.ordered(a=tf.tensor(count=2**40)), "claims 1099511627776"),
    "absurd storage": (tf.ordered(a=tf.tensor(count=2**80)), "storage is damaged"),
    "repeated element": (tf.ordered(a=tf.tensor((2**20, 2**20), (0, 0))), "claim 4398046511104"),
    "many repeats": (
        tf.ordered(**{f"k{i}": tf.tensor((2**22,), (0,)) for i in range(5)}),
        "claim 83886080",
    ),
    "rank 70": (tf.ordered(a=tf.tensor((1,) * 70, (1,) * 70)), "tensor 'a'"),
    "huge empty": (tf.ordered(a=tf.tensor((0, 2**55, 2**55), (1, 1, 1))), "tensor 'a'"),
    "missing storage": (tf.ordered(a=tf.tensor(key="1")), "storage '1' is missing"),
    "two sizes": (tf.ordered(a=tf.tensor(), b=tf.tensor(kind="DoubleStorage")), "has two sizes"),
    "state put on a tensor": (tf.ordered(a=tf.tensor() + tf.mapping(x=b"N") + b"b"), "belongs"),
    "state put on a function": (
        tf.ordered(a=tf.name("torch._utils", "_rebuild_tensor") + tf.mapping(x=b"N") + b"b"),
        "belongs",
    ),
    "memo index": (b"}r\xff\xff\xff\xff", "holds no tensors"),
    "unknown memo": (b"h\x07", "damaged"),
    "empty stack": (b"\x85", "damaged"),
    "one list in many calls": (
        b"]q\x00("
        + (tf.text("k") + b"N\x86") * 2000
        + b"e"
        + (tf.name("collections", "OrderedDict") + b"h\x00\x85R") * 200,
        "repeat more than the file holds",
    ),
    "text as function": (tf.text("os.system") + b")R", "belongs"),
    "key that never hashes": (_deep_key(), "neither text nor"),
    "long string claim": (b"X\xff\xff\xff\xffab", "damaged"),
    "longer string claim": (b"\x8d" + b"\xff" * 7 + b"\x0f" + b"ab", "damaged"),
    "buffer claim": (b"\x96" + b"\xff" * 7 + b"\x0f" + b"ab", "damaged"),
    "no end": (b"N\x8c\x05ab", "damaged"),
}


@pytest.mark.parametrize("label", DAMAGED)
def test_damaged_records(tmp_path, label):
    tree, reason = DAMAGED[label]
    path = tf.write_zip(tmp_path / "a.pth", tree, {"0": VALUES.tobytes()})
    start = time.monotonic()
    with pytest.raises(WeightsFileError) as info:
        read_torch(path)
    print(f"{label}: {info.value}")
    assert reason in str(info.value) and str(path) in str(info.value)
    assert time.monotonic() - start < 5


def _prefix(data):
    return lambda path: path.write_bytes(data)


CONTAINER = {
    "big-endian": (lambda p: tf.write_zip(p, tf.ordered(), {}, order=b"big"), "b'big'"),
    "old big-endian": (
        lambda p: tf.write_legacy(p, tf.ordered(), {}, system={"little_endian": False}),
        "little-endian",
    ),
    "old unknown layout": (lambda p: tf.write_legacy(p, b"}", {}, protocol=1000), "1001"),
    "no data.pkl": (lambda p: zipfile.ZipFile(p, "w").writestr("a.txt", "x"), "no data.pkl"),
    "TorchScript": (
        lambda p: tf.write_zip(p, b"}", {}, extra=[("archive/constants.pkl", b"x")]),
        "TorchScript",
    ),
    "compressed bomb": (
        lambda p: tf.write_zip(p, b"}", {"0": bytes(80 << 20)}, method=zipfile.ZIP_DEFLATED),
        "entries claim",
    ),
    "trailing bytes": (lambda p: tf.write_zip(p, b"}.N", {}), "bytes follow"),
    "short storage": (
        lambda p: tf.write_zip(p, tf.ordered(a=tf.tensor()), {"0": bytes(20)}),
        "holds 20 bytes",
    ),
    "empty": (_prefix(b""), "is empty"),
    "web page": (_prefix(b"<!DOCTYPE html><html>"), "starts with b'<!DOCTYP'"),
    "bare pickle": (_prefix(pickle.dumps({"a": 1})), "a bare pickle"),
    "half a magic number": (_prefix(b"\x80\x02\x8a\nl\xfc"), "truncated"),
    "folder": (lambda p: p.mkdir(), "is a folder"),
}


@pytest.mark.parametrize("label", CONTAINER)
def test_damaged_containers(tmp_path, label):
    make, reason = CONTAINER[label]
    path = tmp_path / "a.pth"
    make(path)
    with pytest.raises(WeightsFileError) as info:
        read_torch(path)
    print(f"{label}: {info.value}")
    assert reason in str(info.value) and str(path) in str(info.value)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_of_one_name(tmp_path):
    path = tf.write_zip(tmp_path / "a.pth", b"}", {}, extra=[("archive/data.pkl", b"}.")])
    with pytest.raises(WeightsFileError, match="two entries"):
        read_torch(path)


def test_small_compressed_archive_is_read(tmp_path):
    tree = tf.ordered(a=tf.tensor())
    path = tf.write_zip(tmp_path / "a.pth", tree, {"0": VALUES.tobytes()}, method=8)
    np.testing.assert_array_equal(read_torch(path)["a"].ravel(), VALUES)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_truncation_anywhere_is_one_clear_error(tmp_path, layout):
    path = _plain(layout, tmp_path / "a.pth")
    data = path.read_bytes()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(WeightsFileError, match="a.pth: "):
            read_torch(path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_flipped_bits(tmp_path, layout):
    """A clear error or the right numbers (zip: checksums); never another exception."""
    path = _plain(layout, tmp_path / "a.pth")
    data, right = path.read_bytes(), read_torch(path)
    refused = 0
    for at in range(len(data)):
        for bit in (0, 7):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            path.write_bytes(damaged)
            try:
                out = read_torch(path)
            except WeightsFileError:
                refused += 1
                continue
            if layout == "zip":
                assert out.keys() == right.keys(), (at, bit)
                for key in out:
                    np.testing.assert_array_equal(out[key], right[key], err_msg=f"{at}, {bit}")
    print(f"{layout}: {refused} of {2 * len(data)} flips refused")
    assert refused > len(data)


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


def test_damaged_npz_and_safetensors(tmp_path):
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return ran.touch, ()

    objects = np.empty(1, object)
    objects[0] = Evil()
    np.savez(tmp_path / "object.npz", a=objects)
    ran.unlink(missing_ok=True)
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776,), }"
    header += b" " * (117 - len(header)) + b"\n"
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00v\x00" + header + bytes(8))
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(80 << 20))
    np.savez(tmp_path / "half.npz", a=VALUES)
    (tmp_path / "half.npz").write_bytes((tmp_path / "half.npz").read_bytes()[:150])
    save_file({"a": VALUES}, tmp_path / "half.safetensors")
    data = (tmp_path / "half.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(data[:-4])
    (tmp_path / "huge.safetensors").write_bytes(struct.pack("<Q", 2**60) + data[8:])
    (tmp_path / "text.safetensors").write_bytes(b"hello")
    for name in ("object.npz", "huge.npz", "bomb.npz", "half.npz",
                 "half.safetensors", "huge.safetensors", "text.safetensors"):  # fmt: skip
        with pytest.raises(WeightsFileError, match=name) as info:
            read_weights(tmp_path / name)
        print(info.value)
    assert not ran.exists()


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
