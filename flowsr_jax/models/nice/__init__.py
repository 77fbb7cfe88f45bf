"""NICE: non-linear independent components estimation (Dinh, Krueger and Bengio, 2014)."""

from flowsr_jax.models.base import Family
from flowsr_jax.models.nice import losses, network, sample
from flowsr_jax.models.nice.config import NICEConfig

FAMILY = Family(
    name="nice",
    config_class=NICEConfig,
    module=network.NICE,
    init=network.init,
    losses={"nll": losses.nll_loss},
    sample=sample.sample,
    kind=lambda config: "unconditional",
    channels=lambda config: config.image_shape[-1],
    image_shape=lambda config: config.image_shape,
    default_temperature=lambda config: config.temperature,
    check_hr=sample.check_image,
    encode=sample.encode,
    decode=sample.decode,
    bits_per_dim=sample.bits_per_dim,
    views=sample.FLOW.views,
    check_invertibility=sample.check_invertibility,
    latent_shapes=network.latent_shapes,
    noise_shapes=network.latent_shapes,
)

__all__ = ["FAMILY", "NICEConfig"]
