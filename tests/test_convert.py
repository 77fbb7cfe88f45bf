"""launch/convert.py: official files to model folders and back; one line for every mistake."""

import hashlib
import importlib.util
import json
import os
import pickle
from pathlib import Path

import jax
import numpy as np
import pytest
import torch_files as tf

import flowsr_jax
from flowsr_jax.io.torch_file import read_weights
from flowsr_jax.io.torch_write import write_state
from flowsr_jax.models.importer import import_weights

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def convert():
    spec = importlib.util.spec_from_file_location("launch_convert", ROOT / "launch" / "convert.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def run(convert, *args):
    try:
        return convert([str(a) for a in args])
    except SystemExit as stop:
        return stop.code


@pytest.mark.parametrize("name", ["srflow_x4", "srflow_x8"])
def test_there_and_back(tmp_path, shared, convert, capsys, name):
    source, blocks = shared / f"golden/{name}.pth", (0, 2)
    if name == "srflow_x8":  # comes as arrays
        source, blocks = tmp_path / "official.safetensors", (0, 1)
        with np.load(shared / f"golden/{name}.npz") as data:
            keys = [k for k in data.files if k.startswith("weights/")]
            write_state({k.removeprefix("weights/"): data[k] for k in keys}, source)
    model, back = tmp_path / "model", tmp_path / "back.pth"
    stacked = f"--stacked_blocks={blocks[0]},{blocks[1]}"
    assert run(convert, source, model, stacked) == 0
    printed = capsys.readouterr().out
    count = {"srflow_x4": "518,723", "srflow_x8": "413,691"}[name]
    for text in ("family: srflow", f"stacked_blocks = {blocks}", count, "metadata: not known"):
        assert text in printed, text
    notes = json.loads((model / "config.json").read_text())["metadata"]
    assert notes["source"] == source.name and notes["licence"] is None
    assert notes["source_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    loaded = flowsr_jax.load(model)
    want = import_weights(read_weights(source), stacked_blocks=blocks).params
    assert loaded.config == want.config
    same = jax.tree.map(lambda a, b: bool((a == b).all()), loaded.tree, want.tree)
    assert all(jax.tree.leaves(same))
    assert run(convert, model, back, "--to", "torch") == 0
    capsys.readouterr()
    official, again = read_weights(source), read_weights(back)
    assert set(again) == set(official)
    assert all(again[key].tobytes() == official[key].tobytes() for key in official)


UNET = ("--norm_groups=8", "--image_size=32", "--scale=1")
# {file: (family, settings)}
EVERY = {
    "rrdb.npz": ("rrdb", ("--skip=first",)),
    "irn_x3.safetensors": ("irn", ("--model=irn",)),
    "irn_x4.pth": ("irn", ()),
    "sr3_small.pth": ("sr3", UNET),
    "ddpm.safetensors": ("sr3", (*UNET, "--model=ddpm", "--betas=0.1,0.5,0.9")),
}


@pytest.mark.filterwarnings("ignore::flowsr_jax.diffusion.schedules.ScheduleWarning")
@pytest.mark.parametrize("name", EVERY)
def test_every_family_keeps_its_checksum(tmp_path, shared, convert, capsys, name):
    family, settings = EVERY[name]
    source, model, back = tmp_path / name, tmp_path / "model", tmp_path / "back.pth"
    if name.endswith(".pth"):
        source = shared / "golden" / name
    else:
        key = {"ddpm.safetensors": "ddpm", "rrdb.npz": "rrdb"}.get(name, "irn_x3")
        write_state(tf.official_states(shared)[key][0], source)
    assert run(convert, source, model, *settings) == 0
    printed = capsys.readouterr().out
    assert f"family: {family}" in printed
    notes = json.loads((model / "config.json").read_text())["metadata"]
    official = read_weights(source)
    assert notes == {
        "source": name,
        "source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "licence": None,
        "left_out": [],
        "tensors": len(official),
    }
    assert flowsr_jax.load(model).config.family == family
    assert run(convert, model, back, "--to", "torch") == 0
    capsys.readouterr()
    again = read_weights(back)
    assert all(again[key].tobytes() == array.tobytes() for key, array in official.items())


def test_a_model_in_two_files(tmp_path, shared, convert, capsys):
    """IRN-Compression: the generator, and the net that repairs the LR image."""
    with np.load(shared / "golden/irn_crm.npz") as data:
        for group in "GR":
            start = f"weights_{group}/"
            state = {k.removeprefix(start): data[k] for k in data.files if k.startswith(start)}
            write_state(state, tmp_path / f"{group}.pth")
    files, out = (tmp_path / "G.pth", tmp_path / "R.pth"), tmp_path / "model"
    assert run(convert, files[0], out, "--with", files[1]) == 0
    notes = json.loads((out / "config.json").read_text())["metadata"]
    sums = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    assert (notes["source"], notes["source_sha256"]) == ("G.pth + R.pth", " + ".join(sums))
    assert flowsr_jax.load(out).config.restorer is not None
    for args, message in (
        (
            (files[0], tmp_path / "b", "--with", files[0]),
            "keys are in another file too: operations",
        ),
        ((files[1], tmp_path / "b"), "the restorer of IRN-Compression"),
        ((out, tmp_path / "b.pth", "--to", "torch", "--with", files[1]), "--with is for the way"),
    ):
        assert run(convert, *args) == 2
        assert message in capsys.readouterr().err


def test_averaged_weights_and_what_is_left_out(tmp_path, convert, capsys):
    """A training checkpoint: the averages are taken, the rest is reported."""
    state = tf.rrdb_state(nb=1)
    wrapped = {f"module.{key}": value for key, value in state.items()}
    wrapped["module.netD.bn.num_batches_tracked"] = np.int64(4)
    flat = {f"params_ema.{key}": value for key, value in wrapped.items()}
    write_state({**flat, "params.module.x": np.zeros(3)}, tmp_path / "train.npz")
    out = tmp_path / "model"
    assert run(convert, tmp_path / "train.npz", out, "--model", "rrdb") == 0
    printed = capsys.readouterr().out
    print(printed)
    assert (
        "note: took the keys that begin with 'params_ema.', left out 'params.module.x'" in printed
    )
    assert f"note: removed the prefix 'module.' of {len(wrapped)} keys" in printed
    assert "left out: netD.bn.num_batches_tracked" in printed
    assert "family: rrdb" in printed and "the trunk's skip is not clear" in printed
    notes = json.loads((out / "config.json").read_text())["metadata"]
    assert notes["left_out"] == ["netD.bn.num_batches_tracked"]
    assert flowsr_jax.load(out).config.nb == 1
    # The way back in another naming scheme.
    args = (out, tmp_path / "old.pth", "--to", "torch", "--scheme=esrgan_old")
    assert run(convert, *args) == 0
    assert set(read_weights(tmp_path / "old.pth")) == set(tf.rrdb_state("esrgan_old", nb=1))


def test_mistakes_are_one_line(tmp_path, convert, capsys):
    write_state(tf.rrdb_state(nb=1), tmp_path / "rrdb.pth")
    write_state({"a": np.zeros(3)}, tmp_path / "other.pth")
    (tmp_path / "hostile.pth").write_bytes(b"")
    command = tf.call(tf.name("os", "system"), tf.text("x"))
    tf.write_zip(tmp_path / "hostile.pth", tf.ordered(a=command), {})
    (tmp_path / "bare.pth").write_bytes(pickle.dumps({}))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "config.json").write_text("{}")
    good, out = tmp_path / "rrdb.pth", tmp_path / "out"
    cases = [
        ((), "the following arguments are required: IN, OUT"),
        ((tmp_path / "nothing.pth", out), "nothing.pth: no such file"),
        ((tmp_path / "hostile.pth", out), "refused: it names 'os.system'"),
        ((tmp_path / "bare.pth", out), "is a bare pickle"),
        ((tmp_path / "other.pth", out), "belong to no known family"),
        ((good, out, "--model", "srflw"), "did you mean 'srflow'"),
        ((good, out, "--model", "srflow"), "do not fit family 'srflow'"),
        ((good, out, "--nf=big"), "from_torch.nf must be int"),
        ((good, out, "--nbb=2"), "did you mean 'nb'"),
        ((good, out, "--nb=3"), "60 missing (first: RRDB_trunk.1.RDB1"),
        ((good, out, "--nf", "3"), "unknown argument '--nf' (settings are --name=value)"),
        ((good, out, "extra"), "unknown argument 'extra'"),
        ((good, out, "--to", "onnx"), "invalid choice: 'onnx'"),
        ((good, tmp_path / "taken"), "holds a model already (--overwrite replaces it)"),
        ((good, good), "rrdb.pth"),
        ((tmp_path / "nowhere", tmp_path / "a.pth", "--to", "torch"), "no such folder"),
        ((tmp_path / "taken", good, "--to", "torch"), "exists already (--overwrite"),
    ]
    before = sorted(os.listdir(tmp_path))
    for args, message in cases:
        assert run(convert, *args) == 2, args
        error = capsys.readouterr().err
        print(error, end="")
        assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert sorted(os.listdir(tmp_path)) == before
    assert run(convert, good, out) == 0
    assert run(convert, out, tmp_path / "a.onnx", "--to", "torch") == 2
    assert "suffix = '.onnx'" in capsys.readouterr().err
    assert run(convert, out, good, "--to", "torch", "--overwrite") == 0
