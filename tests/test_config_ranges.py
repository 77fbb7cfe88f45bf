"""Every number of every configuration record has a range, and the range is kept."""

from __future__ import annotations

import dataclasses
import math
import types
import typing

import numpy as np
import pytest

from flowsr_jax.config import ConfigError, from_dict
from flowsr_jax.models.base import families, get_family
from flowsr_jax.models.irn.compression import RestorerConfig
from flowsr_jax.models.irn.discriminator import DiscriminatorConfig
from flowsr_jax.nets.choice import NetworkConfig
from flowsr_jax.train.config import Config, GroupConfig, PhaseConfig, TrainConfig

BAD = (-1, 0, 10**30, math.inf, -math.inf, math.nan)
# What else there is to refuse is less than the ranges of types say: fields checked by hand.
BY_HAND = {
    "GroupConfig.from_step", "GroupConfig.milestones", "GroupConfig.period",
    "TrainConfig.mesh_data", "DataConfig.channels", "DataConfig.angles", "RRDBConfig.scale",
    "IRNConfig.scale",
}  # fmt: skip
# Values of BAD that mean something.
ALLOWED = {
    0: {
        "GroupConfig.lr", "GroupConfig.from_step", "GroupConfig.betas", "GroupConfig.weight_decay",
        "GroupConfig.clip_norm", "GroupConfig.milestones", "GroupConfig.final_lr",
        "GroupConfig.warmup_steps", "TrainConfig.ema_decay", "TrainConfig.clip_norm",
        "TrainConfig.valid_every", "TrainConfig.valid_images", "TrainConfig.valid_crop",
        "TrainConfig.sheet_images", "Config.seed", "DataConfig.lr_blur", "DataConfig.angles",
        "DataConfig.shift", "DataConfig.workers", "DataConfig.cache_mib",
        "GlowConfig.classes", "GlowConfig.class_weight", "GlowConfig.temperature",
        "IRNConfig.temperature", "NICEConfig.layers", "NICEConfig.temperature",
        "RealNVPConfig.low", "RealNVPConfig.width", "RealNVPConfig.temperature",
        "SRFlowConfig.steps", "SRFlowConfig.transition_steps", "SRFlowConfig.stacked_blocks",
        "SRFlowConfig.affine_eps", "SRFlowConfig.temperature", "SRFlowConfig.told_noise",
        "SRFlowConfig.draw_noise", "SR3Config.classes", "SR3Config.residual",
        "UNetConfig.cond_channels",
        "UNetConfig.head_channels", "UNetConfig.dropout", "SamplerConfig.eta",
        "SamplerConfig.corrector_steps", "SamplerConfig.snr", "ScheduleConfig.offset",
        "DegradationConfig.blur_sigma", "DegradationConfig.noise_sigma",
        "DegradationConfig.noise_gray", "SecondOrderConfig.final_sinc_probability",
        "StageConfig.noise_sigma", "StageConfig.poisson_scale", "StageConfig.blur_probability",
        "StageConfig.sinc_probability", "StageConfig.gaussian_probability",
        "StageConfig.gray_probability",
    },
    -1: {"TrainConfig.mesh_data"},
    10**30: {
        # Numbers without an upper end, where a large one is slow at worst, and positions.
        "GroupConfig.lr", "GroupConfig.from_step", "GroupConfig.eps", "GroupConfig.weight_decay",
        "GroupConfig.clip_norm", "GroupConfig.milestones", "GroupConfig.factor",
        "GroupConfig.period", "GroupConfig.final_lr", "TrainConfig.clip_norm",
        "GlowConfig.class_weight", "GlowConfig.temperature", "IRNConfig.clamp",
        "IRNConfig.temperature", "NICEConfig.temperature", "RealNVPConfig.temperature",
        "SRFlowConfig.affine_eps", "SRFlowConfig.scale_clamp", "SRFlowConfig.temperature",
        "SR3Config.residual", "SamplerConfig.snr", "SamplerConfig.step_size",
        "ScheduleConfig.offset", "TrainConfig.mesh_data",
    },
}  # fmt: skip


def _group(**fields):
    return GroupConfig(name="*", lr=1.0, **fields)


def _phase(**fields):
    return PhaseConfig(**{"name": "p", "loss": "nll", "steps": 9, "groups": (_group(),), **fields})


EXAMPLES = {GroupConfig: _group(), PhaseConfig: _phase()}
EXAMPLES[TrainConfig] = TrainConfig(batch_size=4, phases=(_phase(),))


def _records(cls) -> set[type]:
    """The record classes reachable from a record's fields."""
    found = {cls}
    for hint in typing.get_type_hints(cls).values():
        for one in (hint, *typing.get_args(hint)):
            if isinstance(one, type) and dataclasses.is_dataclass(one):
                found |= _records(one)
    return found


RECORDS = sorted(
    ({r for f in families() if f not in ("tiny", "fake")
      for r in _records(get_family(f).config_class)}
     | _records(Config) | {RestorerConfig, DiscriminatorConfig})
    - {NetworkConfig},  # has no number of its own, and no default
    key=lambda cls: cls.__name__,
)  # fmt: skip


def _numbers(hint):
    """Yield (int or float, whether in a tuple, its Range or None) of a field's type."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        yield args[0], False, args[1]
    elif hint in (int, float):
        yield hint, False, None
    elif origin in (typing.Union, types.UnionType):
        for one in args:
            yield from _numbers(one)
    elif origin is tuple:
        yield from ((kind, True, allowed) for kind, _, allowed in _numbers(args[0]))


def _fields():
    for cls in RECORDS:
        hints = typing.get_type_hints(cls, include_extras=True)
        for field in dataclasses.fields(cls):
            for kind, many, allowed in _numbers(hints[field.name]):
                yield cls, field.name, kind, many, allowed


def _example(cls):
    if cls is Config:
        model = get_family("nice").config_class()
        data = from_dict(typing.get_type_hints(Config)["data"], {})
        return Config(model=model, data=data, train=EXAMPLES[TrainConfig])
    return EXAMPLES[cls] if cls in EXAMPLES else cls()


def test_the_walk_meets_all_kinds_of_records():
    names = {cls.__name__ for cls in RECORDS}
    assert {"Config", "DataConfig", "GroupConfig", "StageConfig", "UNetConfig", "ScheduleConfig",
            "RestorerConfig", "SRFlowConfig", "Compute"} <= names  # fmt: skip
    assert len(list(_fields())) > 100


@pytest.mark.parametrize("cls", RECORDS, ids=lambda cls: cls.__name__)
def test_a_number_that_nobody_can_want_is_refused(cls):
    example, wrong = _example(cls), []
    for owner, name, kind, many, allowed in _fields():
        if owner is not cls:
            continue
        title = f"{cls.__name__.replace('Second', '') if name in STAGE else cls.__name__}.{name}"
        if cls.__module__ != "flowsr_jax.data.degradations.config" and allowed is None:
            assert title in BY_HAND, f"{title} has no range"
        for value in BAD:
            if kind is int and isinstance(value, float):
                continue  # `from_dict` takes no float for an int
            old = getattr(example, name)
            planted = (value, *(old or ())[1:]) if many else value
            if many and value == 0 and name in ("lr_blur", "blur_sigma", "noise_sigma"):
                planted = (0.0, 0.0) if cls.__name__ != "StageConfig" else (0.0, 1.0)
            try:
                dataclasses.replace(example, **{name: planted})
            except ConfigError as error:
                assert name in str(error), error
                refused = True
            except Exception as error:
                wrong.append(f"{title} = {planted}: {type(error).__name__}: {error}")
                continue
            else:
                refused = False
            if refused == (title in ALLOWED.get(value, ())):
                wrong.append(f"{title} = {planted} is {'refused' if refused else 'taken'}")
    assert not wrong, "\n".join(wrong)


STAGE = {f.name for c in RECORDS if c.__name__ == "StageConfig" for f in dataclasses.fields(c)}


def test_arrays_scalars_and_other_types():
    assert from_dict(RestorerConfig, {"nf": 8}) == RestorerConfig(nf=8)
    RestorerConfig(nf=np.int64(8))
    for value in ("8", True, None, 8.0, [8]):
        with pytest.raises(ConfigError, match="nf = .* must be an integer, at least 1"):
            RestorerConfig(nf=value)
    with pytest.raises(ConfigError, match="lr = inf must be finite"):
        GroupConfig(name="a", lr=math.inf)
    with pytest.raises(ConfigError, match=r"lr = nan must be at least 0"):
        GroupConfig(name="a", lr=math.nan)
    with pytest.raises(ConfigError, match=r"betas = 1\.0 must be in \[0, 1\)"):
        _group(betas=(0.9, 1.0))
    with pytest.raises(ConfigError, match="eps = 0 must be above 0"):
        _group(eps=0)


def test_a_schedule_fits_its_phase():
    with pytest.raises(ConfigError, match=r"milestones = \(5, 2\) must be increasing"):
        _phase(groups=(_group(milestones=(5, 2)),))
    late = dataclasses.replace(_group(from_step=9), name="late")
    with pytest.raises(ConfigError, match="'late': from_step = 9 must be before the end.* 9 steps"):
        _phase(groups=(_group(), late))
