"""RRDB: its initial parameters, and the image of an LR image."""

from __future__ import annotations

from flowsr_jax.models.base import Params
from flowsr_jax.models.rrdb.config import RRDBConfig
from flowsr_jax.nets import rrdb as net


def init(config: RRDBConfig, key) -> Params:
    """Random parameters (initial values of the released code)."""
    return Params({"encoder": net.init_rrdb(key, config)}, config)


def apply(encoder, lr, config: RRDBConfig):
    """Super-resolved image [B,s*h,s*w,3] of the encoder parameters, not clipped."""
    features, _ = net.trunk(encoder, lr, config, config.compute)
    top = config.scale if config.head == "nearest_conv" else 1
    features = net.upsampled_features(encoder, features, config, config.compute, top)
    return net.head(encoder, features, lr, config, config.compute)
