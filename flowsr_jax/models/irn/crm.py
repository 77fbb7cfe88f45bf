"""The restoration net of IRN-Compression: repairs the LR image after JPEG.

LR -> JPEG -> restore -> quantise -> inverse network.  ../shared/spec/irn.md section 8.
"""

from __future__ import annotations

import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np

from flowsr_jax.config import ConfigError
from flowsr_jax.nets.conv import Compute
from flowsr_jax.nets.rrdb import apply_conv, dense_block, init_conv, init_dense_block


@dataclasses.dataclass(frozen=True)
class RestorerConfig:
    """Hyper-parameters of the restoration net.

    Attributes:
      nf, gc, nb: channels, growth and number of residual-in-residual dense blocks.
    """

    nf: int = 64
    gc: int = 32
    nb: int = 8

    def __post_init__(self):
        if min(self.nf, self.gc, self.nb) < 1:
            raise ConfigError(
                f"nf, gc and nb must be positive, got {self.nf}, {self.gc}, {self.nb}"
            )


def init_restorer(key, config: RestorerConfig):
    """Parameters; every block starts as the identity (its last convolution is zero)."""
    keys = iter(jax.random.split(key, 3 * config.nb + 3))

    def dense(key):
        last = init_conv(None, 3, config.nf + 4 * config.gc, config.nf, "zeros")
        return {**init_dense_block(key, config.nf, config.gc), "conv5": last}

    blocks = {str(i): {f"rdb{j}": dense(next(keys)) for j in (1, 2, 3)} for i in range(config.nb)}
    return {
        "conv_first": init_conv(next(keys), 3, 3, config.nf),
        "blocks": blocks,
        "trunk_conv": init_conv(next(keys), 3, config.nf, config.nf),
        "conv_last": init_conv(next(keys), 3, config.nf, 3),
    }


def restore(params, lr, config: RestorerConfig, compute: Compute):
    """LR after JPEG [B,h,w,3] in [0,1] -> LR restored, neither rounded nor clipped."""
    first = apply_conv(params["conv_first"], lr, compute)
    x = first
    for i in range(config.nb):
        y = x
        for j in (1, 2, 3):
            y = dense_block(params["blocks"][str(i)][f"rdb{j}"], y, compute)
        x = 0.2 * y + x
    x = first + apply_conv(params["trunk_conv"], x, compute)
    return apply_conv(params["conv_last"], x, compute)


def jpeg(images, quality: int = 90):
    """Images as they are after writing and reading JPEG files (4:2:0), on the host.

    Args:
      images: [B,h,w,3] in [0,1]; clipped and rounded to 8 bits first.
      quality: 1 to 100.

    Returns:
      [B,h,w,3] float32, multiples of 1/255.  No gradient flows through.
    """
    images = jax.lax.stop_gradient(images)
    shape = jax.ShapeDtypeStruct(images.shape, jnp.float32)

    def codec(batch):
        return _codec(batch, quality)

    return jax.pure_callback(codec, shape, images, vmap_method="sequential")


def _codec(batch, quality):
    from PIL import Image

    levels = np.rint(np.clip(np.asarray(batch, np.float32), 0, 1) * 255).astype(np.uint8)
    decoded = []
    for image in levels:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling=2)
        with Image.open(file) as stored:
            decoded.append(np.asarray(stored))
    return np.stack(decoded).astype(np.float32) / np.float32(255)
