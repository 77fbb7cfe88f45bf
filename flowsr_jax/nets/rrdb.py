"""RRDB low-resolution encoder of ESRGAN and SRFlow.

Source: docs/papers/srflow.md section 3; Wang et al., ESRGAN (ECCVW 2018); Lugmayr et al.,
SRFlow (ECCV 2020).  Note that the trunk's skip adds the output of the last block, not of the first
convolution as in ESRGAN's reference.
"""

from __future__ import annotations

import math
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from flowsr_jax.math.resize import imresize
from flowsr_jax.nets.conv import Compute
from flowsr_jax.nets.layers import (
    Conv,
    Tree,
    init_params,
    kaiming,
    leaky_relu,
    pixel_shuffle,
    run_blocks,
    stacked,
    torch_default,
    zeros,
)
from flowsr_jax.nets.upsampled import NearestConv
from flowsr_jax.types import Array, Initializer, PyTree


class ResidualDenseBlock(nn.Module):
    """Five convolutions with dense connections, and a residual: [B,H,W,C] to [B,H,W,C].

    Attributes:
      growth: channels that each of the first four convolutions adds.
      zero_last: the last convolution starts at zero, the block as the identity.
      compute: precision and form.
    """

    growth: int
    zero_last: bool = False
    compute: Compute = Compute()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        def conv(i: int, features: int, init: Initializer) -> Array:
            layer = Conv(features, kernel_init=init, compute=self.compute, name=f"conv{i}")
            return layer(jnp.concatenate(known, axis=-1))

        known = [x]
        for i in range(1, 5):
            known.append(leaky_relu(conv(i, self.growth, kaiming(0.1))))
        return 0.2 * conv(5, x.shape[-1], zeros if self.zero_last else kaiming(0.1)) + x


class RRDBlock(nn.Module):
    """Three residual dense blocks and a residual around them; attributes as theirs."""

    growth: int
    zero_last: bool = False
    compute: Compute = Compute()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        y = x
        for j in (1, 2, 3):
            y = ResidualDenseBlock(self.growth, self.zero_last, self.compute, name=f"rdb{j}")(y)
        return 0.2 * y + x


class RRDBEncoder(nn.Module):
    """The encoder: `trunk`, `upsampled_features` and `head` one after the other.

    Parameters {"conv_first", "blocks", "trunk_conv", ...}; the leaves of "blocks" carry a
    leading axis, the block's number.

    Attributes:
      config: `RRDBConfig`.
    """

    config: Any

    def setup(self) -> None:
        c, compute = self.config, self.config.compute
        default = torch_default(9 * c.nf)
        self.conv_first = Conv(c.nf, **torch_default(9 * c.in_channels), compute=compute)
        # Any size will do: blocks keep it, and their parameters do not depend on it.
        draw = stacked(self._block, c.nb)
        self.blocks = Tree(lambda key: draw(key, (8, 8, c.nf)))
        self.trunk_conv = Conv(c.nf, **default, compute=compute)
        if c.head == "subpixel":
            features = c.out_channels * c.scale**2
            self.to_image = Conv(features, kernel_init=kaiming(0.1), compute=compute)
            return
        for i in range(1, c.num_upconvs + 1):
            setattr(self, f"upconv{i}", NearestConv(c.nf, **default, compute=compute))
        self.hr_conv = Conv(c.nf, **default, compute=compute)
        self.conv_last = Conv(c.out_channels, **default, compute=compute)

    @property
    def _block(self) -> RRDBlock:
        return RRDBlock(self.config.gc, compute=self.config.compute, parent=None)

    def trunk(self, lr: Array, keep: tuple[int, ...] = ()) -> tuple[Array, list[Array]]:
        """Return (features [B,h,w,nf], outputs of the blocks with the indices `keep`) of lr."""
        chex.assert_shape(lr, (None, None, None, self.config.in_channels))
        first = self.conv_first(lr)
        # All or none: the backward pass keeps each block's input anyway.
        x, outputs = run_blocks(self._block, self.blocks(), first, self.config.compute, bool(keep))
        skip = first if self.config.skip == "first" else x
        return skip + self.trunk_conv(x), [outputs[i] for i in keep]  # ty: ignore[not-subscriptable]

    def upsampled_features(self, fea: Array, top: int) -> dict[int, Array]:
        """Return {1, 2, 4, ..., top: features at so many times the LR size}.

        The activation belongs to the feature (it is in-place in the released code);
        the feature at factor 1 has none.
        """
        features = {1: fea}
        for i in range(1, int(math.log2(top)) + 1):
            features[2**i] = leaky_relu(getattr(self, f"upconv{i}")(features[2 ** (i - 1)]))
        return features

    def head(self, features: dict[int, Array], lr: Array) -> Array:
        """Return the super-resolved image of the encoder, [B,s*h,s*w,3], not clipped.

        `config.head` "nearest_conv" is the released form; "subpixel" predicts s*s
        sub-pixels per LR position.  With `config.residual` the head predicts the
        difference to the MATLAB-bicubic enlargement.
        """
        c = self.config
        if c.head == "subpixel":
            image = pixel_shuffle(self.to_image(features[1]), c.scale)
        else:
            image = self.conv_last(leaky_relu(self.hr_conv(features[c.scale])))
        return image + imresize(lr, c.scale) if c.residual else image

    def __call__(self, lr: Array) -> Array:
        """Return the super-resolved image [B,s*h,s*w,3] of lr [B,h,w,3]; see `head`."""
        features, _ = self.trunk(lr)
        top = self.config.scale if self.config.head == "nearest_conv" else 1
        return self.head(self.upsampled_features(features, top), lr)


def init_rrdb(key: Array, config: Any) -> PyTree:
    """Return initial parameters of the encoder: PyTorch's, and Kaiming times 0.1 in blocks."""
    lr = jax.ShapeDtypeStruct((1, 8, 8, config.in_channels), jnp.float32)
    return init_params(RRDBEncoder(config), key, lr)


class Restorer(nn.Module):
    """IRN-Compression's repair of LR images after JPEG: [B,h,w,3] in [0,1] to the same.

    ESRGAN's trunk, not enlarged; every block starts as the identity.  The result is neither
    rounded nor clipped.  Blocks are not stacked: {"blocks": {"0": ..., "1": ...}, ...}.

    Attributes:
      nf, gc, nb: channels, growth and number of blocks.
      compute: precision and form.
    """

    nf: int = 64
    gc: int = 32
    nb: int = 8
    compute: Compute = Compute()

    @nn.compact
    def __call__(self, lr: Array) -> Array:
        def conv(name: str, features: int, x: Array) -> Array:
            options = torch_default(9 * x.shape[-1])
            return Conv(features, compute=self.compute, name=name, **options)(x)

        first = conv("conv_first", self.nf, lr)
        x = _Blocks(self.nb, self.gc, self.compute, name="blocks")(first)
        return conv("conv_last", lr.shape[-1], first + conv("trunk_conv", self.nf, x))


class _Blocks(nn.Module):
    """The restorer's blocks, named by their numbers."""

    length: int
    growth: int
    compute: Compute

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for i in range(self.length):
            x = RRDBlock(self.growth, True, self.compute, name=str(i))(x)
        return x
