"""Official weights in and out: every tensor comes back bit for bit, where torch reads it."""

import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch_files as tf

from flowsr_jax.config import ConfigError
from flowsr_jax.diffusion.schedules import BUFFERS
from flowsr_jax.io.torch_file import read_weights
from flowsr_jax.io.torch_write import to_torch, write_state
from flowsr_jax.models.base import get_family
from flowsr_jax.models.importer import import_weights, state_dict
from flowsr_jax.models.rrdb.config import RRDBConfig
from flowsr_jax.models.rules import module_order
from flowsr_jax.models.sr3 import SR3Config
from flowsr_jax.models.srflow.config import SRFlowConfig
from flowsr_jax.nets.unet import UNetConfig

SCHEMES = ("released", "esrgan_old", "basicsr")
SUFFIXES = (".pth", ".pt", ".safetensors", ".npz")
OFFICIAL = ("srflow_x4", "srflow_x8", "rrdb", "rrdb_x8", "sr3", "ddpm", "irn_x3", "irn_x4")
pytestmark = pytest.mark.filterwarnings("ignore::flowsr_jax.diffusion.schedules.ScheduleWarning")
SMALL = SRFlowConfig(
    encoder=RRDBConfig(nf=4, gc=2, nb=2), steps=(1, 1, 1), hidden=4, stacked_blocks=(1,)
)


def assert_same(got, want):
    assert list(got) == list(want)
    for key, array in want.items():
        assert got[key].dtype == array.dtype and got[key].shape == array.shape, key
        assert got[key].tobytes() == array.tobytes(), key


@pytest.fixture(scope="module")
def official(shared):
    return tf.official_states(shared)


@pytest.fixture(scope="module")
def imported(official):
    return {n: import_weights(s, **options).params for n, (s, options) in official.items()}


@pytest.mark.parametrize("name", OFFICIAL)
def test_round_trip(tmp_path, official, imported, name):
    want, options = official[name]
    if name == "ddpm":  # its arrays come without the file's constants
        written = state_dict(imported[name])
        constants = {key: a for key, a in written.items() if key not in want}
        assert len(constants) == len(BUFFERS) + 1 and constants["alphas_cumprod"].shape == (3,)
        want = {key: want.get(key, a) for key, a in written.items()}
    assert_same(state_dict(imported[name]), want)
    for suffix in SUFFIXES:
        path = tmp_path / f"a{suffix}"
        to_torch(imported[name], path)
        back = read_weights(path)
        if suffix == ".safetensors":  # sorts its tensors
            back = {key: back[key] for key in want}
        assert_same(back, want)
    again = import_weights(read_weights(tmp_path / "a.pth"), **options).params
    assert again.config == imported[name].config
    print(f"{name}: {len(want)} tensors identical in {', '.join(SUFFIXES)}")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_naming_schemes_of_rrdb(tmp_path, scheme):
    """ESRGAN's three ways to name one network: read, written, translated."""
    state = tf.rrdb_state(scheme)
    params = import_weights(state, "rrdb", **{"skip": "first"}).params
    assert params.config == RRDBConfig(nf=6, gc=3, nb=2, skip="first")
    to_torch(params, tmp_path / "a.pth", scheme=scheme)
    assert_same(read_weights(tmp_path / "a.pth"), state)
    for other in SCHEMES:
        assert_same(state_dict(params, scheme=other), tf.rrdb_state(other))
    assert get_family("rrdb").weights.recognise(state)


def _esrgan(state, lr):
    """ESRGAN's RRDBNet (one block) on the tensors of the released scheme, plainly."""

    def conv(name, x):
        w, b = state[f"{name}.weight"], state[f"{name}.bias"]
        y = jax.lax.conv(x, jnp.asarray(w), (1, 1), "SAME", precision="highest")
        return y + b[:, None, None]

    def act(x):
        return jnp.maximum(x, 0.2 * x)

    first = y = conv("conv_first", jnp.asarray(lr).transpose(0, 3, 1, 2))
    for j in (1, 2, 3):
        dense = [y]
        for c in range(1, 5):
            dense.append(act(conv(f"RRDB_trunk.0.RDB{j}.conv{c}", jnp.concatenate(dense, 1))))
        y = y + 0.2 * conv(f"RRDB_trunk.0.RDB{j}.conv5", jnp.concatenate(dense, 1))
    x = first + conv("trunk_conv", first + 0.2 * y)
    x = act(conv("upconv1", x.repeat(2, axis=2).repeat(2, axis=3)))
    return conv("conv_last", act(conv("HRconv", x))).transpose(0, 2, 3, 1)


def test_esrgan_files_give_esrgan_pictures():
    lr = np.random.default_rng(1).random((1, 5, 6, 3), np.float32)
    want = jax.jit(lambda x: _esrgan(tf.rrdb_state(nb=1, up=1), x))(lr)
    errors = {}
    for scheme in SCHEMES:
        params = import_weights(tf.rrdb_state(scheme, nb=1, up=1), "rrdb").params
        errors[scheme] = float(np.abs(get_family("rrdb").sample(params, lr) - want).max())
    print(f"largest error of {float(np.abs(want).max()):.2f}: {errors}")
    assert max(errors["esrgan_old"], errors["basicsr"]) < 1e-5
    # SRFlow's encoder adds the last block instead: the same keys, another picture.
    assert errors["released"] > 1e-2


def test_unused_tensors(official, imported):
    """The released code's leftover convolution survives, and is made where it is wanted."""
    name, bias = "flowUpsamplerNet.f.0.weight", "flowUpsamplerNet.f.0.bias"
    want, options = official["srflow_x4"]
    assert np.any(want[name]) and imported["srflow_x4"].config.official_extras
    state = state_dict(imported["srflow_x4"])
    np.testing.assert_array_equal(state[name], want[name])
    bare = {key: value for key, value in want.items() if key not in (name, bias)}
    params = import_weights(bare, **options).params
    assert not params.config.official_extras and "unused" not in params
    made = state_dict(params)
    assert set(made) == set(want) and made[name].shape == want[name].shape
    assert not np.any(made[name])
    dropped = import_weights(want, **options, official_extras=False)
    assert "unused" not in dropped.params


def test_half_precision(tmp_path, imported):
    """Files of half precision become float32 parameters; written back they are the same."""
    for dtype in ("float16", "bfloat16"):
        to_torch(imported["rrdb"], tmp_path / "a.pth", dtype=dtype)
        half = read_weights(tmp_path / "a.pth")
        assert {a.dtype for a in half.values()} == {np.dtype(dtype)}
        params = import_weights(half).params
        assert params["encoder"]["conv_first"]["w"].dtype == np.float32
        to_torch(params, tmp_path / "b.safetensors", dtype=dtype)
        back = read_weights(tmp_path / "b.safetensors")
        assert all(back[k].tobytes() == half[k].tobytes() for k in half)
    with pytest.raises(ConfigError, match="'float16', 'bfloat16'"):
        to_torch(imported["rrdb"], tmp_path / "a.pth", dtype="float64")
    with pytest.raises(ValueError, match="npz has no bfloat16"):
        to_torch(imported["rrdb"], tmp_path / "a.npz", dtype="bfloat16")


def test_arrays_of_every_kind(tmp_path):
    kinds = (np.float64, np.float16, ml_dtypes.bfloat16, np.int64, np.int32, np.int16, np.int8,
             np.uint8, np.bool_)  # fmt: skip
    state = {f"k.{np.dtype(kind).name}": np.array([0, 1, 5]).astype(kind) for kind in kinds}
    state |= {"scalar": np.float32(3), "empty": np.zeros((0, 4), np.float32)}
    state["transposed"] = np.arange(6, dtype=np.float32).reshape(2, 3).T
    state["big-endian"] = np.arange(6, dtype=">i4").reshape(2, 3)
    write_state(state, tmp_path / "a.pth")
    back = read_weights(tmp_path / "a.pth")
    assert list(back) == list(state)
    for key, value in state.items():
        np.testing.assert_array_equal(back[key], value)
        assert back[key].shape == np.shape(value)
    data = (tmp_path / "a.pth").read_bytes()
    write_state(state, tmp_path / "b.pth")
    assert (tmp_path / "b.pth").read_bytes() == data  # no dates, no random names
    with pytest.raises(ValueError, match="uint16 has no storage class"):
        write_state({"a": np.zeros(2, np.uint16)}, tmp_path / "c.pth")
    assert not (tmp_path / "c.pth").exists()


def test_what_has_no_official_form(tmp_path, imported):
    cases = [
        (RRDBConfig(nf=4, gc=2, nb=1, head="subpixel"), "head = 'subpixel'"),
        (RRDBConfig(nf=4, gc=2, nb=1, residual=True), "residual = True"),
        (SRFlowConfig(**{**vars(SMALL), "shift_by_encoder": True}), "because of shift_by_encoder"),
        (SRFlowConfig(**{**vars(SMALL), "scale_form": "tanh"}), "because of scale_form"),
        (SR3Config(unet=UNetConfig(mid_attention=False)), "because of mid_attention = False"),
        (SR3Config(unet=UNetConfig(block="biggan")), "because of block = 'biggan'"),
    ]
    for config, message in cases:
        init = functools.partial(get_family(config.family).init, config)
        params = jax.eval_shape(init, jax.random.key(0))
        with pytest.raises(ConfigError, match=message):
            to_torch(params, tmp_path / "a.pth")
    with pytest.raises(ConfigError, match=r"suffix = '.onnx'.*'.pth'"):
        to_torch(imported["rrdb"], tmp_path / "a.onnx")
    with pytest.raises(ConfigError, match="scheme = 'new'.*'esrgan_old'"):
        to_torch(imported["rrdb"], tmp_path / "a.pth", scheme="new")
    assert not list(tmp_path.iterdir())


def test_key_order_is_that_of_a_module_tree():
    keys = ["b.w", "layers.2.w", "layers.10.w", "a.w", "layers.1.w", "b.v", "a", "b.w.x"]
    assert module_order(keys) == [
        "b.w", "b.w.x", "b.v", "layers.1.w", "layers.2.w", "layers.10.w", "a.w", "a",
    ]  # fmt: skip


def _torch():
    return pytest.importorskip("torch", reason="torch is not installed: its own reader not tried")


@pytest.mark.parametrize("name", OFFICIAL)
def test_torch_load_reads_what_is_written(tmp_path, official, imported, name):
    torch = _torch()
    to_torch(imported[name], tmp_path / "a.pth")
    for mmap in (False, True):
        loaded = torch.load(tmp_path / "a.pth", weights_only=True, mmap=mmap)
        arrays = {key: value.numpy() for key, value in loaded.items()}
        for key, want in official[name][0].items():
            assert_same({key: arrays[key]}, {key: want})
        assert_same(arrays, state_dict(imported[name]))
        assert all(value.is_contiguous() for value in loaded.values())
    for zipped in (True, False):  # and what torch makes of it
        torch.save(loaded, tmp_path / "b.pth", _use_new_zipfile_serialization=zipped)
        assert_same(read_weights(tmp_path / "b.pth"), arrays)
    print(f"{name}: {len(arrays)} tensors, {sum(a.size for a in arrays.values()):,} numbers")


@pytest.mark.parametrize("zipped", [True, False])
def test_files_that_torch_wrote(tmp_path, zipped):
    torch = _torch()
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    state = {
        "whole": base,
        "transposed": base.T,
        "block": base[1:3, 2:5],
        "column": base[:, 3],
        "every second": base[::2, 1::2],
        "expanded": base[:1].expand(3, 6),
        "scalar": base[2, 2],
        "parameter": torch.nn.Parameter(base[0]),
        **{str(d): base.to(d) for d in (torch.float16, torch.bfloat16, torch.int64, torch.uint8)},
        "bool": base > 5,
    }
    options = {"_use_new_zipfile_serialization": zipped}
    torch.save({"params_ema": state, "step": 3}, tmp_path / "a.pth", **options)
    for source in (tmp_path / "a.pth", state):
        out = read_weights(source)
        assert list(out) == list(state)
        for key, value in state.items():
            value = value.detach()
            exact = value.float().numpy() if value.dtype == torch.bfloat16 else value.numpy()
            np.testing.assert_array_equal(np.asarray(out[key], exact.dtype), exact, err_msg=key)
            assert out[key].dtype.name == str(value.dtype).removeprefix("torch.")
