"""RealNVP: density estimation by real-valued non-volume-preserving maps (Dinh et al., 2017)."""

from flowsr_jax.models.base import Family
from flowsr_jax.models.realnvp import losses, network, sample
from flowsr_jax.models.realnvp.config import RealNVPConfig
from flowsr_jax.models.unconditional import check_no_lr

FAMILY = Family(
    name="realnvp",
    config_class=RealNVPConfig,
    init=network.init,
    losses={"nll": losses.nll_loss},
    check_lr=check_no_lr,
    sample=sample.sample,
    check_hr=sample.check_image,
    encode=sample.encode,
    decode=sample.decode,
    bits_per_dim=sample.bits_per_dim,
    init_state=network.init_state,
    views=sample.FLOW.views,
    check_invertibility=sample.check_invertibility,
    latent_shapes=network.latent_shapes,
    noise_shapes=network.latent_shapes,
    multiple=lambda config: config.multiple,
)

__all__ = ["FAMILY", "RealNVPConfig"]
