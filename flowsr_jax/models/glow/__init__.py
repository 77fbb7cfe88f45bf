"""Glow: generative flow with invertible 1x1 convolutions (Kingma and Dhariwal, 2018)."""

from flowsr_jax.models.base import Family
from flowsr_jax.models.glow import losses, network, sample, weights
from flowsr_jax.models.glow.config import GlowConfig

FAMILY = Family(
    name="glow",
    config_class=GlowConfig,
    module=network.Glow,
    init=network.init,
    losses={"nll": losses.nll_loss},
    sample=sample.sample,
    kind=lambda config: "unconditional",
    channels=lambda config: config.image_shape[-1],
    multiple=lambda config: config.multiple,
    image_shape=lambda config: config.image_shape,
    n_bits=lambda config: config.n_bits,
    classes=lambda config: config.classes,
    default_temperature=lambda config: config.temperature,
    check_hr=sample.check_image,
    encode=sample.encode,
    decode=sample.decode,
    bits_per_dim=sample.bits_per_dim,
    init_from_data=losses.init_from_data,
    views=sample.FLOW.views,
    check_invertibility=sample.check_invertibility,
    latent_shapes=network.latent_shapes,
    noise_shapes=network.latent_shapes,
    weights=weights.WEIGHTS,
)

__all__ = ["FAMILY", "GlowConfig"]
