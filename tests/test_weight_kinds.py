"""Weight files as people have them: every wrapper, licence, number type; and ncnn's pairs."""

import tracemalloc
from argparse import Namespace
from collections import OrderedDict
from datetime import datetime
from pathlib import PurePosixPath

import jax
import numpy as np
import pytest
import torch_files as tf
from safetensors.numpy import save_file

import flowsr_jax
from flowsr_jax.commands import convert
from flowsr_jax.io.torch_file import UnsafeFileError, open_weights, read_weights
from flowsr_jax.io.torch_import import import_files
from flowsr_jax.io.torch_write import to_torch
from flowsr_jax.models.importer import import_weights

STATE = tf.rrdb_state("basicsr", nb=1)
OTHER = tf.rrdb_state("basicsr", nb=1, seed=1)
JUDGE = {"features.0.weight": np.zeros((2, 3, 3, 3), "f")}


def under(prefix, state=STATE):
    return {f"{prefix}{key}": value for key, value in state.items()}


# {name: (what is saved, what a note says)}
WRAPPED = {
    "plain": (STATE, None),
    "compiled": (under("_orig_mod."), "_orig_mod."),
    "compiled inside": ({k.replace("rdb1", "rdb1._orig_mod"): v for k, v in STATE.items()},
                        "_orig_mod."),
    "ddp of compiled": (under("module._orig_mod."), "module."),
    "a net's name": (under("netG."), "netG"),
    "two names": (under("model.generator."), "model.generator"),
    "a net and its judge": (under("netG.") | {f"netD.{k}": v for k, v in JUDGE.items()}, "netD"),
    "lightning": ({"state_dict": under("netG."), "epoch": 3}, "netG"),
    "averaged module": (under("module.") | {"n_averaged": np.array(3)}, "module."),
    "model and ema": ({"model": OTHER, "ema": STATE}, "ema"),
    "ema beside": ({"model": OTHER, "model_ema": STATE, "loss": np.float32(1)}, "model_ema"),
    "gan": ({"generator": STATE, "discriminator": JUDGE}, "discriminator"),
    "a tensor beside": ({"model": STATE, "loss": np.ones(1)}, "loss"),
    "numbers": ({"model": STATE, "psnr": np.float64(30.1)}, "psnr"),
    "settings": ({"net": STATE, "args": Namespace(lr=1), "when": datetime(2024, 1, 1)}, "args"),
    "paths among the tensors": ({**STATE, "path": PurePosixPath("/a/b")}, "path"),
    "an object of the author's": ({**STATE, "opt": OrderedDict(a=1)}, "opt"),
}  # fmt: skip


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_every_wrapper_is_opened(tmp_path, legacy):
    want = jax.tree.leaves(import_weights(STATE, skip="first").params.tree)
    for name, (tree, said) in WRAPPED.items():
        path = tmp_path / "any.ending"
        tf.save_tree(tree, path, legacy=legacy)
        notes = []
        imported, _ = import_files(path, report=notes.append, skip="first")
        got = jax.tree.leaves(imported.params.tree)
        assert all(map(np.array_equal, got, want)), name
        assert said is None or said in str([*notes, imported.notes]), (name, notes)


@pytest.mark.parametrize(
    "tree, key",
    [
        ({"a": OTHER, "b": STATE}, "b"),
        ({"a": {"net": OTHER}, "b": {"net": STATE}}, "b.net"),
        (under("b.") | under("a.", OTHER), "b"),
        ({"state_dict": under("b.") | under("a.", OTHER)}, "b"),
        ({"state_dict": under("b.") | under("a.", OTHER)}, "state_dict.b"),
        ({"ema": OTHER, "model": STATE}, "model"),
    ],
)
def test_a_net_of_several_is_chosen(tmp_path, tree, key):
    tf.save_tree(tree, tmp_path / "a.pth")
    if key != "model":
        with pytest.raises(ValueError, match=r"several nets: .*--key"):
            import_files(tmp_path / "a.pth")
    got = read_weights(tmp_path / "a.pth", key=key)
    assert got.keys() == STATE.keys()
    assert all(np.array_equal(got[k], v) for k, v in STATE.items())
    with pytest.raises(ValueError, match="nothing under the key 'c'"):
        read_weights(tmp_path / "a.pth", key="c")


def test_what_is_refused_says_why(tmp_path):
    path = tmp_path / "a.pth"
    tf.write_zip(path, tf.ordered(w=tf.tensor(function="_rebuild_tensor_v3")), {})
    with pytest.raises(UnsafeFileError, match="float8"):
        read_weights(path)
    tf.save_tree(Namespace(a=1), path)
    with pytest.raises(UnsafeFileError, match=r"argparse.Namespace.*state_dict"):
        read_weights(path)


def test_licence_is_the_files_own(tmp_path):
    save_file(STATE, tmp_path / "a.st", {"license": "CC-BY-NC-4.0"})
    assert open_weights(tmp_path / "a.st").licence == "CC-BY-NC-4.0"
    tf.save_tree({"params": STATE, "license": "MIT"}, tmp_path / "a.pth")
    assert open_weights(tmp_path / "a.pth").licence == "MIT"
    save_file(STATE, tmp_path / "a.st")
    assert open_weights(tmp_path / "a.st").licence is None


def test_numbers_that_are_not_finite_are_named():
    bad = {**STATE, "conv_body.bias": np.full_like(STATE["conv_body.bias"], np.nan)}
    assert "conv_body.bias (6)" in str(import_weights(bad).notes)


def test_a_legacy_file_is_not_held_twice(tmp_path):
    """Of 64 MB beside the wanted tensors nothing comes into memory."""
    big = {f"x{i}": np.zeros(1 << 21, "f") for i in range(8)}
    path = tmp_path / "a.pth"
    tf.save_tree({"params": STATE, "optimizer": big}, path, legacy=True)
    tracemalloc.start()
    try:
        assert read_weights(path).keys() == STATE.keys()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npz"])
def test_from_torch_to_torch_from_torch(tmp_path, shared, suffix):
    """The same config and numbers, whatever the first reading was told."""
    models = {n: import_weights(s, **given) for n, (s, given) in tf.official_states(shared).items()}
    models["rrdb, first"] = import_weights(tf.rrdb_state(), skip="first")
    models["rrdb, last"] = import_weights(STATE, skip="last")
    for name, imported in models.items():
        params, path = imported.params, tmp_path / f"a{suffix}"
        to_torch(params, path)
        again = flowsr_jax.from_torch(path)
        assert again.config == params.config, name
        assert all(map(np.array_equal, jax.tree.leaves(again), jax.tree.leaves(params))), name


@pytest.mark.parametrize("skip", ["last", "first"])
def test_the_skip_is_decided_by_evaluation(skip):
    """Nets that enlarge by repeating pixels with one skip, and not with the other."""
    state = {k: np.zeros_like(v) for k, v in tf.rrdb_state(nb=1, nf=6).items()}
    eye = np.eye(6, 3, dtype="f")
    # The block adds a constant, which one form hands on and the other does not.
    state["RRDB_trunk.0.RDB3.conv5.bias"][:] = 25.0 * 2
    state["conv_first.weight"][:, :, 1, 1] = eye
    state["conv_first.bias"][:] = 0 if skip == "first" else -0.2 * 0.2 * 50
    for name in ("upconv1", "upconv2", "HRconv"):
        state[f"{name}.weight"][:, :, 1, 1] = np.eye(6)
    state["conv_last.weight"][:, :, 1, 1] = eye.T
    imported = import_weights(state)
    assert imported.params.config.skip == skip and "LR-PSNR" in imported.notes[0]
    assert import_weights(state, skip="last").params.config.skip == "last"


# {file of the reference cases: what converting it says}
CASE_FILES = {
    "compiled.pth": "removed the prefix '_orig_mod.' of 72 keys",
    "lightning.ckpt": "took the net 'netG'",
    "np_scalar.pth": "left out 'optimizer', 'epoch', 'best_psnr'",
    "meta.safetensors": "metadata: CC-BY-NC-4.0",
    "fp8.safetensors": "72 tensors hold F8_E4M3",
    "nan.pth": "1 tensors hold NaN or infinite numbers",
    "grey1ch.pth": "takes images of 1 channels",
    "pth_named.safetensors": "parameters: 25,387",
}


def test_the_files_of_others(shared, tmp_path, capsys):
    refused = ("fp8.safetensors", "grey1ch.pth")
    for name, said in CASE_FILES.items():
        given = [str(shared / "cases" / name), str(tmp_path / name), "--skip=first"]
        code = convert.main(given)
        assert code == (2 if name in refused else 0), name
        out = "".join(capsys.readouterr())
        assert said in out, (name, out)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"\x80\x02}q\x00.", "bare pickle"),
    ],
)
def test_what_people_take_for_weights(tmp_path, content, said):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read_weights(tmp_path / "a.pth")
