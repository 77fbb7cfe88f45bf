"""SRFlow: a conditional normalizing flow for super-resolution (Lugmayr et al., ECCV 2020)."""

from flowsr_jax.models.base import Family
from flowsr_jax.models.inputs import check_lr
from flowsr_jax.models.rrdb.losses import l1_loss
from flowsr_jax.models.srflow import losses, network, sample, weights
from flowsr_jax.models.srflow.config import SRFlowConfig

FAMILY = Family(
    name="srflow",
    config_class=SRFlowConfig,
    init=network.init,
    losses={"l1": l1_loss, "nll": losses.nll_loss},
    check_lr=lambda config, lr: check_lr(lr, 3, config.multiple),
    sample=sample.sample,
    encode=sample.encode,
    decode=sample.decode,
    init_from_data=losses.init_from_data,
    views=sample.views,
    check_invertibility=sample.check_invertibility,
    latent_shapes=network.latent_shapes,
    noise_shapes=lambda config, lr_shape, **options: network.latent_shapes(config, lr_shape),
    recognise_torch=weights.from_torch.recognise,
    from_torch=weights.from_torch,
    multiple=lambda config: config.multiple,
)

__all__ = ["FAMILY", "SRFlowConfig"]
