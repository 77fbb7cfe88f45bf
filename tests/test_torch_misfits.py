"""Official weights that do not fit, and overrides: one line that names family and tensors."""

import numpy as np
import pytest
import torch_files as tf

from flowsr_jax.diffusion.schedules import ScheduleConfig
from flowsr_jax.models.importer import import_weights

pytestmark = pytest.mark.filterwarnings("ignore::flowsr_jax.diffusion.schedules.ScheduleWarning")


@pytest.fixture(scope="module")
def official(shared):
    return tf.official_states(shared)


def test_weights_that_do_not_fit(official):
    x4, options = official["srflow_x4"]

    def refused(state, *names, model=None, **overrides):
        with pytest.raises(ValueError) as info:
            import_weights(state, model, **overrides)
        print(info.value)
        for name in names:
            assert name in str(info.value), info.value

    def without(*keys):
        return {key: value for key, value in x4.items() if key not in keys}

    actnorm = "flowUpsamplerNet.layers.3.actnorm.bias"
    refused(without(actnorm), "'srflow'", f"1 missing (first: {actnorm})", **options)
    refused(without("RRDB.conv_last.weight"), "'srflow'", "RRDB.conv_last.weight", **options)
    many = without(*[key for key in x4 if key.endswith("logs")])
    refused(many, "'srflow'", "missing (first: flowUpsamplerNet", **options)
    refused({**x4, "netD.0.weight": np.zeros(3)}, "1 unknown (first: netD.0.weight)", **options)
    refused({**x4, "\x1b[2J": np.zeros(3)}, "'\\x1b[2J'", **options)
    wrong = {**x4, actnorm: np.zeros((1, 13, 1, 1), np.float32)}
    refused(wrong, "'srflow'", f"{actnorm} is 1x13x1x1 instead of 1x12x1x1", **options)
    flat = {**x4, actnorm: x4[actnorm].reshape(-1)}
    refused(flat, "of another shape (first: flowUpsamplerNet", "12 instead of", **options)
    kernel = "RRDB.RRDB_trunk.1.RDB2.conv3.weight"
    refused({**x4, kernel: x4[kernel][:, :1]}, kernel, "8x1x3x3 instead of 8x32x3x3", **options)
    refused(x4, "stacked_blocks = (1, 8, 15, 22)", "2 stacked RRDB blocks of 3")
    refused(x4, "stacked_blocks", **{"stacked_blocks": (0, 3)})
    refused(x4, "did you mean 'affine_eps'", affine_ep=1e-3, **options)
    refused(x4, "from_torch.hidden must be int", hidden="many", **options)
    assert "took the net 'RRDB'" in import_weights(x4, "rrdb", skip="last").notes[0]
    refused(tf.rrdb_state(), "'srflow'", "RRDB.conv_first.weight is missing", model="srflow")
    refused({"a": np.zeros(3)}, "no known family (first keys: a)")
    holes = {k.replace("RRDB_trunk.1.", "RRDB_trunk.7."): v for k, v in tf.rrdb_state().items()}
    refused(holes, "'rrdb'", "RRDB 1 is missing")
    unshuffled = tf.rrdb_state("basicsr")
    unshuffled["conv_first.weight"] = np.zeros((6, 12, 3, 3), np.float32)
    refused(unshuffled, "12 input channels", model="rrdb")
    counters = {**x4, "netD.1.num_batches_tracked": np.int64(3)}
    assert import_weights(counters, **options).ignored == ("netD.1.num_batches_tracked",)


def test_other_families_that_do_not_fit(official):
    """One line that names the family and the first tensors, for SR3 and IRN too."""

    def refused(name, *texts, drop=(), change=(), model=None, **overrides):
        state, options = official[name]
        state = {k: v for k, v in state.items() if k not in drop} | dict(change)
        with pytest.raises(ValueError) as info:
            import_weights(state, model, **{**options, **overrides})
        print(info.value)
        for text in texts:
            assert text in str(info.value), info.value

    conv = "denoise_fn.mid.0.res_block.block1.block.3.weight"
    refused("sr3", "'sr3'", f"1 missing (first: {conv})", drop=[conv])
    refused(
        "sr3", "1 of another shape", f"{conv} is 2x2 in", change={conv: np.zeros((2, 2))}.items()
    )
    refused("sr3", "1 unknown (first: x.y)", change={"x.y": np.zeros(2)}.items())
    refused("sr3", "betas has the shape 2x2", change={"betas": np.zeros((2, 2))}.items())
    short = {"posterior_variance": np.zeros(3, "f")}
    refused("sr3", "'sr3'", "posterior_variance", change=short.items())
    refused("sr3", "betas = nan must be in", change={"betas": np.full(100, np.nan, "f")}.items())
    refused("sr3", "must be a sequence of numbers", betas="linear")
    refused("sr3", "betas or schedule, not both", betas=[0.1], schedule=ScheduleConfig())
    refused("sr3", "norm_groups = 7 must divide", norm_groups=7)
    refused("sr3", "'sr3'", "missing (first: denoise_fn.downs.1.attn", attn_res=32)
    refused("sr3", "did you mean 'betas'", beta=[0.1])
    refused("sr3", "do not fit 'ddpm', a form of family 'sr3'", model="ddpm")
    refused("sr3", "did you mean 'ddpm'", model="ddmp")
    refused("sr3", "'nice' has no importer", "irn, rrdb, sr3, srflow have", model="nice")
    refused("sr3", "'irn'", "operations.0 must be a down-sampling", model="irn", norm_groups=None)
    block = "operations.1.G.conv2.weight"
    refused("irn_x4", "'irn'", f"1 missing (first: {block})", drop=[block])
    refused("irn_x4", "'irn'", "1 of another shape", change={block: np.zeros((8, 1, 3, 3))}.items())
    refused("irn_x4", "'irn'", "1 unknown (first: netD.w)", change={"netD.w": np.zeros(2)}.items())
    refused("irn_x4", "down_first = True does not fit", down_first=True)
    refused("irn_x4", "down_first = 1.5 is not one of None, False, True", down_first=1.5)
    refused("irn_x4", "did you mean 'blocks'", block=3)


def test_overrides_reach_the_config(official):
    """Each override that weights do not determine."""

    def config(name, **overrides):
        state, options = official[name]
        return import_weights(state, **{**options, **overrides}).params.config

    flow = config("srflow_x4", stacked_blocks=(1, 2), affine_eps=1e-3)
    assert flow.stacked_blocks == (1, 2) and flow.affine_eps == 1e-3
    inferred = config("sr3")
    assert inferred.unet.attn_res == (8,) and inferred.schedule.steps == 100
    assert config("sr3", attn_res=8).unet == inferred.unet
    other = config("sr3", image_size=64, norm_groups=4, scale=2).unet
    assert (other.image_size, other.attn_res, other.norm_groups) == (64, (16,), 4)
    linear = np.linspace(1e-4, 0.05, 30)
    assert config("sr3", betas=linear).schedule == ScheduleConfig("linear", 30, 1e-4, 0.05)
    given = config("sr3", betas=[0.1, 0.5, 0.25]).schedule
    assert given == ScheduleConfig("given", 3, betas=(0.1, 0.5, 0.25))
    quad = {"name": "quad", "steps": 9, "start": 0.01, "end": 0.5}
    assert config("sr3", schedule=quad).schedule == ScheduleConfig("quad", 9, 0.01, 0.5)
    for name, value in (("irn_x4", False), ("irn_x3", True), ("irn_x3", None)):
        assert config(name, down_first=value) == config(name)
    state, options = official["ddpm"]
    named = import_weights(state, "ddpm", **options).params.config
    assert named == config("ddpm") and named.unet.conditioning == "time"
    fork = {**official["sr3"][0], "feature_extractor.conv.weight": np.zeros(3)}
    assert import_weights(fork, **tf.UNET).ignored == ("feature_extractor.conv.weight",)
