"""Hand-made files in torch.save's two layouts, honest and hostile, without torch."""

import io
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np

from flowsr_jax.io.torch_file import read_weights

# Of the small golden networks: what their weights do not tell.
UNET = {"norm_groups": 8, "image_size": 32, "scale": 1}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
SYSTEM = {
    "protocol_version": 1001,
    "little_endian": True,
    "type_sizes": {"short": 2, "int": 4, "long": 4},
}


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def whole(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def sequence(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + sequence(*arguments) + b"R"


def mapping(**items: bytes) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


ORDERED = call(name("collections", "OrderedDict"))


def ordered(**items: bytes) -> bytes:
    """An OrderedDict with the attribute that state dicts carry."""
    body = b"(" + b"".join(text(key) + value for key, value in items.items()) + b"u"
    return ORDERED + body + mapping(_metadata=ORDERED) + b"b"


def storage(key="0", kind="FloatStorage", count=6, legacy=False) -> bytes:
    view = [b"N"] if legacy else []
    parts = (text("storage"), name("torch", kind), text(key), text("cpu"), whole(count), *view)
    return sequence(*parts) + b"Q"


def tensor(shape=(2, 3), stride=(3, 1), offset=0, function="_rebuild_tensor_v2", **options):
    return call(
        name("torch._utils", function),
        storage(**options),
        whole(offset),
        sequence(*map(whole, shape)),
        sequence(*map(whole, stride)),
        b"\x89",
        ORDERED,
    )


def write_zip(path, tree: bytes, storages, *, order=b"little", top="archive", method=0, extra=()):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(f"{top}/data.pkl", b"\x80\x02" + tree + b".")
        if order is not None:
            archive.writestr(f"{top}/byteorder", order)
        for key, data in storages.items():
            archive.writestr(f"{top}/data/{key}", data)
        archive.writestr(f"{top}/version", b"3\n")
        for entry, data in extra:
            archive.writestr(entry, data)
    return path


def write_legacy(path, tree: bytes, storages, *, item=4, system=SYSTEM, protocol=1001):
    parts = [pickle.dumps(value, 2) for value in (LEGACY_MAGIC, protocol, system)]
    parts += [b"\x80\x02" + tree + b".", pickle.dumps(list(storages), 2)]
    for data in storages.values():
        parts += [struct.pack("<q", len(data) // item), data]
    path.write_bytes(b"".join(parts))
    return path


class _Storage:
    def __init__(self, key, array):
        self.key, self.array = key, array


class FloatStorage:
    """Stands for the class of torch in pickles."""


def _rebuild_tensor_v2():
    """Stands for the function of torch in pickles."""


class _Pickler(pickle.Pickler):
    """Pickles arrays as torch.save does tensors; other values as they are."""

    def __init__(self, file, legacy):
        super().__init__(file, 2)
        self.legacy, self.storages = legacy, {}

    def reducer_override(self, value):
        if type(value) is not np.ndarray:
            return NotImplemented
        value = np.ascontiguousarray(value, "f")
        storage = _Storage(str(len(self.storages)), value)
        self.storages[storage.key] = value.tobytes()
        strides = tuple(s // 4 for s in value.strides)
        return _rebuild_tensor_v2, (storage, 0, value.shape, strides, False, OrderedDict())

    def persistent_id(self, value):
        if type(value) is not _Storage:
            return None
        view = (None,) if self.legacy else ()
        return ("storage", FloatStorage, value.key, "cpu", value.array.size, *view)


def save_tree(tree, path, *, legacy=False):
    """torch.save of a tree whose tensors are arrays (float32), beside values of any kind."""
    made = {"torch": FloatStorage, "torch._utils": _rebuild_tensor_v2}
    before = {name: sys.modules.get(name) for name in made}
    try:
        for name, thing in made.items():
            thing.__module__ = name
            sys.modules[name] = module = types.ModuleType(name)
            setattr(module, thing.__name__, thing)
        pickler = _Pickler(stream := io.BytesIO(), legacy)
        pickler.dump(tree)
    finally:
        for name, module in before.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module
    write = write_legacy if legacy else write_zip
    return write(path, stream.getvalue()[2:-1], pickler.storages)


def rrdb_state(scheme="released", *, seed=0, nf=6, gc=3, nb=2, up=2):
    """A random RRDB in one of three naming schemes, in the order of its module tree."""
    rng = np.random.default_rng(seed)
    state = {}

    def conv(name, co, ci):
        state[f"{name}.weight"] = (rng.standard_normal((co, ci, 3, 3)) * 0.15).astype("f")
        state[f"{name}.bias"] = (rng.standard_normal(co) * 0.1).astype("f")

    old = scheme == "esrgan_old"
    conv("model.0" if old else "conv_first", nf, 3)
    for i in range(nb):
        for j in (1, 2, 3):
            for c in range(5):
                block = {
                    "released": f"RRDB_trunk.{i}.RDB{j}.conv{c + 1}",
                    "esrgan_old": f"model.1.sub.{i}.RDB{j}.conv{c + 1}.0",
                    "basicsr": f"body.{i}.rdb{j}.conv{c + 1}",
                }[scheme]
                conv(block, nf if c == 4 else gc, nf + c * gc)
    trunk = {"released": "trunk_conv", "esrgan_old": f"model.1.sub.{nb}", "basicsr": "conv_body"}
    conv(trunk[scheme], nf, nf)
    for u in range(1, up + 1):
        upconv = {"released": f"upconv{u}", "esrgan_old": f"model.{3 * u}"}
        conv(upconv.get(scheme, f"conv_up{u}"), nf, nf)
    last = {
        "released": ("HRconv", "conv_last"),
        "esrgan_old": (f"model.{3 * up + 2}", f"model.{3 * up + 4}"),
        "basicsr": ("conv_hr", "conv_last"),
    }[scheme]
    conv(last[0], nf, nf)
    conv(last[1], 3, nf)
    return state


def official_states(shared):
    """{name: (official state dict, what weights do not tell)}."""

    def arrays(name, prefix):
        with np.load(shared / f"golden/{name}.npz") as data:
            return {k.removeprefix(prefix): data[k] for k in data.files if k.startswith(prefix)}

    def file(name):
        return read_weights(shared / f"golden/{name}.pth")

    return {
        "srflow_x4": (file("srflow_x4"), {"stacked_blocks": (0, 2)}),
        "srflow_x8": (arrays("srflow_x8", "weights/"), {"stacked_blocks": (0, 1)}),
        "sr3": (file("sr3_small"), UNET),
        "ddpm": (arrays("ddpm_small", "w/"), {**UNET, "betas": [1e-4, 0.2, 0.3]}),
        "irn_x3": (arrays("irn_x3", "weights/"), {}),
        "irn_x4": (file("irn_x4"), {}),
        "rrdb": (rrdb_state(), {}),
        "rrdb_x8": (rrdb_state(up=3), {}),
    }
