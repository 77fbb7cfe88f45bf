"""Hyper-parameters of RealNVP."""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

from flowsr_jax.config import (
    ConfigError,
    Depth,
    NotNegative,
    Probability,
    Range,
    Width,
    check_ranges,
    choice,
)
from flowsr_jax.nets.conv import Compute


@dataclasses.dataclass(frozen=True)
class RealNVPConfig:
    """Hyper-parameters of RealNVP; the defaults are CIFAR-10's.

    Attributes:
      scales: number of scales; image sides must be multiples of 2^(scales - 1).
      dim: width of the networks of the first scale; it doubles with each scale, and
        again for the couplings of channels.
      blocks: residual blocks per network.
      low, width: the logit's p = low + width * x; 0.05 and 0.9 in the released code
        (0.95 in the paper).  width 0 leaves the logit out.
      momentum: share of the batch that enters the moving statistics.
      channels: of the images.
      size: side of the images that `sample` draws by default.
      temperature: default temperature of `sample`.
      compute: precision and form of the networks.
    """

    family: ClassVar[str] = "realnvp"
    scale: ClassVar[int] = 1
    classes: ClassVar[int] = 0
    n_bits: ClassVar[int] = 8
    scales: Depth = 2
    dim: Width = 64
    blocks: Depth = 8
    low: Probability = 0.05
    width: Probability = 0.9
    momentum: Annotated[float, Range(0, 1, open="low")] = 0.1
    channels: Width = 3
    size: Width = 32
    temperature: NotNegative = 1.0
    compute: Compute = Compute()

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.low + self.width > 1:
            raise ConfigError(
                f"the sum of low = {self.low} and width = {self.width} must not be above 1"
            )
        choice("compute.memory (of RealNVP)", self.compute.memory, ("store",))
        if self.size < 2 or self.size % self.multiple:
            raise ConfigError(
                f"size = {self.size} must be at least 2 and a multiple of 2^(scales - 1), "
                f"{self.multiple}"
            )

    @property
    def multiple(self) -> int:
        """Image sides must be multiples of this: 2^(scales - 1)."""
        return 2 ** (self.scales - 1)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of one drawn image."""
        return (self.size, self.size, self.channels)
