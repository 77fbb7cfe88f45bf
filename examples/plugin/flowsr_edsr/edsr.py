"""EDSR: residual blocks without normalisation (Lim et al., CVPRW 2017, section 3)."""

import dataclasses
from typing import ClassVar

from flax import linen as nn

from flowsr_jax import regression_family


@dataclasses.dataclass(frozen=True)
class EDSRConfig:
    """Hyper-parameters; the defaults are the paper's baseline."""

    family: ClassVar[str] = "edsr"
    scale: int = 2
    width: int = 64
    blocks: int = 16
    residual_scale: float = 1.0


class EDSR(nn.Module):
    """lr [B,h,w,3] in [0,1] -> image [B,s*h,s*w,3], not clipped."""

    config: EDSRConfig

    @nn.compact
    def __call__(self, lr):
        config, s = self.config, self.config.scale
        x = first = nn.Conv(config.width, (3, 3))(lr - 0.5)
        for _ in range(config.blocks):
            y = nn.Conv(config.width, (3, 3))(nn.relu(nn.Conv(config.width, (3, 3))(x)))
            x = x + config.residual_scale * y
        x = first + nn.Conv(config.width, (3, 3))(x)
        x = nn.Conv(3 * s * s, (3, 3))(x)
        b, h, w, _ = x.shape
        return x.reshape(b, h, w, s, s, 3).swapaxes(2, 3).reshape(b, s * h, s * w, 3) + 0.5


FAMILY = regression_family("edsr", EDSRConfig, module=EDSR)
