"""SR3's configuration; the defaults are the public 16 -> 128 model's."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from flowsr_jax.config import ConfigError, NotNegative, Width, WidthOr0, check_ranges, choice
from flowsr_jax.diffusion import process
from flowsr_jax.diffusion.samplers import SamplerConfig
from flowsr_jax.diffusion.schedules import ScheduleConfig
from flowsr_jax.nets.unet import UNetConfig

HOLES = (None, "always", "some")


@dataclasses.dataclass(frozen=True)
class SR3Config:
    """Hyper-parameters of SR3 and DDPM.

    Attributes:
      scale: super-resolution factor; 1 takes a condition of the image's own size.
      unet: the network; `unet.conditioning` "time" is the DDPM variant, and
        `unet.cond_channels` 0 a model without a condition.
      classes: number of classes that the network is told; 0 is none.
      augmented: the network is told the noise level of its condition (for cascades).
      holes: how regions to draw are marked in the condition (math/holes.py).  "always": every
        condition has holes; they are filled with noise, only they are drawn, and losses
        count them alone (Palette's inpainting).  "some": batches mix inpainting with other
        tasks; an image without any hole is drawn as a whole.  None: the model knows no holes.
      residual: r > 0 diffuses r times the difference between the image and the condition
        instead of the image itself (as SRDiff does; Li et al., 2022).
      prediction: what the network gives: "eps" (published), "x0" or "v".
      schedule: noise levels of training.
      sampler: the default chain of `sample`.
    """

    family: ClassVar[str] = "sr3"
    scale: Width = 8
    unet: UNetConfig = UNetConfig()
    classes: WidthOr0 = 0
    augmented: bool = False
    holes: str | None = None
    residual: NotNegative = 0.0
    prediction: str = "eps"
    schedule: ScheduleConfig = ScheduleConfig()
    sampler: SamplerConfig = SamplerConfig()

    def __post_init__(self) -> None:
        check_ranges(self)
        choice("prediction", self.prediction, process.PREDICTIONS)
        if self.unet.cond_channels not in (0, self.unet.image_channels):
            raise ConfigError(
                f"unet.cond_channels = {self.unet.cond_channels} must be 0 or image_channels = "
                f"{self.unet.image_channels}"
            )
        choice("holes", self.holes, HOLES)
        wanted = {"augmented": self.augmented, "residual": self.residual > 0}
        wanted["holes"] = self.holes is not None
        names = [name for name, on in wanted.items() if on]
        if names and not self.unet.cond_channels:
            raise ConfigError(f"{' and '.join(names)} need a condition: unet.cond_channels = 3")
        if wanted["holes"] and (len(names) > 1 or self.scale > 1 or self.unet.cond_channels != 3):
            raise ConfigError(
                f"holes = {self.holes!r} needs scale = 1, three channels, and neither augmented "
                "nor residual"
            )

    @property
    def timed(self) -> bool:
        """The network is told integer timesteps, not noise levels."""
        return self.unet.conditioning == "time"
