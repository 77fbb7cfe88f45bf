"""IRN's architecture: the invertible network HR image <-> (LR image, z).

Exact numerics: docs/papers/irn.md.  Official weights fit the defaults.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from flowsr_jax.bijectors import Chain, Conv1x1, ConvDown, Haar, InvertibleBlock, ScaleForm, Scan
from flowsr_jax.models.base import Params
from flowsr_jax.models.irn.compression import init_restorer
from flowsr_jax.models.irn.config import IRNConfig
from flowsr_jax.models.irn.discriminator import init_discriminator
from flowsr_jax.nets.dense_block import DenseBlock
from flowsr_jax.nets.vgg import VGG19

# Rows: luminance and two colour differences of RGB.
COLOR_MATRIX = ((0.299, 0.587, 0.114), (-0.147, -0.289, 0.436), (0.615, -0.515, -0.1))


def build_flow(config: IRNConfig) -> Chain:
    """The network as a bijector HR image -> [..., LR channels then z]."""
    levels = config.scale.bit_length() - 1
    downs = {
        "haar": [Haar()] * levels,
        "haar_first": [Haar()] * levels,
        "learned": [ConvDown(config.scale)],
        "color": [Conv1x1()],
    }[config.form]
    net = DenseBlock(config.growth, config.compute)
    block = InvertibleBlock(net, config.channels, ScaleForm("sigmoid", config.clamp))
    options = {"unroll": config.compute.unroll, "memory": config.compute.memory}
    stages = [
        (f"blocks{i + 1}", Scan(block, count, **options)) for i, count in enumerate(config.stages)
    ]
    parts: list = []
    for i, down in enumerate(downs):
        parts.append((f"down{i + 1}", down))
        if config.form == "haar":
            parts.append(stages[i])
    return Chain(tuple(parts if config.form == "haar" else parts + stages))


def init(config: IRNConfig, key) -> Params:
    """Random parameters with the released code's initial values.

    At first every block is the identity, so that the LR image is the box mean of HR.
    The VGG19 of `features` is filled with NaN: it has to be taken over from a file.
    """
    keys = jax.random.split(key, 3)
    size = config.scale
    flow = build_flow(config).init(keys[0], (size, size, 3))
    if config.form == "color":
        flow["down1"] = {"weight": jnp.asarray(COLOR_MATRIX, jnp.float32)}
    tree = {"generator": flow}
    if config.restorer is not None:
        tree["restorer"] = init_restorer(keys[1], config.restorer)
    if config.discriminator is not None:
        tree["discriminator"] = init_discriminator(keys[2], config.discriminator)
    if config.features:
        image = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
        tree["features"] = VGG19().lazy_init(keys[2], image)["params"]
    return Params(tree, config)


def forward(params: Params, hr):
    """HR [B,s*h,s*w,3] -> (LR [B,h,w,3], z [B,h,w,3*s*s - 3]), neither rounded nor clipped."""
    y, _ = build_flow(params.config).forward(params["generator"], hr)
    return y[..., : params.config.channels], y[..., params.config.channels :]


def inverse(params: Params, lr, z, prepared=None):
    """(LR, z) -> HR, not clipped; `prepared` is that of `prepare_inverse`."""
    y = jnp.concatenate([lr, z], axis=-1)
    return build_flow(params.config).inverse(params["generator"], y, None, prepared)[0]


def prepare_inverse(params: Params):
    """What all inverse passes share (the inverse of a learned matrix)."""
    return build_flow(params.config).prepare(params["generator"], inverse=True)


def z_shape(config: IRNConfig, lr_shape) -> tuple[int, ...]:
    """Shape of z for an LR batch [B,h,w,C]."""
    return (*lr_shape[:-1], config.latent_channels)


def latent_shapes(config: IRNConfig, lr_shape) -> list[tuple[int, ...]]:
    """Shapes of the LR image and z, for an LR batch [B,h,w,C]."""
    return [tuple(lr_shape), z_shape(config, lr_shape)]


def noise_shapes(config: IRNConfig, lr_shape, **options) -> list[tuple[int, ...]]:
    """[the shape of z]."""
    del options
    return [z_shape(config, lr_shape)]


@jax.custom_jvp
def quantize(x):
    """Clip to [0,1] and round to multiples of 1/255 (half to even); the gradient is the identity.

    The gradient passes unchanged where the value was clipped, too (straight-through).
    """
    return jnp.round(jnp.clip(x, 0.0, 1.0) * 255.0) / 255.0


@quantize.defjvp
def _quantize_jvp(primals, tangents):
    return quantize(*primals), tangents[0]
