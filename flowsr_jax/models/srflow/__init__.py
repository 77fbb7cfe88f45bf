"""SRFlow: a conditional normalizing flow for super-resolution (Lugmayr et al., ECCV 2020)."""

from flowsr_jax.models.base import Family
from flowsr_jax.models.srflow import losses, network, sample, weights
from flowsr_jax.models.srflow.config import SRFlowConfig

FAMILY = Family(
    name="srflow",
    config_class=SRFlowConfig,
    module=network.SRFlow,
    init=network.init,
    losses={"l1": losses.l1_loss, "nll": losses.nll_loss},
    sample=sample.sample,
    multiple=lambda config: config.multiple,
    default_temperature=lambda config: config.temperature,
    encode=sample.encode,
    decode=sample.decode,
    init_from_data=losses.init_from_data,
    views=sample.views,
    check_invertibility=sample.check_invertibility,
    latent_shapes=network.latent_shapes,
    noise_shapes=lambda config, lr_shape, **options: network.latent_shapes(config, lr_shape),
    weights=weights.WEIGHTS,
)

__all__ = ["FAMILY", "SRFlowConfig"]
