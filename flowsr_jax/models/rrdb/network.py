"""RRDB: its initial parameters, and the image of an LR image."""

from __future__ import annotations

import flax.linen as nn

from flowsr_jax.models.base import Params
from flowsr_jax.models.rrdb.config import RRDBConfig
from flowsr_jax.nets.rrdb import RRDBEncoder, init_rrdb
from flowsr_jax.types import Array, PyTree


class RRDB(nn.Module):
    """RRDB as a Flax module: LR images [B,h,w,3] in [0,1] to [B,s*h,s*w,3], not clipped.

    Its parameters are the groups of `Params`: {"encoder"}.
    """

    config: RRDBConfig

    def setup(self) -> None:
        self.encoder = RRDBEncoder(self.config)

    def __call__(self, lr: Array) -> Array:
        return self.encoder(lr)


def init(config: RRDBConfig, key: Array) -> Params:
    """Return random parameters (initial values of the released code)."""
    return Params({"encoder": init_rrdb(key, config)}, config)


def apply(encoder: PyTree, lr: Array, config: RRDBConfig) -> Array:
    """Return the super-resolved image [B,s*h,s*w,3] of the encoder parameters, not clipped."""
    return RRDBEncoder(config).apply({"params": encoder}, lr)  # ty: ignore[invalid-explicit-return]
