"""RealNVP's residual network for shift and log-scale, as in the released code.

Batch normalisation without gain, weight-normalised convolutions, and a sum of 1x1 skips
from every block.  Source: docs/papers/glow.md section 6; Dinh et al. (2017).
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from flowsr_jax.nets import random
from flowsr_jax.nets.conv import Compute, conv2d

EPS = 1e-4
STATISTICS = ("mean", "var")  # names of what data, not gradients, move


def batch_statistics(x):
    """{"mean", "var"} [C] of x [..., C] over all other axes; biased variance."""
    axes = tuple(range(x.ndim - 1))
    mean = jnp.mean(x, axis=axes)
    return {"mean": mean, "var": jnp.mean(jnp.square(x - mean), axis=axes)}


def init_weight_norm(key, size: int, ci: int, co: int, magnitude: bool, bias: bool):
    """Kernel "w" [size,size,ci,co] uniform in +-sqrt(2/ci), "magnitude" and "b" if asked for."""
    bound = math.sqrt(2.0 / ci)
    p = {"w": random.uniform(key, (size, size, ci, co), bound)}
    if magnitude:
        # Weakly typed, and so in the programs that tests/test_frozen.py keeps; float32 always.
        with jax.enable_x64(False):
            p["magnitude"] = jnp.full(co, bound * math.sqrt(ci * size * size / 12.0))
    if bias:
        p["b"] = jnp.zeros(co, jnp.float32)
    return p


def weight_norm_conv(p, x, compute: Compute):
    """Convolution by w / |w| (per output channel) times magnitude, plus b."""
    w = p["w"]
    w = w * jax.lax.rsqrt(jnp.sum(jnp.square(w), axis=(0, 1, 2)))
    if "magnitude" in p:
        w = w * p["magnitude"]
    return conv2d(x, w, p.get("b"), compute)


def _init_norm(c: int):
    values = {"mean": 0.0, "var": 1.0, "beta": 0.0}
    return {name: jnp.full(c, value, jnp.float32) for name, value in values.items()}


def _norm(p, x, train: bool):
    """((x - mean) / sqrt(var + eps) + beta, p with the statistics that were used)."""
    if train:
        p = {**p, **batch_statistics(x)}
    return (x - p["mean"]) * jax.lax.rsqrt(p["var"] + EPS) + p["beta"], p


@dataclasses.dataclass(frozen=True)
class RealNVPNet:
    """Residual network; the output is [shift, scale * tanh(...)], one learned scale.

    `apply` uses the moving statistics in the parameters; `forward_train` is the
    training pass: the batch's statistics are used and returned in the parameters.

    Attributes:
      dim: width of the hidden layers.
      blocks: number of residual blocks (scanned).
      checkerboard: the last input channel is the mask: it is not normalised, the
        normalised input counts twice, and the scale starts at 0 instead of 1.
      compute: precision and form of the convolutions.
    """

    dim: int = 64
    blocks: int = 8
    checkerboard: bool = False
    compute: Compute = Compute()

    @property
    def _scale(self) -> str:
        # The names of the released code, whose L2 penalty takes the first one only.
        return "rescaling_scale" if self.checkerboard else "scale"

    def init(self, key, ci: int, co: int):
        """Parameters for [B,H,W,ci] to [B,H,W,co]."""
        image = ci - self.checkerboard
        keys = jax.random.split(key, 3 + self.blocks)
        blocks = [self._init_block(k) for k in keys[3:]]
        return {
            "bn_in": _init_norm(image),
            "h_in": init_weight_norm(keys[0], 3, 2 * image + self.checkerboard, self.dim, 0, 1),
            "skip_in": init_weight_norm(keys[1], 1, self.dim, self.dim, 1, 1),
            "blocks": jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks),
            "bn_pre_out": _init_norm(self.dim),
            "out": init_weight_norm(keys[2], 1, self.dim, co, 1, 1),
            self._scale: jnp.float32(0.0 if self.checkerboard else 1.0),
        }

    def _init_block(self, key):
        k0, k1, k2 = jax.random.split(key, 3)
        return {
            "bn_in": _init_norm(self.dim),
            "h_0": init_weight_norm(k0, 3, self.dim, self.dim, 0, 0),
            "bn_0": _init_norm(self.dim),
            "out": init_weight_norm(k1, 3, self.dim, self.dim, 1, 1),
            "skip": init_weight_norm(k2, 1, self.dim, self.dim, 1, 1),
        }

    def prepare(self, params, cond):
        """None: no part of the network depends on cond."""
        return None

    def prepare_stacked(self, params, cond):
        """None, as `prepare`."""
        return None

    def apply(self, params, x, prepared=None):
        """[shift, log-scale] [B,H,W,co] float32 of x [B,H,W,ci], moving statistics."""
        return self._run(params, x, train=False)[1]

    def init_from_data(self, params, x, cond=None):
        """(params, output): nothing is initialised from data."""
        return params, self.apply(params, x)

    def forward_train(self, params, x, cond=None):
        """(params with the batch's statistics, output with the batch's statistics)."""
        return self._run(params, x, train=True)

    def _run(self, params, x, train: bool):
        new = dict(params)
        image, mask = (x[..., :-1], [x[..., -1:]]) if self.checkerboard else (x, [])
        r, new["bn_in"] = _norm(params["bn_in"], image, train)
        r = 2.0 * r if self.checkerboard else r
        h = jax.nn.relu(jnp.concatenate([r, -r, *mask], axis=-1))
        h = weight_norm_conv(params["h_in"], h, self.compute)
        skips = weight_norm_conv(params["skip_in"], h, self.compute)

        def block(carry, p):
            h, skips = carry
            inner, used_in = _norm(p["bn_in"], h, train)
            inner = weight_norm_conv(p["h_0"], jax.nn.relu(inner), self.compute)
            inner, used_0 = _norm(p["bn_0"], inner, train)
            h = h + weight_norm_conv(p["out"], jax.nn.relu(inner), self.compute)
            skips = skips + weight_norm_conv(p["skip"], h, self.compute)
            return (h, skips), {"bn_in": used_in, "bn_0": used_0}

        (_, skips), used = jax.lax.scan(block, (h, skips), params["blocks"])
        new["blocks"] = {**params["blocks"], **used}
        h, new["bn_pre_out"] = _norm(params["bn_pre_out"], skips, train)
        out = weight_norm_conv(params["out"], jax.nn.relu(h), self.compute)
        shift, raw = jnp.split(out, 2, axis=-1)
        return new, jnp.concatenate([shift, params[self._scale] * jnp.tanh(raw)], axis=-1)
