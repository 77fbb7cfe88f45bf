"""RRDB: the L1-trained super-resolver that SRFlow uses as its LR encoder (Wang et al., 2018)."""

import dataclasses

from flowsr_jax.models.regression import regression_family
from flowsr_jax.models.rrdb import network, weights
from flowsr_jax.models.rrdb.config import RRDBConfig

FAMILY = dataclasses.replace(
    regression_family(
        "rrdb",
        RRDBConfig,
        init=network.init,
        apply=lambda params, lr: network.apply(params["encoder"], lr, params.config),
        losses=("l1",),
        channels=lambda config: config.out_channels,
        lr_channels=lambda config: config.in_channels,
        weights=weights.WEIGHTS,
    ),
    module=network.RRDB,
)

__all__ = ["FAMILY", "RRDBConfig"]
