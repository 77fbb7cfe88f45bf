"""IRN's architecture: the invertible network HR image <-> (LR image, z).

Exact numerics: ../shared/spec/irn.md.  Official weights fit the defaults.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from flowsr_jax.bijectors import Chain, Conv1x1, ConvDown, Haar, InvertibleBlock, ScaleForm, Scan
from flowsr_jax.config import ConfigError, choice
from flowsr_jax.models.base import Params
from flowsr_jax.models.irn.crm import RestorerConfig, init_restorer
from flowsr_jax.models.irn.discriminator import DiscriminatorConfig, init_discriminator
from flowsr_jax.models.irn.vgg import init_vgg
from flowsr_jax.nets.conv import Compute
from flowsr_jax.nets.dense_block import DenseBlock

DOWN = ("haar", "haar_first", "learned", "color")
OFFICIAL_BLOCKS = {1: (8,), 2: (8,), 3: (12,), 4: (8, 8), 8: (8, 8, 8)}
# Rows: luminance and two colour differences of RGB.
COLOR_MATRIX = ((0.299, 0.587, 0.114), (-0.147, -0.289, 0.436), (0.615, -0.515, -0.1))


@dataclasses.dataclass(frozen=True)
class IRNConfig:
    """Hyper-parameters of IRN.

    Attributes:
      scale: 2, 3, 4 or 8; 1 is IRN-Color (colour image <-> grey image).
      blocks: invertible blocks after each down-sampling, or a single number for the
        forms that have one stage; None is the official number for the scale.
      down: "haar" (a Haar transform before each stage), "haar_first" (all transforms,
        then one stage), "learned" (one learned matrix per block of pixels), "color"
        (a learned colour transform, scale 1); None is the official one for the scale.
      growth: growth of the dense blocks.
      clamp: bound of the log-scales.
      temperature: standard deviation of z in training and the default of `sample`; None
        is the official one: 1, and 0 for IRN-Color.
      restorer: the net that repairs JPEG artefacts of the LR image (IRN-Compression).
      discriminator: the discriminator of IRN+.
      features: carry the VGG19 whose features IRN+ compares (never trained).
      compute: precision and form of the networks.
    """

    family: ClassVar[str] = "irn"
    scale: int = 4
    blocks: tuple[int, ...] | None = None
    down: str | None = None
    growth: int = 32
    clamp: float = 1.0
    temperature: float | None = None
    restorer: RestorerConfig | None = None
    discriminator: DiscriminatorConfig | None = None
    features: bool = False
    compute: Compute = Compute()

    def __post_init__(self):
        choice("scale", self.scale, tuple(OFFICIAL_BLOCKS))
        allowed = {1: ("color",), 3: ("learned",)}.get(self.scale, DOWN[:3])
        choice(f"down (at scale {self.scale})", self.form, allowed)
        blocks, stages = self.stages, self.scale.bit_length() - 1 if self.form == "haar" else 1
        if len(blocks) != stages or min(blocks) < 1:
            raise ConfigError(
                f"blocks = {self.blocks} must hold {stages} number(s) of at least 1: one per stage "
                f"of scale {self.scale} with down = {self.form!r}"
            )
        if self.growth < 1 or not self.clamp > 0 or self.z_scale < 0:
            raise ConfigError(
                f"growth and clamp must be positive and temperature at least 0, got {self.growth}, "
                f"{self.clamp} and {self.temperature}"
            )

    @property
    def form(self) -> str:
        """`down` with the default filled in."""
        return self.down or {1: "color", 3: "learned"}.get(self.scale, "haar")

    @property
    def stages(self) -> tuple[int, ...]:
        """`blocks` with the default filled in."""
        if self.blocks is not None:
            return self.blocks
        official = OFFICIAL_BLOCKS[self.scale]
        return official if self.form == "haar" else (sum(official),)

    @property
    def channels(self) -> int:
        """Channels of the LR image: 3, or 1 for IRN-Color."""
        return 1 if self.scale == 1 else 3

    @property
    def latent_channels(self) -> int:
        """Channels of z."""
        return 3 * self.scale**2 - self.channels

    @property
    def z_scale(self) -> float:
        """`temperature` with the default filled in."""
        if self.temperature is not None:
            return self.temperature
        return 0.0 if self.scale == 1 else 1.0


def build_flow(config: IRNConfig) -> Chain:
    """The network as a bijector HR image -> [..., LR channels then z]."""
    levels = config.scale.bit_length() - 1
    downs = {
        "haar": [Haar()] * levels,
        "haar_first": [Haar()] * levels,
        "learned": [ConvDown(config.scale)],
        "color": [Conv1x1()],
    }[config.form]
    net = DenseBlock(config.growth, config.compute)
    block = InvertibleBlock(net, config.channels, ScaleForm("sigmoid", config.clamp))
    options = {"unroll": config.compute.unroll, "memory": config.compute.memory}
    stages = [
        (f"blocks{i + 1}", Scan(block, count, **options)) for i, count in enumerate(config.stages)
    ]
    parts: list = []
    for i, down in enumerate(downs):
        parts.append((f"down{i + 1}", down))
        if config.form == "haar":
            parts.append(stages[i])
    return Chain(tuple(parts if config.form == "haar" else parts + stages))


def init(config: IRNConfig, key) -> Params:
    """Random parameters with the released code's initial values.

    At first every block is the identity, so that the LR image is the box mean of HR.
    The VGG19 of `features` is filled with NaN: it has to be taken over from a file.
    """
    keys = jax.random.split(key, 3)
    size = config.scale
    flow = build_flow(config).init(keys[0], (size, size, 3))
    if config.form == "color":
        flow["down1"] = {"weight": jnp.asarray(COLOR_MATRIX, jnp.float32)}
    tree = {"generator": flow}
    if config.restorer is not None:
        tree["restorer"] = init_restorer(keys[1], config.restorer)
    if config.discriminator is not None:
        tree["discriminator"] = init_discriminator(keys[2], config.discriminator)
    if config.features:
        tree["features"] = init_vgg()
    return Params(tree, config)


def forward(params: Params, hr):
    """HR [B,s*h,s*w,3] -> (LR [B,h,w,3], z [B,h,w,3*s*s - 3]), neither rounded nor clipped."""
    y, _ = build_flow(params.config).forward(params["generator"], hr)
    return y[..., : params.config.channels], y[..., params.config.channels :]


def inverse(params: Params, lr, z, prepared=None):
    """(LR, z) -> HR, not clipped; `prepared` is that of `prepare_inverse`."""
    y = jnp.concatenate([lr, z], axis=-1)
    return build_flow(params.config).inverse(params["generator"], y, None, prepared)[0]


def prepare_inverse(params: Params):
    """What all inverse passes share (the inverse of a learned matrix)."""
    return build_flow(params.config).prepare(params["generator"], inverse=True)


def z_shape(config: IRNConfig, lr_shape) -> tuple[int, ...]:
    """Shape of z for an LR batch [B,h,w,C]."""
    return (*lr_shape[:-1], config.latent_channels)


@jax.custom_jvp
def quantize(x):
    """Clip to [0,1] and round to multiples of 1/255 (half to even); the gradient is the identity.

    The gradient passes unchanged where the value was clipped, too (straight-through).
    """
    return jnp.round(jnp.clip(x, 0.0, 1.0) * 255.0) / 255.0


@quantize.defjvp
def _quantize_jvp(primals, tangents):
    return quantize(*primals), tangents[0]
