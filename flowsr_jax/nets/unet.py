"""The denoising U-Net of DDPM and SR3: functions of explicit parameters.

Block style "ddpm" is the public implementation's, with its keys and numbers.  Style
"biggan" is an interpretation of the SR3 paper, which names BigGAN residual blocks and
skips scaled by 1/sqrt 2 but gives no finer detail: up- and downsampling happen inside a
residual block, on both branches, as in the code of score SDE (Song et al., 2021), and
every residual sum, attention's too, is divided by sqrt 2.
Source: ../shared/spec/sr3.md sections 1 and 2; Saharia et al. (2021); Ho et al. (2020).
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flowsr_jax.config import ConfigError, Decay, Depth, Width, WidthOr0, check_ranges, choice
from flowsr_jax.nets.attention import group_norm
from flowsr_jax.nets.conv import Compute, conv2d
from flowsr_jax.nets.embedding import level_embedding
from flowsr_jax.nets.orthogonal import orthogonal
from flowsr_jax.nets.unet_blocks import down_conv, residual_block
from flowsr_jax.nets.upsampled import conv_nearest

MOST_LEVELS = 16  # of half the size each


@dataclasses.dataclass(frozen=True)
class UNetConfig:
    """Hyper-parameters of the U-Net; the defaults are the public 16 -> 128 network's.

    Attributes:
      image_channels: of the noisy image and of the output.
      cond_channels: of the condition, which comes first; 0 is unconditional.
      channels: D, the width of the first level and of the level embedding.
      multipliers: width of each level in units of D.
      res_blocks: R, residual blocks per level going down; R + 1 going up.
      attn_res: nominal resolutions with self-attention.
      mid_attention: the middle has it (always, in public files); without any attention
        the cost of a large image is that of its parts.
      head_channels: channels of each attention head; 0 is one head (public files).
      image_size: nominal resolution of the first level; only attn_res refers to it.
      norm_groups: groups of every GroupNorm.
      dropout: inside residual blocks, in training.
      block: "ddpm" (public) or "biggan" (the paper's, an interpretation).
      conditioning: "level": sqrt(gamma); "time": the integer timestep (DDPM variant).
      affine: the level scales and shifts features instead of being added (FiLM).
      init: "orthogonal" (public), or "zero_last": the last convolutions of blocks,
        attentions and of the network start at zero, the others orthogonal.
      compute: precision and form; memory "remat" computes each residual block again in the
        backward pass.
    """

    image_channels: Width = 3
    cond_channels: WidthOr0 = 3
    channels: Width = 64
    multipliers: tuple[Depth, ...] = (1, 2, 4, 8, 8)
    res_blocks: Depth = 2
    attn_res: tuple[Width, ...] = (16,)
    mid_attention: bool = True
    head_channels: WidthOr0 = 0
    image_size: Width = 128
    norm_groups: Width = 32
    dropout: Decay = 0.2
    block: str = "ddpm"
    conditioning: str = "level"
    affine: bool = False
    init: str = "orthogonal"
    compute: Compute = Compute()

    def __post_init__(self):
        check_ranges(self)
        choice("block", self.block, ("ddpm", "biggan"))
        choice("conditioning", self.conditioning, ("level", "time"))
        choice("init", self.init, ("orthogonal", "zero_last"))
        choice("compute.memory (of a U-Net)", self.compute.memory, ("store", "remat"))
        if not 1 <= len(self.multipliers) <= MOST_LEVELS:
            raise ConfigError(
                f"multipliers = {self.multipliers} must be 1 to {MOST_LEVELS} numbers"
            )
        if self.channels % 2:
            raise ConfigError(f"channels = {self.channels} must be even")
        attended = {layer.co for layer in plan(self).values() if layer.attention}
        heads = self.head_channels
        if heads and any(c % heads for c in attended):
            raise ConfigError(
                f"head_channels = {self.head_channels} must be 0 or divide the channels of every "
                f"attention, {sorted(attended)}"
            )
        normed = {layer.ci for layer in plan(self).values() if layer.kind != "conv"}
        normed |= {self.channels * m for m in self.multipliers}
        bad = sorted(n for n in normed if n % self.norm_groups)
        if bad:
            raise ConfigError(
                f"norm_groups = {self.norm_groups} must divide every channel count; not {bad}"
            )

    @property
    def multiple(self) -> int:
        """Image sides must be multiples of it: 2^(levels - 1)."""
        return 2 ** (len(self.multipliers) - 1)


class Layer(NamedTuple):
    """One layer: kind "conv", "block", "down", "up" or "final", channels, attention."""

    kind: str
    ci: int
    co: int
    attention: bool = False


def plan(config: UNetConfig) -> dict[str, Layer]:
    """Return {official name such as "downs.3": layer} in the order of evaluation."""
    d, levels = config.channels, len(config.multipliers)
    sizes = [config.image_size // 2**i for i in range(levels)]
    widths = [d * m for m in config.multipliers]
    c = d
    downs = [Layer("conv", config.image_channels + config.cond_channels, d)]
    for i in range(levels):
        for _ in range(config.res_blocks):
            downs.append(Layer("block", c, widths[i], sizes[i] in config.attn_res))
            c = widths[i]
        if i < levels - 1:
            downs.append(Layer("down", c, c))
    skips = [layer.co for layer in downs]
    mid = [Layer("block", c, c, config.mid_attention), Layer("block", c, c)]
    ups = []
    for i in reversed(range(levels)):
        for _ in range(config.res_blocks + 1):
            ups.append(Layer("block", c + skips.pop(), widths[i], sizes[i] in config.attn_res))
            c = widths[i]
        if i:
            ups.append(Layer("up", c, c))
    named = {
        f"{part}.{k}": layer
        for part, layers in (("downs", downs), ("mid", mid), ("ups", ups))
        for k, layer in enumerate(layers)
    }
    return {**named, "final_conv": Layer("final", c, config.image_channels)}


def init_unet(key, config: UNetConfig):
    """Initial parameters {"level_mlp", "downs.0", ..., "final_conv"}; float32."""
    layers = plan(config)
    # Keys by number (unstacking an array of keys compiles slowly); the first two are the MLP's.
    count = itertools.count(2)
    zero_last = config.init == "zero_last"

    def draw(shape):
        return orthogonal(jax.random.fold_in(key, next(count)), shape)

    def dense(i, o):
        return {"w": draw((i, o)), "b": zeros(o)}

    def conv(size, i, o, zero=False, bias=True):
        shape = (size, size, i, o)
        w = zeros(*shape) if zero else draw(shape)
        return {"w": w, "b": zeros(o)} if bias else {"w": w}

    def norm(c):
        return {"scale": jax.device_put(np.ones(c, np.float32)), "bias": zeros(c)}

    def block(layer):
        ci, co = layer.ci, layer.co
        p = {
            "level": dense(config.channels, 2 * co if config.affine else co),
            "norm1": norm(ci),
            "conv1": conv(3, ci, co),
            "norm2": norm(co),
            "conv2": conv(3, co, co, zero_last),
        }
        if ci != co or layer.kind != "block":
            p["skip"] = conv(1, ci, co)
        if layer.attention:
            p["attn"] = {
                "norm": norm(co),
                "qkv": conv(1, co, 3 * co, bias=False),
                "out": conv(1, co, co, zero_last),
            }
        return p

    d = config.channels
    params = {"level_mlp": init_level_mlp(key, d)}
    for name, layer in layers.items():
        if layer.kind == "final":
            params[name] = {"norm": norm(layer.ci), "conv": conv(3, layer.ci, layer.co, zero_last)}
        elif is_block(layer, config):
            params[name] = block(layer)
        else:
            params[name] = conv(3, layer.ci, layer.co)
    return params


def zeros(*shape):
    """Zeros, float32."""
    return jax.device_put(np.zeros(shape, np.float32))


def init_level_mlp(key, d: int):
    """Initial parameters of `embedding.level_embedding`, as those of the U-Net itself."""
    sizes = {"linear1": (d, 4 * d), "linear2": (4 * d, d)}
    return {
        name: {"w": orthogonal(jax.random.fold_in(key, i), size), "b": zeros(size[1])}
        for i, (name, size) in enumerate(sizes.items())
    }


def is_block(layer: Layer, config: UNetConfig) -> bool:
    """The layer is a residual block (with "biggan" the resampling layers are too)."""
    return layer.kind == "block" or (config.block == "biggan" and layer.kind in ("down", "up"))


def prepare(params, condition, config: UNetConfig):
    """The condition's share of the first convolution, [B,H,W,D]; None without a condition.

    condition: [B,H,W,cond_channels].  It does not depend on the noisy image: compute it
    once per chain.
    """
    if not config.cond_channels:
        return None
    return conv2d(condition, params["downs.0"]["w"][:, :, : config.cond_channels], None,
                  config.compute)  # fmt: skip


def apply_unet(
    params, x, level, config: UNetConfig, condition=None, *, prepared=None, key=None,
    embedding=None, activations: bool = False,
):  # fmt: skip
    """Evaluate the network.

    Args:
      params: of `init_unet`.
      x: noisy image [B,H,W,image_channels], in [-1,1] scale; H and W are multiples of
        `config.multiple`.
      level: sqrt(gamma) or timestep, [B] (or [1] for all).
      condition: [B,H,W,cond_channels] in [-1,1], or
      prepared: what `prepare` made of it.
      key: of dropout; None evaluates without.
      embedding: [B,D] added to the level embedding (classes, augmentation levels).
      activations: also return {name: output of the layer}.

    Returns:
      [B,H,W,image_channels] float32.
    """
    dtype = config.compute.operands
    e = level_embedding(params["level_mlp"], level)
    kept = {"level_embed": e}
    e = e if embedding is None else e + embedding
    if config.conditioning == "time" or config.block == "biggan":
        e = jax.nn.silu(e)
    skips, h = [], None
    for index, (name, layer) in enumerate(plan(config).items()):
        p = params[name]
        if name == "downs.0":
            h = _first(p, x, condition, prepared, config)
        elif layer.kind == "final":
            h = conv2d(jax.nn.silu(group_norm(p["norm"], h, config.norm_groups)), **_wb(p["conv"]),
                       compute=config.compute)  # fmt: skip
            break
        elif is_block(layer, config):
            if name.startswith("ups") and layer.kind == "block":
                h = jnp.concatenate([h, skips.pop()], axis=-1)
            block_key = None if key is None else jax.random.fold_in(key, index)
            h = residual_block(layer, config)(p, h, e, block_key)
        elif layer.kind == "down":
            h = down_conv(h, p["w"], config.compute) + p["b"]
        else:
            h = conv_nearest(h, p["w"], 2, config.compute) + p["b"]
        h = h.astype(dtype)
        kept[name] = h
        if name.startswith("downs"):
            skips.append(h)
    return (h, kept) if activations else h


def _wb(p):
    return {"kernel": p["w"], "bias": p["b"]}


def _first(p, x, condition, prepared, config):
    if prepared is not None:
        w = p["w"][:, :, config.cond_channels :]
        return conv2d(x, w, p["b"], config.compute) + prepared
    if config.cond_channels:
        x = jnp.concatenate([condition, x], axis=-1)
    return conv2d(x, p["w"], p["b"], config.compute)
