"""RealNVP: density estimation by real-valued non-volume-preserving maps (Dinh et al., 2017)."""

from flowsr_jax.models.base import Family
from flowsr_jax.models.realnvp import losses, network, sample
from flowsr_jax.models.realnvp.config import RealNVPConfig

FAMILY = Family(
    name="realnvp",
    config_class=RealNVPConfig,
    module=network.RealNVP,
    init=network.init,
    losses={"nll": losses.nll_loss},
    sample=sample.sample,
    kind=lambda config: "unconditional",
    channels=lambda config: config.image_shape[-1],
    multiple=lambda config: config.multiple,
    image_shape=lambda config: config.image_shape,
    default_temperature=lambda config: config.temperature,
    check_hr=sample.check_image,
    encode=sample.encode,
    decode=sample.decode,
    bits_per_dim=sample.bits_per_dim,
    init_state=network.init_state,
    views=sample.FLOW.views,
    check_invertibility=sample.check_invertibility,
    latent_shapes=network.latent_shapes,
    noise_shapes=network.latent_shapes,
)

__all__ = ["FAMILY", "RealNVPConfig"]
