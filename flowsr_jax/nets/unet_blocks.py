"""The residual block and the strided convolution of the denoising U-Net."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from flowsr_jax.nets.attention import group_norm, self_attention
from flowsr_jax.nets.conv import Compute, conv2d, convolve, matmul
from flowsr_jax.nets.embedding import linear
from flowsr_jax.nets.rrdb import half_size
from flowsr_jax.nets.upsampled import nearest


def residual_block(layer, config):
    """Return the function (params, h, embedding, dropout key) -> h of a residual block."""
    groups, compute = config.norm_groups, config.compute
    dtype = compute.operands
    scale = math.sqrt(0.5) if config.block == "biggan" else 1.0
    resample = {"down": half_size, "up": lambda x: nearest(x, 2)}.get(layer.kind, lambda x: x)

    def run(p, x, e, key):
        h = jax.nn.silu(group_norm(p["norm1"], x, groups))
        h, x = resample(h), resample(x)
        h = conv2d(h, p["conv1"]["w"], p["conv1"]["b"], compute)
        level = linear(p["level"], e, compute)[:, None, None, :]
        if config.affine:
            gain, shift = jnp.split(level, 2, axis=-1)
            h = (1 + gain) * h + shift
        else:
            h = h + level
        h = jax.nn.silu(group_norm(p["norm2"], h.astype(dtype), groups))
        if key is not None and config.dropout:
            keep = jax.random.bernoulli(key, 1 - config.dropout, h.shape)
            h = jnp.where(keep, h / (1 - config.dropout), 0).astype(dtype)
        h = conv2d(h, p["conv2"]["w"], p["conv2"]["b"], compute)
        skip = conv2d(x, p["skip"]["w"], p["skip"]["b"], compute) if "skip" in p else x
        h = ((h + skip) * scale).astype(dtype)
        if layer.attention:
            heads = layer.co // config.head_channels if config.head_channels else 1
            mixed = self_attention(p["attn"], h, groups, compute, heads)
            h = ((h + mixed) * scale).astype(dtype)
        return h

    return jax.checkpoint(run) if compute.memory == "remat" else run


def down_conv(x, kernel, compute: Compute):
    """3x3 convolution with stride 2, padded by 1 on all sides: [B,H,W,C] -> half, float32.

    On the CPU a product with the nine strided copies side by side, whose gradient does
    not fall back to a naive loop (see nets/conv.py).
    """
    x, kernel = x.astype(compute.operands), kernel.astype(compute.operands)
    xla = functools.partial(_down_xla, compute.precision)
    gemm = functools.partial(_down_gemm, compute.precision)
    if compute.conv == "auto":
        return lax.platform_dependent(x, kernel, cpu=gemm, default=xla)
    return (gemm if compute.conv == "gemm" else xla)(x, kernel)


def _down_xla(precision, x, kernel):
    return convolve(((1, 1), (1, 1)), 2, x, kernel, precision)


def _down_gemm(precision, x, kernel):
    _, h, w, c = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    copies = [padded[:, i : i + h : 2, j : j + w : 2] for i in range(3) for j in range(3)]
    return matmul(jnp.concatenate(copies, axis=-1), kernel.reshape(9 * c, -1), precision)
