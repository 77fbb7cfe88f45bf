"""Group normalisation and self-attention over positions; statistics in float32.

Source: ../shared/spec/sr3.md section 1 (9, 13) and section 12.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from flowsr_jax.math.arrays import is_known
from flowsr_jax.nets.conv import Compute, bilinear, conv2d

EPSILON = 1e-5
ALL_AT_ONCE = 64 * 64  # positions whose pairs are all held in memory
BLOCK = 1024  # queries at a time beyond


def group_norm(p, x, groups: int):
    """Normalise [B,H,W,C] over H, W and each of `groups` contiguous channel groups.

    Biased variance, epsilon 1e-5; computed in float32, returned in the dtype of x.
    """
    b, _, _, c = x.shape
    y = x.astype(jnp.float32)

    def over_groups(per_channel):
        mean = jnp.mean(per_channel.reshape(b, groups, c // groups), axis=-1)
        return jnp.repeat(mean, c // groups, axis=-1)[:, None, None, :]

    # Channel sums first: the groups are narrow, and reducing them alone is slow.
    y = y - over_groups(jnp.mean(y, axis=(1, 2)))
    variance = over_groups(jnp.mean(jnp.square(y), axis=(1, 2)))
    y = y * (jax.lax.rsqrt(variance + EPSILON) * p["scale"]) + p["bias"]
    return y.astype(x.dtype)


def self_attention(p, x, groups: int, compute: Compute, heads: int = 1):
    """Return what attention adds to x [B,H,W,C]: all positions, no residual.

    q, k and v are C channels each, of `heads` contiguous parts; logits q.k / sqrt(C / heads);
    the softmax is float32.  Large maps go block by block, so that memory grows with H*W and
    not with its square.
    """
    b, h, w, c = x.shape
    qkv = conv2d(group_norm(p["norm"], x, groups), p["qkv"]["w"], None, compute)
    qkv = qkv.astype(x.dtype).reshape(b, h * w, 3, heads, c // heads)
    q, k, v = (qkv[:, :, i] for i in range(3))

    def einsum(text, a, b):
        return bilinear(
            lambda a, b, dtype: jnp.einsum(
                text, a, b, precision=compute.precision, preferred_element_type=dtype
            ),
            a,
            b,
        )

    def attend(q):
        """Queries [B,...,heads,C/heads] to mixed values of the same shape, float32."""
        logits = einsum("b...hc,bkhc->b...hk", q, k) / math.sqrt(c // heads)
        weights = jax.nn.softmax(logits, axis=-1).astype(x.dtype)
        return einsum("b...hk,bkhc->b...hc", weights, v)

    if not is_known((h, w)) or h * w <= ALL_AT_ONCE:  # open sizes: jax.export
        mixed = attend(q)
    else:
        blocks = functools.partial(lax.map, jax.checkpoint(attend), batch_size=BLOCK)
        mixed = blocks(q.swapaxes(0, 1)).swapaxes(0, 1)
    mixed = mixed.reshape(b, h, w, c).astype(x.dtype)
    return conv2d(mixed, p["out"]["w"], p["out"]["b"], compute)
