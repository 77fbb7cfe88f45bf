"""Key lists of the official files, at full size: all used, inferred, and written back.

Run with --runslow for random weights: bit-identical round trips through a file, and the
image of a 40x40 LR.
"""

import resource

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_tools import full_size_weights

import flowsr_jax
from flowsr_jax.diffusion.schedules import BUFFERS, ScheduleConfig, buffers
from flowsr_jax.io.torch_file import read_weights
from flowsr_jax.models.importer import import_weights, state_dict
from flowsr_jax.models.irn.discriminator import DiscriminatorConfig
from flowsr_jax.models.irn.weights import (
    discriminator_from_torch,
    discriminator_rules,
    vgg_from_torch,
)

HAAR = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], "f")
# {list: (tensors, numbers, family, fields that are read off)}; "a + b" is one model in two files.
FULL = {
    "RRDB_DF2K_4X": (702, 16_697_987, "rrdb", {"scale": 4, "nb": 23, "nf": 64, "gc": 32}),
    "RRDB_DF2K_8X": (704, 16_734_915, "rrdb", {"scale": 8, "nb": 23}),
    "RRDB_CelebA_8X": (704, 16_734_915, "rrdb", {"scale": 8, "nb": 23}),
    "SRFlow_DF2K_4X": (
        1733,
        39_541_811,
        "srflow",
        {"scale": 4, "steps": (16,) * 3, "stacked_blocks": (1, 8, 15, 22), "encoder.nb": 23},
    ),
    "SRFlow_DF2K_8X": (
        2080,
        50_821_891,
        "srflow",
        {"scale": 8, "steps": (16,) * 4, "stacked_blocks": (1, 3, 5, 7), "encoder.nb": 23},
    ),
    "SRFlow_CelebA_8X": (
        1630,
        40_030_531,
        "srflow",
        {"scale": 8, "steps": (16,) * 4, "stacked_blocks": (1, 3, 5, 7), "encoder.nb": 8},
    ),
    "irn_x2": (241, 1_668_000, "irn", {"scale": 2, "form": "haar", "stages": (8,)}),
    "irn_x3": (361, 3_139_029, "irn", {"scale": 3, "form": "learned", "stages": (12,)}),
    "irn_x4": (482, 4_355_376, "irn", {"scale": 4, "form": "haar", "stages": (8, 8)}),
    "irn_x8": (723, 11_120_256, "irn", {"scale": 8, "form": "haar", "stages": (8, 8, 8)}),
    "irn_color": (241, 1_413_601, "irn", {"scale": 1, "form": "color", "z_scale": 0.0}),
    "irn_x2 + irn_crm_R": (487, 7_463_843, "irn", {"restorer.nf": 64, "restorer.nb": 8}),
    "sr3_16_128": (
        374,
        97_831_491,
        "sr3",
        {"unet.multipliers": (1, 2, 4, 8, 8), "unet.attn_res": (16,), "unet.norm_groups": 32,
         "unet.res_blocks": 2, "unet.cond_channels": 3, "timed": False},
    ),
    "sr3_64_512": (
        241,
        155_358_339,
        "sr3",
        {"unet.multipliers": (1, 2, 4, 8, 16), "unet.attn_res": (), "unet.norm_groups": 16,
         "unet.res_blocks": 1, "unet.image_size": 512, "timed": False},
    ),
    "sr3_uncond_128": (374, 97_829_763, "sr3", {"unet.cond_channels": 0, "unet.channels": 64}),
    "ddpm_16_128": (
        433,
        26_475_619,
        "sr3",
        {"unet.multipliers": (1, 1, 2, 2, 4, 4), "unet.attn_res": (16,), "timed": True},
    ),
    "ddpm_uncond_128": (433, 26_473_891, "sr3", {"unet.cond_channels": 0, "timed": True}),
}  # fmt: skip


def listed(shared, name):
    """{key: shape} in the file's order; several lists are one after another."""
    shapes = {}
    for part in name.split(" + "):
        for line in (shared / f"spec/keys/{part}.txt").read_text().splitlines():
            if not line.startswith("#"):
                key, shape = line.replace("|", " ").split()[:2]
                shapes[key] = () if shape == "scalar" else tuple(map(int, shape.split("x")))
    return shapes


def filled(shapes, fill):
    """A state dict: official constants where the weights must hold them, else `fill`."""
    schedule = buffers(ScheduleConfig())
    state = {}
    for key, shape in shapes.items():
        if key in BUFFERS:
            state[key] = schedule[key]
        elif key.endswith("haar_weights"):
            state[key] = np.tile(HAAR, (shape[0] // 4, 1)).reshape(shape)
        else:
            state[key] = fill(key, shape)
        assert state[key].shape == shape
    return state


def random_state(shared, name):
    """Random weights of a moderate network."""
    if name.startswith(("SRFlow", "RRDB")):
        return full_size_weights((shared / f"spec/keys/{name}.txt").read_text())
    rng = np.random.default_rng(0)

    def fill(key, shape):
        noise = rng.standard_normal(shape, np.float32)
        if key.endswith("num_batches_tracked"):
            return np.int64(3) * np.ones(shape, np.int64)
        if key.endswith("conv_weights"):
            return np.eye(shape[0], dtype="f") + np.float32(0.1) * noise
        if len(shape) < 2:
            scale = np.float32(1 if key.endswith("weight") else 0)
            return scale + np.float32(0.05) * noise
        gain = 0.2 if "conv5" in key else 0.5
        return noise * np.float32(gain / np.sqrt(np.prod(shape[1:])))

    return filled(shapes=listed(shared, name), fill=fill)


def check_inferred(config, name):
    _, _, family, fields = FULL[name]
    assert config.family == family
    for path, want in fields.items():
        value = config
        for part in path.split("."):
            value = getattr(value, part)
        assert value == want, (path, value)
    if family == "sr3":
        assert config.schedule == ScheduleConfig("linear", 2000, 1e-6, 1e-2)


@pytest.mark.parametrize("name", FULL)
def test_full_size_key_lists(shared, name):
    """Every key is used, none is missing, and all come back in place, shape and order."""
    shapes = listed(shared, name)
    assert (len(shapes), sum(int(np.prod(s)) for s in shapes.values())) == FULL[name][:2]
    zeros = filled(shapes, lambda key, shape: np.broadcast_to(np.float32(0), shape))
    imported = import_weights(zeros)
    assert imported.ignored == ()
    check_inferred(imported.params.config, name)
    back = state_dict(imported.params)
    assert {key: a.shape for key, a in back.items()} == shapes
    if " + " not in name:
        assert list(back) == list(shapes)


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_random_weights_of_full_size(tmp_path, shared, name):
    """A random file is read and written bit for bit, and a 40x40 LR is sampled."""
    state = random_state(shared, name)
    params = flowsr_jax.from_torch(state)
    check_inferred(params.config, name)
    path = tmp_path / "out.pth"
    flowsr_jax.to_torch(params, path)
    back = read_weights(path)
    path.unlink()
    assert set(back) == set(state)
    for key, want in state.items():
        if key.endswith("inv_freq"):  # made anew; in the last place it depends on exp
            np.testing.assert_allclose(back[key], 1e4 ** -(np.arange(32) / 32), rtol=1e-6)
        else:
            assert back[key].dtype == want.dtype and back[key].tobytes() == want.tobytes(), key
    del state, back
    config = params.config
    lr = jnp.asarray(np.random.default_rng(1).random((1, 40, 40, 3)), jnp.float32)
    lr = lr[..., :1] if config.family == "irn" and config.scale == 1 else lr
    # Random flows leave the range of float32 at their usual temperature.
    options = {"sr3": {"sampler": "ddim", "steps": 2}, "srflow": {"temperature": 0.3}}
    options = options.get(config.family, {})
    sr = np.asarray(flowsr_jax.sample(params, lr, jax.random.key(0), **options))
    assert sr.shape == (1, 40 * config.scale, 40 * config.scale, 3)
    assert np.isfinite(sr).all() and sr.std() > 1e-3
    if config.family == "irn":
        down = flowsr_jax.downscale(params, jnp.clip(sr, 0, 1))
        assert down.shape == lr.shape and down.dtype == jnp.uint8
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\n{name}: identical; {sr.shape}, std {sr.std():.3f}; peak so far {peak:.1f} GiB")


def flat(tree, path=()):
    """(path, leaf) of a nested dict."""
    for name, value in tree.items():
        yield from (
            flat(value, (*path, name)) if isinstance(value, dict) else [((*path, name), value)]
        )


def test_networks_that_only_judge(shared):
    """The discriminator and the VGG19 of IRN+: no models of their own, read all the same."""
    shapes = listed(shared, "irn_plus_D")
    state = random_state(shared, "irn_plus_D")
    assert (len(shapes), sum(a.size for a in state.values())) == (60, 14_505_170)
    judge, statistics = discriminator_from_torch(state)
    leaves = dict(flat({"discriminator": judge, "statistics": statistics}))
    rules = discriminator_rules(DiscriminatorConfig())
    back = {k: a for rule in rules for k, a in rule.write(leaves.pop(rule.path)).items()}
    assert not leaves
    counters = {key for key in state if key.endswith("num_batches_tracked")}
    assert set(back) == set(state) - counters
    for key, array in back.items():
        np.testing.assert_array_equal(array, state[key], err_msg=key)
    vgg = random_state(shared, "irn_plus_vgg19_features")
    features = dict(flat(vgg_from_torch(vgg)))
    assert len(vgg) == 34 and sum(a.size for a in vgg.values()) == 20_024_390
    for index in {key.split(".")[1] for key in vgg if key.startswith("features.")}:
        want = vgg[f"features.{index}.weight"].transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(features.pop((f"conv{index}", "w")), want)
        want = vgg[f"features.{index}.bias"]
        np.testing.assert_array_equal(features.pop((f"conv{index}", "b")), want)
    assert not features
