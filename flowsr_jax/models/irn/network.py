"""IRN's architecture: the invertible network HR image <-> (LR image, z).

Exact numerics: docs/papers/irn.md.  Official weights fit the defaults.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from flowsr_jax.bijectors import Chain, Conv1x1, ConvDown, Haar, InvertibleBlock, ScaleForm, Scan
from flowsr_jax.models.base import Params
from flowsr_jax.models.irn.compression import init_restorer
from flowsr_jax.models.irn.config import IRNConfig
from flowsr_jax.models.irn.discriminator import init_discriminator
from flowsr_jax.nets.choice import build_network
from flowsr_jax.nets.conv import PLAIN
from flowsr_jax.nets.dense_block import DenseBlock
from flowsr_jax.nets.discriminator import Discriminator
from flowsr_jax.nets.layers import Tree
from flowsr_jax.nets.rrdb import Restorer
from flowsr_jax.nets.vgg import VGG19
from flowsr_jax.types import Array, PyTree, Shape

# Rows: luminance and two colour differences of RGB.
COLOR_MATRIX = ((0.299, 0.587, 0.114), (-0.147, -0.289, 0.436), (0.615, -0.515, -0.1))


def build_flow(config: IRNConfig) -> Chain:
    """Return the network as a bijector HR image -> [..., LR channels then z]."""
    levels = config.scale.bit_length() - 1
    downs = {
        "haar": [Haar()] * levels,
        "haar_first": [Haar()] * levels,
        "learned": [ConvDown(config.scale)],
        "color": [Conv1x1()],
    }[config.form]
    if config.network is None:
        net = DenseBlock(config.growth, config.compute, parent=None)
    else:
        net = build_network(config.network, compute=config.compute)
    block = InvertibleBlock(net, config.channels, ScaleForm("sigmoid", config.clamp))
    options: dict[str, Any] = {"unroll": config.compute.unroll, "memory": config.compute.memory}
    stages = [
        (f"blocks{i + 1}", Scan(block, count, **options)) for i, count in enumerate(config.stages)
    ]
    parts: list = []
    for i, down in enumerate(downs):
        parts.append((f"down{i + 1}", down))
        if config.form == "haar":
            parts.append(stages[i])
    return Chain(tuple(parts if config.form == "haar" else parts + stages))


class IRN(nn.Module):
    """IRN as a Flax module; its parameters are the groups of `Params`.

    These are {"generator"}, and of the parts that the config has "restorer", "discriminator"
    and "features".  The discriminator also has the collection "batch_stats".
    """

    config: IRNConfig

    def setup(self) -> None:
        c, r = self.config, self.config.restorer
        self.generator = Tree(lambda key: init_generator(c, key))
        if r is not None:
            self.restorer = Restorer(r.nf, r.gc, r.nb, c.compute)
        if c.discriminator is not None:
            self.discriminator = Discriminator(c.discriminator)
        if c.features:
            self.features = VGG19(c.compute)

    def __call__(self, hr: Array) -> list[Array]:
        """Return [LR, z]; see `encode`."""
        c = self.config
        if self.is_initializing():
            parts = {"restorer": (c.restorer, 8), "features": (c.features, 16)}
            parts["discriminator"] = (c.discriminator, getattr(c.discriminator, "size", 0))
            for name, (wanted, side) in parts.items():
                if wanted:
                    getattr(self, name)(jnp.zeros((1, side, side, 3), jnp.float32))
        return self.encode(hr)

    def encode(self, hr: Array) -> list[Array]:
        """Return [LR [B,h,w,3], z [B,h,w,3*s*s - 3]] of hr [B,s*h,s*w,3].

        They are neither rounded nor clipped.
        """
        y, _ = build_flow(self.config).forward(self.generator(), hr)
        return [y[..., : self.config.channels], y[..., self.config.channels :]]

    def decode(self, latents: list[Array], prepared: PyTree = None) -> Array:
        """Return HR, not clipped, of [LR, z]; `prepared` is that of `prepare_inverse`."""
        y = jnp.concatenate(latents, axis=-1)
        return build_flow(self.config).inverse(self.generator(), y, None, prepared)[0]

    def prepare_inverse(self) -> PyTree:
        """Return what all inverse passes share (the inverse of a learned matrix)."""
        return build_flow(self.config).prepare(self.generator(), inverse=True)

    def restore(self, lr: Array) -> Array:
        """Return lr [B,h,w,3] with JPEG's artefacts repaired, neither rounded nor clipped."""
        return self.restorer(lr)

    def judge(self, images: Array, train: bool = True) -> Array:
        """Return the discriminator's logits [B,1] of images; see `Discriminator`."""
        return self.discriminator(images, train)


def init_generator(config: IRNConfig, key: Array) -> PyTree:
    """Return initial parameters of the invertible network alone."""
    flow = build_flow(config).init(key, (config.scale, config.scale, 3))
    if config.form == "color":
        flow["down1"] = {"weight": jnp.asarray(COLOR_MATRIX, jnp.float32)}
    return flow


def init(config: IRNConfig, key: Array) -> Params:
    """Return random parameters with the released code's initial values.

    At first every block is the identity, so that the LR image is the box mean of HR.
    The VGG19 of `features` is filled with NaN: it has to be taken over from a file.
    """
    keys = jax.random.split(key, 3)
    tree = {"generator": init_generator(config, keys[0])}
    if config.restorer is not None:
        tree["restorer"] = init_restorer(keys[1], config.restorer)
    if config.discriminator is not None:
        tree["discriminator"] = init_discriminator(keys[2], config.discriminator)
    if config.features:
        image = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
        tree["features"] = VGG19(PLAIN).lazy_init(keys[2], image)["params"]
    return Params(tree, config)


def forward(params: Params, hr: Array) -> tuple[Array, Array]:
    """Return (LR [B,h,w,3], z [B,h,w,3*s*s - 3]) of hr [B,s*h,s*w,3], not rounded or clipped."""
    return tuple(IRN(params.config).apply({"params": params.tree}, hr, method="encode"))  # ty: ignore[invalid-explicit-return]


def inverse(params: Params, lr: Array, z: Array, prepared: PyTree = None) -> Array:
    """Return HR of (LR, z), not clipped; `prepared` is that of `prepare_inverse`."""
    model, variables = IRN(params.config), {"params": params.tree}
    return model.apply(variables, [lr, z], prepared, method="decode")  # ty: ignore[invalid-explicit-return]


def prepare_inverse(params: Params) -> PyTree:
    """Return what all inverse passes share (the inverse of a learned matrix)."""
    return IRN(params.config).apply({"params": params.tree}, method="prepare_inverse")


def z_shape(config: IRNConfig, lr_shape: Shape) -> tuple[int, ...]:
    """Return the shape of z for an LR batch [B,h,w,C]."""
    return (*lr_shape[:-1], config.latent_channels)


def latent_shapes(config: IRNConfig, lr_shape: Shape) -> list[tuple[int, ...]]:
    """Return the shapes of the LR image and of z for an LR batch [B,h,w,C]."""
    return [tuple(lr_shape), z_shape(config, lr_shape)]


def noise_shapes(config: IRNConfig, lr_shape: Shape, **options: Any) -> list[tuple[int, ...]]:
    """Return the shapes of the noise that sampling draws: that of z."""
    del options
    return [z_shape(config, lr_shape)]


@jax.custom_jvp
def quantize(x: Array) -> Array:
    """Clip to [0,1] and round to multiples of 1/255 (half to even); the gradient is the identity.

    The gradient passes unchanged where the value was clipped, too (straight-through).
    """
    return jnp.round(jnp.clip(x, 0.0, 1.0) * 255.0) / 255.0


@quantize.defjvp
def _quantize_jvp(primals: Array, tangents: Array) -> tuple[Array, Array]:
    return quantize(*primals), tangents[0]
