"""The restoration net of IRN-Compression: repairs the LR image after JPEG.

LR -> JPEG -> restore -> quantise -> inverse network.  docs/papers/irn.md section 6.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from flowsr_jax.config import ConfigError, Depth, Width, check_ranges, choice
from flowsr_jax.math.jpeg import diff_jpeg, jpeg_codec
from flowsr_jax.math.jpeg_like import jpeg_like
from flowsr_jax.nets.conv import Compute
from flowsr_jax.nets.layers import init_params
from flowsr_jax.nets.rrdb import Restorer
from flowsr_jax.types import Array, PyTree


@dataclasses.dataclass(frozen=True)
class RestorerConfig:
    """Hyper-parameters of the restoration net.

    Attributes:
      nf, gc, nb: channels, growth and number of residual-in-residual dense blocks.
    """

    nf: Width = 64
    gc: Width = 32
    nb: Depth = 8

    def __post_init__(self) -> None:
        check_ranges(self)


def init_restorer(key: Array, config: RestorerConfig) -> PyTree:
    """Return parameters; every block starts as the identity (its last convolution is zero)."""
    lr = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    return init_params(Restorer(config.nf, config.gc, config.nb), key, lr)


def restore(params: PyTree, lr: Array, config: RestorerConfig, compute: Compute) -> Array:
    """Return LR restored from LR after JPEG [B,h,w,3] in [0,1], neither rounded nor clipped."""
    net = Restorer(config.nf, config.gc, config.nb, compute)
    return net.apply({"params": params}, lr)  # ty: ignore[invalid-explicit-return]


CODECS = ("jpeg", "jpeg_like", "diff_jpeg")


def codec(name: str = "jpeg", quality: int = 90) -> Callable[[Array], Array]:
    """Return what stands between the two directions: LR [B,h,w,3] in [0,1] -> LR after JPEG.

    Args:
      name: "jpeg", Pillow's codec on the host, as released, without a gradient;
        "jpeg_like", its arithmetic in the program (about one level apart), whose gradient
        is the identity; "diff_jpeg", DiffJPEG with smooth rounding.
      quality: 1 to 100.

    Raises:
      ConfigError: another name or quality.
    """
    choice("codec", name, CODECS)
    if isinstance(quality, bool) or not isinstance(quality, int) or not 1 <= quality <= 100:
        raise ConfigError(f"quality = {quality!r} must be a whole number from 1 to 100")
    if name == "jpeg":
        return functools.partial(jpeg, quality=quality)
    if name == "jpeg_like":
        return functools.partial(jpeg_like, quality=quality)  # ty: ignore[invalid-explicit-return]
    # DiffJPEG's quality ends before 100.
    return functools.partial(diff_jpeg, quality=min(quality, 99), luma_transposed=False)  # ty: ignore[invalid-explicit-return]


def jpeg(images: Array, quality: int = 90) -> Array:
    """Return images as they are after writing and reading JPEG files (4:2:0), on the host.

    Args:
      images: [B,h,w,3] in [0,1]; clipped and rounded to 8 bits first.
      quality: 1 to 100.

    Returns:
      [B,h,w,3] float32, multiples of 1/255.  No gradient flows through.
    """
    images = jax.lax.stop_gradient(images)
    shape = jax.ShapeDtypeStruct(images.shape, jnp.float32)

    def write_and_read(batch: np.ndarray) -> np.ndarray:
        levels = np.rint(np.clip(np.asarray(batch, np.float32), 0, 1) * 255).astype(np.uint8)
        decoded = np.stack([jpeg_codec(image, quality) for image in levels])
        return decoded.astype(np.float32) / np.float32(255)

    return jax.pure_callback(write_and_read, shape, images, vmap_method="sequential")
