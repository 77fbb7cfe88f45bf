"""Group normalisation and self-attention over positions; statistics in float32.

Source: ../shared/spec/sr3.md section 1 (9, 13) and section 12.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from flowsr_jax.nets.conv import HIGHEST, Compute, conv2d

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


def self_attention(p, x, groups: int, compute: Compute):
    """Return what attention adds to x [B,H,W,C]: one head, all positions, no residual.

    Logits q.k / sqrt(C); the softmax is float32.  Large maps go block by block, so that
    memory grows with H*W and not with its square.
    """
    b, h, w, c = x.shape
    qkv = conv2d(group_norm(p["norm"], x, groups), p["qkv"]["w"], None, compute)
    q, k, v = jnp.split(qkv.astype(x.dtype).reshape(b, h * w, 3 * c), 3, axis=-1)
    options = {"precision": HIGHEST, "preferred_element_type": jnp.float32}

    def attend(q):
        """Queries [B,...,C] to mixed values of the same shape, float32."""
        logits = jnp.einsum("b...c,bkc->b...k", q, k, **options) / math.sqrt(c)
        weights = jax.nn.softmax(logits, axis=-1).astype(x.dtype)
        return jnp.einsum("b...k,bkc->b...c", weights, v, **options)

    if h * w <= ALL_AT_ONCE:
        mixed = attend(q)
    else:
        blocks = functools.partial(lax.map, jax.checkpoint(attend), batch_size=BLOCK)
        mixed = blocks(q.swapaxes(0, 1)).swapaxes(0, 1)
    mixed = mixed.reshape(b, h, w, c).astype(x.dtype)
    return conv2d(mixed, p["out"]["w"], p["out"]["b"], compute)
