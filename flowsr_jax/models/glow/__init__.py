"""Glow: generative flow with invertible 1x1 convolutions (Kingma and Dhariwal, 2018)."""

from flowsr_jax.models.base import Family
from flowsr_jax.models.glow import losses, network, sample, weights
from flowsr_jax.models.glow.config import GlowConfig
from flowsr_jax.models.unconditional import check_no_lr

FAMILY = Family(
    name="glow",
    config_class=GlowConfig,
    init=network.init,
    losses={"nll": losses.nll_loss},
    check_lr=check_no_lr,
    sample=sample.sample,
    check_hr=sample.check_image,
    encode=sample.encode,
    decode=sample.decode,
    bits_per_dim=sample.bits_per_dim,
    init_from_data=losses.init_from_data,
    views=sample.FLOW.views,
    check_invertibility=sample.check_invertibility,
    latent_shapes=network.latent_shapes,
    noise_shapes=network.latent_shapes,
    recognise_torch=weights.TF_MAP.recognise,
    from_torch=weights.TF_MAP,
    multiple=lambda config: config.multiple,
)

__all__ = ["FAMILY", "GlowConfig"]
