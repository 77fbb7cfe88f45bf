"""Hyper-parameters of the RRDB encoder."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from flowsr_jax.config import Depth, Width, check_ranges, choice
from flowsr_jax.nets.conv import Compute


@dataclasses.dataclass(frozen=True)
class RRDBConfig:
    """Hyper-parameters of the encoder.

    Attributes:
      scale: super-resolution factor, a power of two from 2 to 16.
      nf, gc, nb: channels, growth and number of RRDBs.
      head: "nearest_conv" (released form) or "subpixel" (one convolution to s*s
        sub-pixels at LR resolution: a fraction of the work).
      residual: predict the difference to the MATLAB-bicubic enlargement.
      skip: what is added to the trunk's convolution: the output of the "last" block
        (SRFlow), or of the "first" convolution (ESRGAN).
      compute: precision and form of the convolutions; memory "remat" computes each RRDB
        again in the backward pass.
    """

    family: ClassVar[str] = "rrdb"
    scale: int = 4
    nf: Width = 64
    gc: Width = 32
    nb: Depth = 23
    in_channels: Width = 3
    out_channels: Width = 3
    head: str = "nearest_conv"
    residual: bool = False
    skip: str = "last"
    compute: Compute = Compute()

    def __post_init__(self) -> None:
        check_ranges(self)
        choice("scale", self.scale, (2, 4, 8, 16))
        choice("head", self.head, ("nearest_conv", "subpixel"))
        choice("skip", self.skip, ("last", "first"))
        choice("compute.memory (of an RRDB encoder)", self.compute.memory, ("store", "remat"))

    @property
    def num_upconvs(self) -> int:
        """Number of nearest-then-convolution layers: log2(scale)."""
        return self.scale.bit_length() - 1
