"""SR3: super-resolution by iterative refinement (Saharia et al., 2021), and DDPM."""

from flowsr_jax.models.base import Family
from flowsr_jax.models.sr3 import arguments, losses, network, sample, weights
from flowsr_jax.models.sr3.config import SR3Config

FAMILY = Family(
    name="sr3",
    config_class=SR3Config,
    module=network.SR3,
    init=network.init,
    losses={"eps": losses.eps_loss},
    sample=sample.sample,
    kind=lambda config: "super_resolution" if config.unet.cond_channels else "unconditional",
    channels=lambda config: config.unet.image_channels,
    lr_channels=lambda config: config.unet.image_channels,
    image_shape=arguments.image_shape,
    classes=lambda config: config.classes,
    views=sample.views,
    noise_shapes=sample.noise_shapes,
    predict_noise=network.predict_noise,
    weights=weights.WEIGHTS,
)

__all__ = ["FAMILY", "SR3Config"]
