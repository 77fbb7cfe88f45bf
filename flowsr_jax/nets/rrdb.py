"""RRDB low-resolution encoder of ESRGAN and SRFlow.

Source: ../shared/spec/srflow.md section 3; Wang et al., ESRGAN (ECCVW 2018), and
Lugmayr et al., SRFlow (ECCV 2020).  Note that the trunk's skip adds the output of
the last block, not of the first convolution as in ESRGAN's reference.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from flowsr_jax.math.resize import imresize
from flowsr_jax.nets import random
from flowsr_jax.nets.conv import Compute, conv2d
from flowsr_jax.nets.upsampled import conv_nearest


def init_conv(key, kernel: int, ci: int, co: int, mode: str = "default", gain: float = 1.0):
    """Weights {"w": [k,k,ci,co], "b": [co]}.

    mode "default" is PyTorch's (uniform in +-1/sqrt(fan_in), bias too); "kaiming"
    is normal with fan_in and gain sqrt 2, times `gain`, zero bias; "zeros" is zero.
    """
    shape, fan_in = (kernel, kernel, ci, co), kernel * kernel * ci
    if mode == "zeros":
        return {"w": jnp.zeros(shape), "b": jnp.zeros(co)}
    if mode == "kaiming":
        w = gain * math.sqrt(2.0 / fan_in) * random.normal(key, shape)
        return {"w": w, "b": jnp.zeros(co)}
    kw, kb = jax.random.split(key)
    bound = 1.0 / math.sqrt(fan_in)
    return {
        "w": random.uniform(kw, shape, bound),
        "b": random.uniform(kb, (co,), bound),
    }


def apply_conv(p, x, compute: Compute):
    """3x3 convolution with bias, float32 out."""
    return conv2d(x, p["w"], p["b"], compute)


def leaky_relu(x):
    """LeakyReLU with slope 0.2."""
    return jnp.where(x >= 0, x, 0.2 * x)


def pixel_shuffle(x, factor: int):
    """[B,H,W,C f f] -> [B,fH,fW,C]; channel c*f*f + dy*f + dx (PyTorch's order)."""
    b, h, w, c = x.shape
    c //= factor * factor
    x = x.reshape(b, h, w, c, factor, factor).transpose(0, 1, 4, 2, 5, 3)
    return x.reshape(b, h * factor, w * factor, c)


def init_dense_block(key, nf: int, gc: int):
    """Five convolutions with dense connections, Kaiming x 0.1."""
    keys = jax.random.split(key, 5)
    outs = (gc, gc, gc, gc, nf)
    return {
        f"conv{i + 1}": init_conv(keys[i], 3, nf + i * gc, outs[i], "kaiming", 0.1)
        for i in range(5)
    }


def dense_block(p, x, compute: Compute):
    """Residual dense block: [B,H,W,nf] -> [B,H,W,nf]."""
    features = [x]
    for i in range(1, 5):
        y = apply_conv(p[f"conv{i}"], jnp.concatenate(features, axis=-1), compute)
        features.append(leaky_relu(y))
    return 0.2 * apply_conv(p["conv5"], jnp.concatenate(features, axis=-1), compute) + x


def init_rrdb(key, config):
    """Parameters of the encoder; `config` is an `RRDBConfig`."""
    n_up = config.num_upconvs
    keys = iter(jax.random.split(key, 3 * config.nb + n_up + 4))
    nf = config.nf
    blocks = [
        {f"rdb{j}": init_dense_block(next(keys), nf, config.gc) for j in (1, 2, 3)}
        for _ in range(config.nb)
    ]
    params = {
        "conv_first": init_conv(next(keys), 3, config.in_channels, nf),
        "blocks": jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks),
        "trunk_conv": init_conv(next(keys), 3, nf, nf),
    }
    if config.head == "subpixel":
        out = config.out_channels * config.scale**2
        params["to_image"] = init_conv(next(keys), 3, nf, out, "kaiming", 0.1)
        return params
    for i in range(1, n_up + 1):
        params[f"upconv{i}"] = init_conv(next(keys), 3, nf, nf)
    params["hr_conv"] = init_conv(next(keys), 3, nf, nf)
    params["conv_last"] = init_conv(next(keys), 3, nf, config.out_channels)
    return params


def trunk(params, lr, config, compute: Compute, keep: tuple[int, ...] = ()):
    """LR image -> (features [B,h,w,nf], outputs of the RRDBs with the indices `keep`)."""
    first = x = apply_conv(params["conv_first"], lr, compute)

    def run(x, block):
        y = x
        for j in (1, 2, 3):
            y = dense_block(block[f"rdb{j}"], y, compute)
        x = 0.2 * y + x
        # All or none: the backward pass keeps each block's input anyway.
        return x, x if keep else None

    if compute.memory == "remat":
        run = jax.checkpoint(run)
    unroll = config.nb if compute.unroll else 1
    x, outputs = jax.lax.scan(run, x, params["blocks"], length=config.nb, unroll=unroll)
    skip = first if config.skip == "first" else x
    features = skip + apply_conv(params["trunk_conv"], x, compute)
    return features, [outputs[i] for i in keep]


def upsampled_features(params, fea, config, compute: Compute, top: int):
    """Features at 1, 2, 4, ... times the LR size, up to factor `top`.

    The activation belongs to the feature (it is in-place in the released code);
    the feature at factor 1 has none.
    """
    features = {1: fea}
    for i in range(1, int(math.log2(top)) + 1):
        p = params[f"upconv{i}"]
        y = conv_nearest(features[2 ** (i - 1)], p["w"], 2, compute) + p["b"]
        features[2**i] = leaky_relu(y)
    return features


def head(params, features, lr, config, compute: Compute):
    """The super-resolved image of the encoder, [B,s*h,s*w,3], not clipped.

    `config.head` "nearest_conv" is the released form; "subpixel" predicts s*s
    sub-pixels per LR position.  With `config.residual` the head predicts the
    difference to the MATLAB-bicubic enlargement.
    """
    if config.head == "subpixel":
        image = pixel_shuffle(apply_conv(params["to_image"], features[1], compute), config.scale)
    else:
        y = leaky_relu(apply_conv(params["hr_conv"], features[config.scale], compute))
        image = apply_conv(params["conv_last"], y, compute)
    if config.residual:
        image = image + imresize(lr, config.scale)
    return image


def half_size(x):
    """Mean of 2x2 blocks (bilinear half, align_corners false): [B,H,W,C] -> half."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean(axis=(2, 4))
