"""RRDB: the L1-trained super-resolver that SRFlow uses as its LR encoder (Wang et al., 2018)."""

from flowsr_jax.models.base import Family
from flowsr_jax.models.inputs import check_lr
from flowsr_jax.models.rrdb import losses, network, sample, weights
from flowsr_jax.models.rrdb.config import RRDBConfig

FAMILY = Family(
    name="rrdb",
    config_class=RRDBConfig,
    init=network.init,
    losses={"l1": losses.l1_loss},
    check_lr=lambda config, lr: check_lr(lr, channels=config.in_channels),
    sample=sample.sample,
    recognise_torch=weights.from_torch.recognise,
    from_torch=weights.from_torch,
    views=sample.views,
)

__all__ = ["FAMILY", "RRDBConfig"]
