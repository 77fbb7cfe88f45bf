"""RealNVP's residual network for shift and log-scale, as in the released code.

Batch normalisation without gain, weight-normalised convolutions, and a sum of 1x1 skips
from every block.  Dinh et al. (2017) and its released code; docs/papers/glow.md section 5.
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from flowsr_jax.nets.conv import Compute, conv2d
from flowsr_jax.nets.layers import leaf, ones, stacked, uniform, zeros
from flowsr_jax.types import Array, Initializer, PyTree, Shape

EPS = 1e-4
STATISTICS = ("mean", "var")  # names of what data, not gradients, move


def batch_statistics(x: jax.Array) -> dict[str, jax.Array]:
    """Return {"mean", "var"} [C] of x [..., C] over all other axes; biased variance."""
    axes = tuple(range(x.ndim - 1))
    mean = jnp.mean(x, axis=axes)
    return {"mean": mean, "var": jnp.mean(jnp.square(x - mean), axis=axes)}


class WeightNormConv(nn.Module):
    """Convolution by w / |w| (per output channel) times magnitude, plus b.

    [B,H,W,Ci] to [B,H,W,features] float32; leaves "w" [k,k,Ci,features], uniform in
    +-sqrt(2/Ci), and "magnitude" and "b" [features] where asked for.

    Attributes:
      features: output channels.
      kernel_size: k.
      magnitude, use_bias: which of the leaves there are.
      compute: precision and form.
    """

    features: int
    kernel_size: int
    magnitude: bool = True
    use_bias: bool = True
    compute: Compute = Compute()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        k, ci = self.kernel_size, x.shape[-1]
        bound = math.sqrt(2.0 / ci)
        w = leaf(self, "w", uniform(bound), (k, k, ci, self.features))
        w = w * jax.lax.rsqrt(jnp.sum(jnp.square(w), axis=(0, 1, 2)))
        if self.magnitude:
            # The expected norm of w.
            w = w * leaf(self, "magnitude", _weak(bound * math.sqrt(ci * k * k / 12.0)),
                               (self.features,))  # fmt: skip
        b = leaf(self, "b", zeros, (self.features,)) if self.use_bias else None
        return conv2d(x, w, b, self.compute)


def _weak(value: float) -> Initializer:
    """Return the initialiser of a constant, weakly typed as tests/test_frozen.py keeps it."""

    def init(key: Array, shape: Shape) -> Array:
        with jax.enable_x64(False):
            return jnp.full(shape, value)

    return init


class BatchShift(nn.Module):
    """(x - mean) / sqrt(var + eps) + beta over the last axis; leaves "mean", "var", "beta".

    With `train` the batch's statistics are used, and put into the parameters.
    """

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        c = x.shape[-1:]
        p = {"mean": leaf(self, "mean", zeros, c), "var": leaf(self, "var", ones, c)}
        if train:
            p = batch_statistics(x)
            for name, value in p.items():
                self.put_variable("params", name, value)
        x = (x - p["mean"]) * jax.lax.rsqrt(p["var"] + EPS)
        return x + leaf(self, "beta", zeros, c)


class ResidualBlock(nn.Module):
    """h [B,H,W,dim] to (h + residual, its 1x1 skip)."""

    dim: int
    compute: Compute = Compute()

    @nn.compact
    def __call__(self, h: jax.Array, train: bool = False) -> tuple[jax.Array, jax.Array]:
        def conv(name: str, x: Array, size: int, **options: Any) -> Array:
            layer = WeightNormConv(self.dim, size, **options, compute=self.compute, name=name)
            return layer(x)

        inner = nn.relu(BatchShift(name="bn_in")(h, train))
        inner = conv("h_0", inner, 3, magnitude=False, use_bias=False)
        inner = nn.relu(BatchShift(name="bn_0")(inner, train))
        h = h + conv("out", inner, 3)
        return h, conv("skip", h, 1)


class RealNVPNet(nn.Module):
    """Residual network [B,H,W,Ci] to [shift, scale * tanh(...)] [B,H,W,features] float32.

    `__call__` uses the moving statistics in the parameters.  `forward_train` is the training
    pass: it uses the batch's statistics and puts them into the parameters.

    Attributes:
      dim: width of the hidden layers.
      blocks: number of residual blocks (scanned).
      checkerboard: the last input channel is the mask: it is not normalised, the
        normalised input counts twice, and the scale starts at 0 instead of 1.
      compute: precision and form of the convolutions.
      features: output channels; filled in by the coupling.
    """

    dim: int = 64
    blocks: int = 8
    checkerboard: bool = False
    compute: Compute = Compute()
    features: int = 0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        image, mask = (x[..., :-1], [x[..., -1:]]) if self.checkerboard else (x, [])
        r = BatchShift(name="bn_in")(image, train)
        r = 2.0 * r if self.checkerboard else r
        h = nn.relu(jnp.concatenate([r, -r, *mask], axis=-1))
        conv: dict[str, Any] = dict(compute=self.compute)
        h = WeightNormConv(self.dim, 3, False, **conv, name="h_in")(h)
        skips = WeightNormConv(self.dim, 1, **conv, name="skip_in")(h)
        skips = self._blocks(h, skips, train)
        h = nn.relu(BatchShift(name="bn_pre_out")(skips, train))
        out = WeightNormConv(self.features, 1, **conv, name="out")(h)
        shift, raw = jnp.split(out, 2, axis=-1)
        # The names of the released code, whose L2 penalty takes the first one only.
        name, init = ("rescaling_scale", zeros) if self.checkerboard else ("scale", ones)
        return jnp.concatenate([shift, leaf(self, name, init, ()) * jnp.tanh(raw)], axis=-1)

    def forward_train(self, x: jax.Array) -> jax.Array:
        """Return the output by the batch's statistics; needs mutable=["params"]."""
        return self(x, train=True)

    def _blocks(self, h: Array, skips: Array, train: bool) -> Array:
        block = ResidualBlock(self.dim, self.compute, parent=None)
        if self.is_initializing():
            params = self.param("blocks", stacked(block, self.blocks), h.shape[1:])
        else:
            params = self.get_variable("params", "blocks")

        def run(carry: PyTree, p: PyTree) -> tuple[PyTree, PyTree]:
            h, skips = carry
            (h, skip), new = block.apply({"params": p}, h, train, mutable=["params"])
            used = {name: new["params"][name] for name in ("bn_in", "bn_0")} if train else None
            return (h, skips + skip), used

        (_, skips), used = jax.lax.scan(run, (h, skips), params)
        if train:
            self.put_variable("params", "blocks", {**params, **used})
        return skips
