"""Hyper-parameters of NICE."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

from flowsr_jax.config import ConfigError, Depth, DepthOr0, NotNegative, Width, check_ranges, choice

RANGES = {"unit": (1.0, 0.0), "symmetric": (2.0, -1.0)}


@dataclasses.dataclass(frozen=True)
class NICEConfig:
    """Hyper-parameters of NICE; the defaults are MNIST's.

    Attributes:
      shape: of one example: [H,W,C], or [D].
      couplings: additive couplings; each changes the last half, then all is reversed.
      layers, hidden: hidden layers of a coupling's network, and their width.
      prior: "logistic" or "gaussian".
      tile: begin with the elements 0, 2, 4, ..., 1, 3, 5, ...
      range: what the flow sees, "unit" [0,1] (MNIST, TFD, SVHN) or "symmetric" [-1,1]
        (CIFAR-10); published log-likelihoods are densities on that range.
      temperature: default temperature of `sample`.
    """

    family: ClassVar[str] = "nice"
    scale: ClassVar[int] = 1
    classes: ClassVar[int] = 0
    n_bits: ClassVar[int] = 8
    shape: tuple[Width, ...] = (28, 28, 1)
    couplings: Depth = 4
    layers: DepthOr0 = 5
    hidden: Width = 1000
    prior: str = "logistic"
    tile: bool = True
    range: str = "unit"
    temperature: NotNegative = 1.0

    def __post_init__(self) -> None:
        check_ranges(self)
        choice("prior", self.prior, ("logistic", "gaussian"))
        choice("range", self.range, tuple(RANGES))
        if len(self.shape) not in (1, 3) or math.prod(self.shape) < 2:
            raise ConfigError(
                f"shape = {self.shape} must be (H, W, C) or (D,), of at least 2 values"
            )

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one drawn example."""
        return self.shape

    @property
    def dims(self) -> int:
        """D, the number of values of one example."""
        return math.prod(self.shape)
