"""Hyper-parameters of Glow."""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

from flowsr_jax.config import (
    ConfigError,
    Depth,
    NotNegative,
    Range,
    Width,
    WidthOr0,
    check_ranges,
    choice,
)
from flowsr_jax.nets.choice import NetworkConfig
from flowsr_jax.nets.conv import Compute

PERMUTATIONS = ("conv1x1", "conv1x1_plu", "shuffle", "reverse")
COUPLINGS = ("affine", "additive")


@dataclasses.dataclass(frozen=True)
class GlowConfig:
    """Hyper-parameters of Glow; the defaults are CIFAR-10's quantitative model.

    Attributes:
      levels: L; image sides must be multiples of 2^L.
      steps: K, flow steps per level.
      hidden: width of the coupling networks.
      coupling: "affine" or "additive".
      permutation: "conv1x1", "conv1x1_plu", "shuffle" (fixed, random) or "reverse".
      learn_top: learn the prior of the coarsest latent (all published models do).
      classes: number of classes that condition the top prior; 0 is unconditional.
      class_weight: weight of the classification loss on the coarsest latent; above 0 the
        model has a classifier.  Only with classes.
      n_bits: bits per value of the images that are modelled.
      border: 3x3 convolutions see a channel that is 1 on the padding (the released code).
      channels: of the images.
      size: side of the images that `sample` draws by default.
      network: the network of the couplings, by its name; None is the released one.
      temperature: default temperature of `sample`.
      compute: precision and form of the networks.
    """

    family: ClassVar[str] = "glow"
    scale: ClassVar[int] = 1
    levels: Depth = 3
    steps: Depth = 32
    hidden: Width = 512
    coupling: str = "affine"
    permutation: str = "conv1x1"
    learn_top: bool = True
    classes: WidthOr0 = 0
    class_weight: NotNegative = 0.01
    n_bits: Annotated[int, Range(1, 8)] = 8
    border: bool = True
    channels: Width = 3
    size: Width = 32
    network: NetworkConfig | None = None
    temperature: NotNegative = 0.7
    compute: Compute = Compute()

    def __post_init__(self) -> None:
        check_ranges(self)
        choice("coupling", self.coupling, COUPLINGS)
        choice("permutation", self.permutation, PERMUTATIONS)
        if self.size % self.multiple:
            raise ConfigError(f"size = {self.size} must be a multiple of 2^levels, {self.multiple}")

    @property
    def multiple(self) -> int:
        """Image sides must be multiples of this: 2^L."""
        return 2**self.levels

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of one drawn image."""
        return (self.size, self.size, self.channels)

    @property
    def has_classifier(self) -> bool:
        return self.classes > 0 and self.class_weight > 0
