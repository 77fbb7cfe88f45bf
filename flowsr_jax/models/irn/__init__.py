"""IRN: invertible image rescaling (Xiao et al., ECCV 2020; IJCV 2023)."""

from flowsr_jax.models.base import Family
from flowsr_jax.models.irn import losses, network, plus, sample, weights
from flowsr_jax.models.irn.config import IRNConfig

FAMILY = Family(
    name="irn",
    config_class=IRNConfig,
    module=network.IRN,
    init=network.init,
    losses={
        "rescale": losses.rescale_loss,
        "plus": plus.plus_loss,
        "discriminator": plus.plus_discriminator_loss,
        "restore": losses.restore_loss,
    },
    sample=sample.sample,
    kind=lambda config: "rescaling",
    lr_channels=lambda config: config.channels,
    default_temperature=lambda config: config.z_scale,
    likelihood=False,
    codec_groups=("generator",),
    repairs_jpeg=lambda config: config.restorer is not None,
    check_hr=sample.check_hr,
    encode=sample.encode,
    decode=sample.decode,
    downscale=sample.downscale,
    upscale=sample.upscale,
    init_state=plus.init_state,
    views=sample.views,
    check_invertibility=sample.check_invertibility,
    latent_shapes=network.latent_shapes,
    noise_shapes=network.noise_shapes,
    programs=sample.programs,
    weights=weights.WEIGHTS,
    notes=plus.notes,
)

__all__ = ["FAMILY", "IRNConfig"]
