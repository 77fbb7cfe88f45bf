"""Self-attention over positions; statistics and the softmax in float32.

Source: docs/papers/sr3.md section 1.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from flowsr_jax.math.arrays import is_known
from flowsr_jax.nets.conv import Compute, bilinear
from flowsr_jax.nets.layers import Conv, GroupNorm, zeros
from flowsr_jax.nets.orthogonal import orthogonal
from flowsr_jax.types import Array

ALL_AT_ONCE = 64 * 64  # positions whose pairs are all held in memory
BLOCK = 1024  # queries at a time beyond


class SelfAttention(nn.Module):
    """What attention adds to x [B,H,W,C]: all positions, no residual; float32.

    q, k and v are C channels each, of `heads` contiguous parts; logits q.k / sqrt(C / heads);
    the softmax is float32.  Large maps go block by block, so that memory grows with H*W and
    not with its square.

    Attributes:
      groups: of the GroupNorm that x goes through.
      heads: divides C.
      zero_last: the last convolution starts at zero.
      compute: precision and form.
    """

    groups: int
    heads: int = 1
    zero_last: bool = False
    compute: Compute = Compute()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        b, h, w, c = x.shape
        options: dict[str, Any] = {"kernel_size": 1, "compute": self.compute}
        qkv = Conv(3 * c, use_bias=False, kernel_init=orthogonal, name="qkv", **options)
        qkv = qkv(GroupNorm(self.groups, name="norm")(x))
        qkv = qkv.astype(x.dtype).reshape(b, h * w, 3, self.heads, c // self.heads)
        q, k, v = (qkv[:, :, i] for i in range(3))

        def einsum(text: str, a: Array, b: Array) -> Array:
            return bilinear(
                lambda a, b, dtype: jnp.einsum(
                    text, a, b, precision=self.compute.precision, preferred_element_type=dtype
                ),
                a,
                b,
            )

        def attend(q: Array) -> Array:
            """Return the mixed values, float32, of queries [B,...,heads,C/heads]."""
            logits = einsum("b...hc,bkhc->b...hk", q, k) / math.sqrt(c // self.heads)
            weights = jax.nn.softmax(logits, axis=-1).astype(x.dtype)
            return einsum("b...hk,bkhc->b...hc", weights, v)

        if not is_known((h, w)) or h * w <= ALL_AT_ONCE:  # open sizes: jax.export
            mixed = attend(q)
        else:
            blocks = functools.partial(lax.map, jax.checkpoint(attend), batch_size=BLOCK)
            mixed = blocks(q.swapaxes(0, 1)).swapaxes(0, 1)
        mixed = mixed.reshape(b, h, w, c).astype(x.dtype)
        last = zeros if self.zero_last else orthogonal
        return Conv(c, kernel_init=last, name="out", **options)(mixed)
