"""Official SR3 and DDPM state dicts; keys in docs/papers/sr3.md section 2.

Weights do not tell norm_groups, image_size, dropout and scale: for the published
configurations they are known, for others they can be given to `from_torch`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from flowsr_jax.config import ConfigError, nearest
from flowsr_jax.diffusion import schedules
from flowsr_jax.diffusion.schedules import ScheduleConfig
from flowsr_jax.models.importer import Importer, MisfitError, make_config, shape_of
from flowsr_jax.models.rules import Rule, conv_rules
from flowsr_jax.models.sr3.config import SR3Config
from flowsr_jax.nets.unet import UNetConfig, plan

ROOT = "denoise_fn"
MLP = {"level": "noise_level_mlp", "time": "time_mlp"}
BLOCK_LEVEL = {"level": "noise_func.noise_func.0", "time": "mlp.1"}
OURS = ("classes", "augmented", "holes", "residual", "head_channels")  # 0 in public files
# (multipliers, res_blocks) of the published files: what their weights do not tell.
PUBLISHED = {
    ((1, 2, 4, 8, 8), 2): {"image_size": 128, "norm_groups": 32, "dropout": 0.2},
    ((1, 2, 4, 8, 16), 1): {"image_size": 512, "norm_groups": 16, "dropout": 0.0},
    ((1, 1, 2, 2, 4, 4), 2): {"image_size": 128, "norm_groups": 32, "dropout": 0.2},
}


def _pair(key: str, path: tuple[str, ...], first: str, kind: str) -> list[Rule]:
    return [
        Rule((f"{key}.weight",), (*path, first), kind),
        Rule((f"{key}.bias",), (*path, "bias" if first == "scale" else "b"), "vector"),
    ]


def _norm(key: str, path: tuple[str, ...]) -> list[Rule]:
    return _pair(key, path, "scale", "vector")


def _linear(key: str, path: tuple[str, ...]) -> list[Rule]:
    return _pair(key, path, "w", "linear")


def sr3_rules(config: SR3Config) -> list[Rule]:
    """Return all rules of a checkpoint's network, in the file's order (no buffers).

    Raises:
      ConfigError: a network without an official form.
    """
    unet = config.unet
    ours = {
        f"block = {unet.block!r}": unet.block != "ddpm",
        "mid_attention = False": not unet.mid_attention,
        **{name: getattr(config, name, 0) or getattr(unet, name, 0) for name in OURS},
    }
    if any(ours.values()):
        names = ", ".join(name for name, used in ours.items() if used)
        raise ConfigError(f"this SR3 has no official form, because of {names}")
    mlp = f"{ROOT}.{MLP[unet.conditioning]}"
    rules = [
        *_linear(f"{mlp}.1", ("unet", "level_mlp", "linear1")),
        *_linear(f"{mlp}.3", ("unet", "level_mlp", "linear2")),
    ]
    for name, layer in plan(unet).items():
        key, path = f"{ROOT}.{name}", ("unet", name)
        if layer.kind == "conv":
            rules += conv_rules(key, path)
        elif layer.kind in ("down", "up"):
            rules += conv_rules(f"{key}.conv", path)
        elif layer.kind == "final":
            rules += _norm(f"{key}.block.0", (*path, "norm"))
            rules += conv_rules(f"{key}.block.3", (*path, "conv"))
        else:
            block = f"{key}.res_block"
            rules += _linear(f"{block}.{BLOCK_LEVEL[unet.conditioning]}", (*path, "level"))
            for half in ("1", "2"):
                rules += _norm(f"{block}.block{half}.block.0", (*path, f"norm{half}"))
                rules += conv_rules(f"{block}.block{half}.block.3", (*path, f"conv{half}"))
            if layer.ci != layer.co:
                rules += conv_rules(f"{block}.res_conv", (*path, "skip"))
            if layer.attention:
                rules += _norm(f"{key}.attn.norm", (*path, "attn", "norm"))
                rules += conv_rules(f"{key}.attn.qkv", (*path, "attn", "qkv"), bias=False)
                rules += conv_rules(f"{key}.attn.out", (*path, "attn", "out"))
    return rules


def _infer_unet(weights: Mapping[str, Any], overrides: Mapping[str, Any]) -> UNetConfig:
    channels, inputs = shape_of(weights, f"{ROOT}.downs.0.weight")[:2]
    out = shape_of(weights, f"{ROOT}.final_conv.block.3.weight")[0]
    timed = f"{ROOT}.{MLP['time']}.1.weight" in weights
    suffix = f"res_block.{BLOCK_LEVEL['time' if timed else 'level']}.weight"
    found = (re.match(rf"{ROOT}\.downs\.(\d{{1,4}})\.", key) for key in weights)
    widths, blocks, attention, level = [], [], [], 0
    for k in range(1, 1 + max(int(m[1]) for m in found if m)):
        key = f"{ROOT}.downs.{k}"
        if f"{key}.conv.weight" in weights:
            level += 1
            continue
        if len(widths) <= level:
            widths.append(shape_of(weights, f"{key}.res_block.block2.block.3.weight")[0])
            blocks.append(0)
            attention.append(f"{key}.attn.qkv.weight" in weights)
        blocks[-1] += 1
    if len(set(blocks)) != 1 or len(widths) != level + 1 or any(w % channels for w in widths):
        raise MisfitError(
            f"its levels have {blocks} residual blocks of widths {widths}; every level must have "
            f"as many, and a width that is a multiple of {channels}"
        )
    multipliers = tuple(w // channels for w in widths)
    known = PUBLISHED.get((multipliers, blocks[0]), {})
    values = {"image_size": 128, "norm_groups": 32, "dropout": 0.0, **known, **overrides}
    size = values["image_size"]
    if "attn_res" not in overrides and isinstance(size, int):
        values["attn_res"] = tuple(size // 2**i for i, found in enumerate(attention) if found)
    values = {
        "image_channels": out,
        "cond_channels": inputs - out,
        "channels": channels,
        "multipliers": multipliers,
        "res_blocks": blocks[0],
        "conditioning": "time" if timed else "level",
        "affine": shape_of(weights, f"{ROOT}.mid.0.{suffix}", rank=2)[0] == 2 * widths[-1],
        **values,
    }
    try:
        return make_config(UNetConfig, values, overrides)
    except ConfigError as error:
        if "norm_groups" in overrides:
            raise
        raise ConfigError(f"{error}; weights do not tell it: pass norm_groups=") from None


def infer_schedule(weights: Mapping[str, Any]) -> ScheduleConfig:
    """Return the schedule of a checkpoint's `betas`; the public default where there are none.

    Raises:
      MisfitError: no list of numbers, or other buffers of another length.
      ConfigError: numbers that are no schedule.
    """
    if "betas" not in weights:
        return ScheduleConfig()
    shape = shape_of(weights, "betas", rank=1)
    for name in schedules.BUFFERS:
        if name in weights and np.shape(weights[name]) != shape:
            raise MisfitError(f"{name} has the shape {np.shape(weights[name])}, betas {shape}")
    stored = np.asarray(weights["betas"])
    # The shortest decimals that round to float32 numbers are those that were written.
    stored = [float(str(x)) if stored.dtype == np.float32 else float(x) for x in stored]
    ends = {"start": stored[0], "end": stored[-1]}
    for name in ("linear", "quad", "cosine", "warmup10", "warmup50", "const", "jsd"):
        ignored = name in ("cosine", "jsd")
        try:
            schedule = ScheduleConfig(name, len(stored), **({} if ignored else ends))  # ty: ignore[invalid-argument-type]
        except ConfigError:
            continue
        if np.allclose(schedules.betas(schedule), stored, rtol=1e-6, atol=0):
            return schedule
    return ScheduleConfig("given", len(stored), betas=tuple(stored))


def infer_sr3(
    weights: Mapping[str, Any], betas: np.ndarray | None = None, **overrides: Any
) -> SR3Config:
    """Return the hyper-parameters from keys and shapes; `overrides` win.

    Args:
      weights: the network's tensors, with or without the schedule's buffers.
      betas: noise variances of the steps, in place of the file's (or give schedule=).
      **overrides: fields of SR3Config or of its UNetConfig, e.g. scale=4, norm_groups=16.

    Raises:
      MisfitError: keys or shapes that say nothing, or another architecture.
      ConfigError: an override that is not accepted, or norm_groups that must be given.
    """
    outer = {f.name for f in dataclasses.fields(SR3Config)} - {"unet"}
    inner = {f.name for f in dataclasses.fields(UNetConfig)}
    for name in overrides:
        if name not in outer | inner:
            close = nearest(name, {*outer, *inner, "betas"})
            raise ConfigError(f"from_torch: unknown option {name!r}{close}")
    if isinstance(overrides.get("attn_res"), int):
        overrides["attn_res"] = (overrides["attn_res"],)
    unet = _infer_unet(weights, {k: v for k, v in overrides.items() if k in inner})
    if betas is not None and "schedule" in overrides:
        raise ConfigError("from_torch: give betas or schedule, not both")
    given = weights if betas is None else {"betas": _numbers(betas)}
    values = {"unet": unet}
    if "schedule" not in overrides:
        values["schedule"] = infer_schedule(given)
    return make_config(SR3Config, values, {k: v for k, v in overrides.items() if k in outer})


def _numbers(betas: np.ndarray) -> np.ndarray:
    try:
        values = np.asarray(betas, np.float64)
    except (TypeError, ValueError):
        values = np.zeros(0)
    if values.ndim != 1 or not values.size:
        raise ConfigError(f"from_torch: betas must be a sequence of numbers, got {betas!r:.60}")
    return values


def _constants(config: SR3Config) -> dict[str, np.ndarray]:
    """Return the schedule's buffers, and the frequencies of the DDPM variant."""
    found = schedules.buffers(config.schedule)
    if config.timed:
        half = config.unet.channels // 2
        step = np.float32(-np.log(10000.0) / half)
        frequencies = np.exp(np.float64(np.arange(half, dtype=np.float32) * step))
        found[f"{ROOT}.{MLP['time']}.0.inv_freq"] = frequencies.astype(np.float32)
    return found


WEIGHTS = Importer(
    family="sr3",
    infer=infer_sr3,
    rules=sr3_rules,
    recognise=lambda weights: any(f"{ROOT}.{mlp}.1.weight" in weights for mlp in MLP.values()),
    constants=_constants,
    ignore=(r"feature_extractor\..*",),  # of a fork; the network does not use it
    forms={"ddpm": lambda weights: f"{ROOT}.{MLP['time']}.1.weight" in weights},
)
