"""VGG19's features up to conv5_4 before its ReLU, which IRN+ compares.

Simonyan and Zisserman (2015), torchvision's layers 0 to 34; docs/papers/irn.md section 5.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from flowsr_jax.nets.conv import Compute
from flowsr_jax.nets.layers import Conv
from flowsr_jax.types import Array, Shape

STAGES = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def layers() -> list[tuple[int, int, int, bool]]:
    """Return (torchvision index, input, output channels, pooled before) of each convolution."""
    found, index, ci = [], 0, 3
    for stage, widths in enumerate(STAGES):
        for i, co in enumerate(widths):
            found.append((index, ci, co, stage > 0 and i == 0))
            index, ci = index + 2, co
        index += 1
    return found


def unknown(key: Array, shape: Shape) -> Array:
    """Return NaN everywhere, float32: only trained weights make sense."""
    del key
    return jnp.full(shape, jnp.nan, jnp.float32)


class VGG19(nn.Module):
    """Features [B,H/16,W/16,512] of images [B,H,W,3] in [0,1] (not clipped).

    Initial values are NaN: the weights have to be taken over from a file.
    """

    compute: Compute = Compute()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = (x - jnp.asarray(MEAN)) / jnp.asarray(STD)
        for n, (index, _, features, pooled) in enumerate(layers()):
            if n:
                x = jnp.maximum(x, 0.0)
            if pooled:
                x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
            init: dict[str, Any] = {"kernel_init": unknown, "bias_init": unknown}
            x = Conv(features, compute=self.compute, name=f"conv{index}", **init)(x)
        return x
