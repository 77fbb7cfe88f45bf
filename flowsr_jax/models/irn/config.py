"""Hyper-parameters of IRN; official weights fit the defaults."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from flowsr_jax.config import ConfigError, Depth, NotNegative, Positive, Width, check_ranges, choice
from flowsr_jax.models.irn.compression import RestorerConfig
from flowsr_jax.models.irn.discriminator import DiscriminatorConfig
from flowsr_jax.nets.choice import NetworkConfig
from flowsr_jax.nets.conv import Compute

DOWN = ("haar", "haar_first", "learned", "color")


OFFICIAL_BLOCKS = {1: (8,), 2: (8,), 3: (12,), 4: (8, 8), 8: (8, 8, 8)}


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
      network: the network of the blocks, by its name; None is the dense block.
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
    blocks: tuple[Depth, ...] | None = None
    down: str | None = None
    growth: Width = 32
    network: NetworkConfig | None = None
    clamp: Positive = 1.0
    temperature: NotNegative | None = None
    restorer: RestorerConfig | None = None
    discriminator: DiscriminatorConfig | None = None
    features: bool = False
    compute: Compute = Compute()

    def __post_init__(self) -> None:
        check_ranges(self)
        choice("scale", self.scale, tuple(OFFICIAL_BLOCKS))
        allowed = {1: ("color",), 3: ("learned",)}.get(self.scale, DOWN[:3])
        choice(f"down (at scale {self.scale})", self.form, allowed)
        blocks, stages = self.stages, self.scale.bit_length() - 1 if self.form == "haar" else 1
        if len(blocks) != stages:
            raise ConfigError(
                f"blocks = {self.blocks} must hold {stages} number(s) of at least 1: one per stage "
                f"of scale {self.scale} with down = {self.form!r}"
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
