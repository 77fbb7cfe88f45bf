"""Hostile and damaged weight files: each is refused with one line, and nothing of it runs.

Run with -s to see the refusal table: the file, what it tried, the message.
"""

import os
import pickle
import struct
import time
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch_files as tf
from safetensors.numpy import save_file

from flowsr_jax.io.torch_file import UnsafeFileError, WeightsFileError, read_weights

VALUES = np.arange(6, dtype=np.float32) - 2.5
LAYOUTS = ("zip", "legacy")
SECONDS = 5  # no file, however small, may keep the reader busy for longer
CALLS = (  # module, name; called with a shell command, or with what it takes
    "os.system", "posix.system", "os.popen", "subprocess.check_output", "subprocess.Popen",
    "builtins.eval", "builtins.exec", "builtins.getattr", "builtins.__import__", "builtins.open",
    "__builtin__.eval", "__builtin__.execfile", "pickle.loads", "_pickle.loads", "marshal.loads",
    "runpy.run_path", "importlib.import_module", "ctypes.CDLL", "pty.spawn", "shutil.rmtree",
    "webbrowser.open", "functools.partial", "operator.attrgetter", "_codecs.encode",
    "copyreg._reconstructor", "copyreg.__newobj__", "types.FunctionType", "types.CodeType",
    "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar", "numpy.ndarray", "numpy.load", "torch.load",
    "torch.storage._load_from_bytes", "torch.hub.load", "torch.jit.load", "torch.nn.Module",
    "torch._utils._rebuild_device_tensor_from_numpy", "torch._utils._rebuild_tensor_v3",
    "torch._utils._rebuild_tensor_v2.__globals__", "torch.FloatStorage.__reduce__",
    "collections.OrderedDict.__init__", "collections.defaultdict", "srflow.models.SRFlowNet",
)  # fmt: skip


class Evil:
    """An object whose unpickling runs a command."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def _by_hand(command, legacy):
    """{what is tried: (pickle body, what the message must name)} beside plain calls."""
    system = tf.call(tf.name("os", "system"), tf.text(command))
    parts = (tf.text("storage"), system, tf.text("0"), tf.text("cpu"), tf.whole(6))
    rebuild = tf.name("torch._utils", "_rebuild_tensor_v2")
    stack = tf.text("os") + tf.text("system") + b"\x93" + tf.text(command) + b"\x85R"
    memo = tf.name("os", "system") + b"q\x07" + b"0" + b"h\x07" + tf.text(command) + b"\x85R"
    tensor = tf.tensor(legacy=legacy)
    whole = {f"__reduce__, protocol {p}": (pickle.dumps(Evil(command), p)[:-1], "posix.system")
             for p in (2, 3, 4, 5)}  # fmt: skip
    return whole | {
        "a call inside a state dict": (tf.ordered(a=tensor, b=system), "os.system"),
        "a call inside a storage": (tf.ordered(a=tf.sequence(*parts) + b"Q"), "os.system"),
        "a call inside a tensor": (tf.ordered(a=tf.call(rebuild, system)), "os.system"),
        "a call inside BUILD": (tf.ORDERED + system + b"b", "os.system"),
        "a call by STACK_GLOBAL": (stack, "os.system"),
        "a call by INST": (b"(" + tf.text(command) + b"ios\nsystem\n", "os.system"),
        "a call by OBJ": (b"(" + tf.name("os", "system") + tf.text(command) + b"o", "os.system"),
        "a call through the memo": (memo, "os.system"),
        "a newline in a name": (b"\x8c\x03o\ns\x8c\x06system\x93", "'o\\ns.system'"),
        "an escape sequence in a name": (tf.text("\x1b[2J") + tf.text("x") + b"\x93", "'\\x1b[2J"),
        "NEWOBJ of a known name": (tf.name("collections", "OrderedDict") + b")\x81", "NEWOBJ"),
        "NEWOBJ_EX": (tf.name("collections", "OrderedDict") + b")}\x92", "NEWOBJ_EX"),
        "an extension code": (b"\x82\x01", "EXT1"),
        "a persistent id as text": (b"Pos.system\n", "PERSID"),
        "a buffer from outside": (b"\x97", "NEXT_BUFFER"),
        "a set of anything": (b"\x8f", "EMPTY_SET"),
    }


def _attacks(command, legacy):
    calls = {
        name: (tf.call(tf.name(*name.rsplit(".", 1)), tf.text(command)), name) for name in CALLS
    }
    return calls | _by_hand(command, legacy)


def _write(layout, path, tree, storages=None, **options):
    write = {"zip": tf.write_zip, "legacy": tf.write_legacy}[layout]
    return write(path, tree, {"0": VALUES.tobytes()} if storages is None else storages, **options)


def _refuse(path, kind, named):
    """The message of the refusal, checked to be one short line that names file and reason."""
    start = time.monotonic()
    with pytest.raises(kind) as info:
        read_weights(path)
    message = str(info.value)
    assert time.monotonic() - start < SECONDS, message
    assert str(path) in message and named in message, message
    assert message.isprintable() and len(message) < 600 + len(str(path)), message
    return message.replace(f"{path}: ", "")


def _row(label, tried, message):
    print(f"| {label} | {tried} | {message} |")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_programs_are_refused_by_name(tmp_path, layout):
    ran, path = tmp_path / "ran", tmp_path / "a.pth"
    print("\n| file | it tried | message |\n|---|---|---|")
    for tried, (tree, named) in _attacks(f"touch {ran}", layout == "legacy").items():
        _write(layout, path, tree)
        message = _refuse(path, UnsafeFileError, named)
        _row(f"{layout} .pth", tried, message)
        assert "refused" in message and "nothing of it was run" in message
        assert not ran.exists(), f"{tried} was run"


def test_the_hostile_files_would_run_in_the_standard_reader(tmp_path):
    """Guards the test above: the attacks work where nothing stops them."""
    ran = tmp_path / "ran"
    attacks = _attacks(f"touch {ran}", False)
    by_hand = ("a call by STACK_GLOBAL", "a call by INST", "a call through the memo")
    for tried in ("os.system", "os.popen", *by_hand, "__reduce__, protocol 5"):
        result = pickle.loads(b"\x80\x02" + attacks[tried][0] + b".")
        if hasattr(result, "close"):
            result.close()
        assert ran.exists(), tried
        ran.unlink()


def _deep_key():
    # Tuples of themselves, 64 deep: hashing the key in the standard reader never ends.
    return b"}" + b")" + b"q\x00h\x00\x86" * 64 + b"Ns"


def _long_key():
    digits = b"\x7f" * 10_000  # a whole number of 24,000 digits
    return b"}" + b"\x8b" + struct.pack("<i", len(digits)) + digits + tf.tensor() + b"s"


ONE_LIST = (
    b"]q\x00(" + (tf.text("k") + b"N\x86") * 2000 + b"e"
    + (tf.name("collections", "OrderedDict") + b"h\x00\x85R") * 200
)  # fmt: skip
OLD = tf.name("torch._utils", "_rebuild_tensor")
RECORDS = {  # pickles of names that are allowed: what they claim, and what is said
    "a tensor beyond its storage": (tf.ordered(a=tf.tensor((7,), (1,))), "reach beyond"),
    "an offset too large": (tf.ordered(a=tf.tensor(offset=1)), "reach beyond"),
    "a stride too large": (tf.ordered(a=tf.tensor(stride=(4, 1))), "reach beyond"),
    "a negative offset": (tf.ordered(a=tf.tensor(offset=-1)), "not plain sizes"),
    "a negative stride": (tf.ordered(a=tf.tensor(stride=(-3, 1))), "not plain sizes"),
    "a negative size": (tf.ordered(a=tf.tensor(shape=(-2, -3))), "not plain sizes"),
    "strides of another rank": (tf.ordered(a=tf.tensor(stride=(1,))), "not plain sizes"),
    "a storage of 4 TB": (tf.ordered(a=tf.tensor(count=2**40)), "claims 1099511627776"),
    "a storage of 2^80": (tf.ordered(a=tf.tensor(count=2**80)), "storage is damaged"),
    "one element, 2^40 times": (
        tf.ordered(a=tf.tensor((2**20, 2**20), (0, 0))),
        "claim 4398046511104",
    ),
    "many repeated elements": (
        tf.ordered(**{f"k{i}": tf.tensor((2**22,), (0,)) for i in range(5)}),
        "claim 83886080",
    ),
    "70 axes": (tf.ordered(a=tf.tensor((1,) * 70, (1,) * 70)), "has 70 axes"),
    "0 x 2^55 x 2^55": (tf.ordered(a=tf.tensor((0, 2**55, 2**55), (1, 1, 1))), "tensor 'a'"),
    "a storage that is not there": (tf.ordered(a=tf.tensor(key="1")), "storage '1' is missing"),
    "a storage name of 1 MB": (tf.ordered(a=tf.tensor(key="k" * 10**6)), "is missing"),
    "two sizes of one storage": (
        tf.ordered(a=tf.tensor(), b=tf.tensor(kind="DoubleStorage")),
        "has two sizes",
    ),
    "attributes of a tensor": (tf.ordered(a=tf.tensor() + tf.mapping(x=b"N") + b"b"), "belongs"),
    "attributes of a function": (tf.ordered(a=OLD + tf.mapping(x=b"N") + b"b"), "belongs"),
    "text as a function": (tf.text("os.system") + b")R", "belongs"),
    "a storage class as a function": (tf.name("torch", "FloatStorage") + b")R", "belongs"),
    "a key that never hashes": (_deep_key(), "neither text nor"),
    "a key of 24,000 digits": (_long_key(), "neither text nor"),
    "one list in many calls": (ONE_LIST, "repeat more than the file holds"),
    "memo entry 2^32 - 1": (b"}r\xff\xff\xff\xff", "holds no tensors"),
    "an unknown memo entry": (b"h\x07", "damaged"),
    "an empty stack": (b"\x85", "damaged"),
    "a string of 4 GB": (b"X\xff\xff\xff\xffab", "damaged"),
    "a string of 2^60": (b"\x8d" + b"\xff" * 7 + b"\x0f" + b"ab", "damaged"),
    "a buffer of 2^60": (b"\x96" + b"\xff" * 7 + b"\x0f" + b"ab", "damaged"),
    "no end": (b"N\x8c\x05ab", "damaged"),
    "a list": (b"]", "holds a list"),
    "containers 5 deep": (b"}" + (tf.text("params") + b"}") * 5 + b"s" * 5, "nested too deep"),
}


def test_records_that_claim_too_much(tmp_path):
    print("\n| file | it claims | message |\n|---|---|---|")
    path = tmp_path / "a.pth"
    for tried, (tree, named) in RECORDS.items():
        _write("zip", path, tree)
        _row("zip .pth", tried, _refuse(path, WeightsFileError, named))


def _forge(path, field, value):
    """Overwrite a 4-byte size (20: packed, 24: unpacked) of the second central entry."""
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
    data[at + field : at + field + 4] = struct.pack("<I", value)
    path.write_bytes(data)


def _zip_with_forged_size(path):
    _write("zip", path, tf.ordered(a=tf.tensor()))
    _forge(path, 24, 0xFFFFFFF0)


def _locked(path):
    _write("zip", path, tf.ordered(a=tf.tensor()))
    data = bytearray(path.read_bytes())
    for magic, at in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        data[data.index(magic) + at] |= 1  # the flag of encryption
    path.write_bytes(data)


def _lists_of_storages(path, keys):
    parts = [pickle.dumps(v, 2) for v in (tf.LEGACY_MAGIC, 1001, tf.SYSTEM)]
    tree = tf.ordered(a=tf.tensor(legacy=True))
    parts += [b"\x80\x02" + tree + b".", pickle.dumps(keys, 2)]
    path.write_bytes(b"".join([*parts, struct.pack("<q", 6), VALUES.tobytes()]))


def _npz(path, header, body=b""):
    text = header.encode().ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00v\x00" + text + body)


def _npz_of_objects(path):
    objects = np.empty(1, object)
    objects[0] = Evil(f"touch {path.parent / 'ran'}")
    np.savez(path, a=objects)


def _safetensors(path, change):
    save_file({"a": VALUES}, path)
    path.write_bytes(change(path.read_bytes()))


def _deflated(path, method):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.writestr("archive/data/0", bytes(80 << 20))


BIG = {**tf.SYSTEM, "little_endian": False}
F8 = "{{'descr': {!r}, 'fortran_order': False, 'shape': {}, }}"
FILES = {  # suffix, how it is made, what it claims, what is said
    "big-endian": (".pth", lambda p: _write("zip", p, tf.ordered(), order=b"big"), "b'big'"),
    "old, big-endian": (
        ".pth", lambda p: _write("legacy", p, tf.ordered(), system=BIG), "little-endian"
    ),
    "old, layout 1000": (".pth", lambda p: _write("legacy", p, b"}", {}, protocol=1000), "1001"),
    "old, storages listed twice": (".pth", lambda p: _lists_of_storages(p, ["0", "0"]), "storages"),
    "old, a storage that is a number": (
        ".pth", lambda p: _lists_of_storages(p, ["0", 5]), "storages"
    ),
    "deflated: 80 MB in 80 kB": (".pth", lambda p: _deflated(p, 8), "entries claim"),
    "bzip2: 80 MB in 60 bytes": (".pth", lambda p: _deflated(p, 12), "torch.save never"),
    "LZMA: 80 MB in 12 kB": (".pth", lambda p: _deflated(p, 14), "torch.save never"),
    "an entry of 4 GB in 1 kB": (".pth", _zip_with_forged_size, "entries claim"),
    "an encrypted entry": (".pth", _locked, "damaged zip archive"),
    "no data.pkl": (
        ".pth", lambda p: zipfile.ZipFile(p, "w").writestr("a.txt", "x"), "no data.pkl"
    ),
    "a folder outside": (".pth", lambda p: _write("zip", p, b"}", top="../x"), "no data.pkl"),
    "two entries of one name": (
        ".pth",
        lambda p: _write("zip", p, b"}", extra=[("archive/data.pkl", b"}.")]),
        "two entries",
    ),
    "TorchScript": (
        ".pth",
        lambda p: _write("zip", p, b"}", extra=[("archive/constants.pkl", b"x")]),
        "TorchScript",
    ),
    "a second pickle": (".pth", lambda p: _write("zip", p, b"}.N"), "bytes follow"),
    "a short storage": (
        ".pth",
        lambda p: _write("zip", p, tf.ordered(a=tf.tensor()), {"0": bytes(20)}),
        "holds 20 bytes",
    ),
    "nothing": (".pth", lambda p: p.write_bytes(b""), "is empty"),
    "a web page": (".pth", lambda p: p.write_bytes(b"<!DOCTYPE html><html>"), "is a web page"),
    "a bare pickle": (".pth", lambda p: p.write_bytes(pickle.dumps({"a": 1})), "a bare pickle"),
    "half a magic number": (".pth", lambda p: p.write_bytes(b"\x80\x02\x8a\nl\xfc"), "truncated"),
    "a folder": (".pth", lambda p: p.mkdir(), "is a folder"),
    "npz: pickled objects": (".npz", _npz_of_objects, "damaged .npz"),
    "npz: 8 TB": (".npz", lambda p: _npz(p, F8.format("<f8", (2**40,)), bytes(8)), "too large"),
    "npz: a negative size": (
        ".npz", lambda p: _npz(p, F8.format("<f8", (-1, -1)), bytes(8)), "damaged .npz"
    ),
    "npz: text": (".npz", lambda p: np.savez(p, a=np.array(["os.system"])), "not numbers"),
    "npz: a program in the header": (
        ".npz", lambda p: _npz(p, "__import__('os').system('x')"), "damaged .npz"
    ),
    "npz: 80 MB in 80 kB": (
        ".npz", lambda p: np.savez_compressed(p, a=np.zeros(10 << 20)), "entries claim"
    ),
    "npz: half of it": (".npz", lambda p: _half(p), "damaged .npz"),
    "safetensors: a header of 2^60": (
        ".safetensors",
        lambda p: _safetensors(p, lambda d: struct.pack("<Q", 2**60) + d[8:]),
        "damaged .safetensors",
    ),
    "safetensors: numbers missing": (
        ".safetensors", lambda p: _safetensors(p, lambda d: d[:-4]), "damaged .safetensors"
    ),
    "safetensors: another shape": (
        ".safetensors",
        lambda p: _safetensors(p, lambda d: d.replace(b"[6]", b"[9]")),
        "damaged .safetensors",
    ),
    "safetensors: text": (".safetensors", lambda p: p.write_bytes(b"hello"), "damaged"),
}  # fmt: skip


def _half(path):
    np.savez(path, a=VALUES)
    path.write_bytes(path.read_bytes()[:150])


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_containers_that_claim_too_much(tmp_path):
    print("\n| file | it is | message |\n|---|---|---|")
    for number, (tried, (suffix, make, named)) in enumerate(FILES.items()):
        path = tmp_path / f"{number}{suffix}"
        make(path)
        _row(suffix, tried, _refuse(path, WeightsFileError, named))
        assert not (tmp_path / "ran").exists(), tried


def test_an_entry_that_inflates_to_more_than_it_claims(tmp_path):
    """1000 bytes by its own account, 200 MB in truth: only the 1000 are made."""
    path, storages = tmp_path / "a.pth", {"0": bytes(200 << 20)}
    tree = tf.ordered(a=tf.tensor((250,), (1,), count=250))
    _write("zip", path, tree, storages, method=8, order=None)
    del storages
    _forge(path, 24, 1000)
    tracemalloc.start()
    try:
        message = _refuse(path, WeightsFileError, "damaged zip archive (Bad CRC-32")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    _row(".pth", f"200 MB in {path.stat().st_size} bytes, called 1000 (peak {peak})", message)
    assert peak < 8 << 20


def _plain(layout, path):
    legacy = layout == "legacy"
    tree = tf.ordered(a=tf.tensor(legacy=legacy), b=tf.tensor((6,), (1,), legacy=legacy))
    return _write(layout, path, tree)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_truncation_anywhere_is_one_clear_error(tmp_path, layout):
    path = _plain(layout, tmp_path / "a.pth")
    data = path.read_bytes()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(WeightsFileError, match="a.pth: "):
            read_weights(path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_flipped_bits(tmp_path, layout):
    """A clear error or the right numbers (zip: checksums); never another exception."""
    path = _plain(layout, tmp_path / "a.pth")
    data, right = path.read_bytes(), read_weights(path)
    refused = 0
    for at in range(len(data)):
        for bit in (0, 7):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            path.write_bytes(damaged)
            try:
                out = read_weights(path)
            except WeightsFileError:
                refused += 1
                continue
            if layout == "zip":
                assert out.keys() == right.keys(), (at, bit)
                for key in out:
                    np.testing.assert_array_equal(out[key], right[key], err_msg=f"{at}, {bit}")
    print(f"{layout}: {refused} of {2 * len(data)} flips refused")
    assert refused > len(data)
