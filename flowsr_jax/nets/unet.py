"""The denoising U-Net of DDPM and SR3.

Block style "ddpm" is the public implementation's, with its keys and numbers.  Style
"biggan" is an interpretation of the SR3 paper, which names BigGAN residual blocks and
skips scaled by 1/sqrt 2 but gives no finer detail: up- and downsampling happen inside a
residual block, on both branches, as in the code of score SDE (Song et al., 2021), and
every residual sum, attention's too, is divided by sqrt 2.
Source: docs/papers/sr3.md section 1; Saharia et al. (2021); Ho et al. (2020).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from flowsr_jax.config import ConfigError, Decay, Depth, Width, WidthOr0, check_ranges, choice
from flowsr_jax.nets.conv import PLAIN, Compute
from flowsr_jax.nets.embedding import LevelEmbedding
from flowsr_jax.nets.orthogonal import orthogonal
from flowsr_jax.nets.unet_blocks import DownConv, FinalConv, FirstConv, Layer, ResidualBlock
from flowsr_jax.nets.upsampled import NearestConv
from flowsr_jax.types import Array, PyTree

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

    def __post_init__(self) -> None:
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


def is_block(layer: Layer, config: UNetConfig) -> bool:
    """Return whether the layer is a residual block ("biggan": resampling layers are too)."""
    return layer.kind == "block" or (config.block == "biggan" and layer.kind in ("down", "up"))


class UNet(nn.Module):
    """The network: a noisy image and its noise level to a prediction.

    Parameters {"level_mlp", "downs.0", ..., "final_conv"}; `capture_intermediates=True` gives
    the outputs of all layers by these names.

    Attributes:
      config: hyper-parameters.
    """

    config: UNetConfig

    def setup(self) -> None:
        c, compute = self.config, self.config.compute
        block = nn.remat(ResidualBlock) if compute.memory == "remat" else ResidualBlock
        self.level_mlp = LevelEmbedding(c.channels)
        layers: dict[str, Any] = {}
        for name, layer in plan(c).items():
            if name == "downs.0":
                first = (layer.co, c.cond_channels, c.image_channels, compute)
                layers[name] = FirstConv(*first, name=name)
            elif layer.kind == "final":
                layers[name] = FinalConv(layer.co, c, name=name)
            elif is_block(layer, c):
                layers[name] = block(layer, c, name=name)
            else:
                kind = DownConv if layer.kind == "down" else NearestConv
                layers[name] = kind(layer.co, kernel_init=orthogonal, compute=compute, name=name)
        self.layers = layers

    def prepare(self, condition: Array) -> Array | None:
        """Return the condition's share of the first convolution, [B,H,W,D], or None without one.

        condition: [B,H,W,cond_channels].  It does not depend on the noisy image: compute it
        once per chain.
        """
        return self.layers["downs.0"].prepare(condition) if self.config.cond_channels else None

    def __call__(
        self,
        x: Array,
        level: Array,
        condition: Array | None = None,
        *,
        prepared: PyTree = None,
        key: Array | None = None,
        embedding: Array | None = None,
    ) -> Array:  # ty: ignore[invalid-implicit-return]
        """Evaluate the network.

        Args:
          x: noisy image [B,H,W,image_channels], in [-1,1] scale; H and W are multiples of
            `config.multiple`.
          level: sqrt(gamma) or timestep, [B] (or [1] for all).
          condition: [B,H,W,cond_channels] in [-1,1], or
          prepared: what `prepare` made of it.
          key: of dropout; None evaluates without.
          embedding: [B,D] added to the level embedding (classes, augmentation levels).

        Returns:
          [B,H,W,image_channels] float32.
        """
        c, dtype = self.config, self.config.compute.operands
        chex.assert_shape(x, (None, None, None, c.image_channels))
        e = self.level_mlp(level)
        e = e if embedding is None else e + embedding
        if c.conditioning == "time" or c.block == "biggan":
            e = jax.nn.silu(e)
        skips, h = [], None
        for index, (name, layer) in enumerate(plan(c).items()):
            evaluate = self.layers[name]
            if name == "downs.0":
                h = evaluate(x, condition, prepared)
            elif layer.kind == "final":
                return evaluate(h)
            elif is_block(layer, c):
                if name.startswith("ups") and layer.kind == "block":
                    h = jnp.concatenate([h, skips.pop()], axis=-1)  # ty: ignore[invalid-argument-type]
                h = evaluate(h, e, None if key is None else jax.random.fold_in(key, index))
            else:
                h = evaluate(h)
            h = h.astype(dtype)
            if name.startswith("downs"):
                skips.append(h)


def init_unet(key: Array, config: UNetConfig) -> PyTree:
    """Return initial parameters of the U-Net, float32."""
    side, d = config.multiple, config.cond_channels
    x = jax.ShapeDtypeStruct((1, side, side, config.image_channels), jnp.float32)
    condition = jax.ShapeDtypeStruct((1, side, side, d), jnp.float32) if d else None
    level = jax.ShapeDtypeStruct((1,), jnp.float32)
    # The form of convolutions does not matter to parameters; the plain one is traced fastest.
    plain = UNet(dataclasses.replace(config, compute=PLAIN))
    return plain.lazy_init(key, x, level, condition)["params"]
