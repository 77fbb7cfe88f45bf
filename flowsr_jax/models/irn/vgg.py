"""VGG19's features up to conv5_4 before its ReLU, which IRN+ compares.

Simonyan and Zisserman (2015), torchvision's layers 0 to 34; ../shared/spec/irn.md section 7.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from flowsr_jax.nets.conv import Compute, conv2d

STAGES = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def layers() -> list[tuple[int, int, int, bool]]:
    """(torchvision index, input channels, output channels, pooled before) of each convolution."""
    found, index, ci = [], 0, 3
    for stage, widths in enumerate(STAGES):
        for i, co in enumerate(widths):
            found.append((index, ci, co, stage > 0 and i == 0))
            index, ci = index + 2, co
        index += 1
    return found


def init_vgg():
    """Parameters of the right shapes, filled with NaN: only trained weights make sense."""
    return {
        f"conv{index}": {"w": jnp.full((3, 3, ci, co), jnp.nan), "b": jnp.full(co, jnp.nan)}
        for index, ci, co, _ in layers()
    }


def features(params, x, compute: Compute):
    """Features [B,H/16,W/16,512] of images [B,H,W,3] in [0,1] (not clipped)."""
    x = (x - jnp.asarray(MEAN)) / jnp.asarray(STD)
    for n, (index, _, _, pooled) in enumerate(layers()):
        if n:
            x = jnp.maximum(x, 0.0)
        if pooled:
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        p = params[f"conv{index}"]
        x = conv2d(x, p["w"], p["b"], compute)
    return x
