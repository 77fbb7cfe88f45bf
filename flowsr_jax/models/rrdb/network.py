"""RRDB: its initial parameters, and the image of an LR image."""

from __future__ import annotations

import flax.linen as nn

from flowsr_jax.models.base import Params
from flowsr_jax.models.rrdb.config import RRDBConfig
from flowsr_jax.nets.rrdb import RRDBEncoder, init_rrdb


class RRDB(nn.Module):
    """RRDB as a Flax module: LR images [B,h,w,3] in [0,1] to [B,s*h,s*w,3], not clipped.

    Its parameters are the groups of `Params`: {"encoder"}.
    """

    config: RRDBConfig

    def setup(self):
        self.encoder = RRDBEncoder(self.config)

    def __call__(self, lr):
        return self.encoder(lr)


def init(config: RRDBConfig, key) -> Params:
    """Return random parameters (initial values of the released code)."""
    return Params({"encoder": init_rrdb(key, config)}, config)


def apply(encoder, lr, config: RRDBConfig):
    """Return the super-resolved image [B,s*h,s*w,3] of the encoder parameters, not clipped."""
    return RRDBEncoder(config).apply({"params": encoder}, lr)
