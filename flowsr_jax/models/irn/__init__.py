"""IRN: invertible image rescaling (Xiao et al., ECCV 2020; IJCV 2023)."""

from flowsr_jax.models.base import Family
from flowsr_jax.models.inputs import check_lr
from flowsr_jax.models.irn import losses, network, plus, sample, weights
from flowsr_jax.models.irn.config import IRNConfig

FAMILY = Family(
    name="irn",
    config_class=IRNConfig,
    init=network.init,
    losses={
        "rescale": losses.rescale_loss,
        "plus": plus.plus_loss,
        "discriminator": plus.plus_discriminator_loss,
        "restore": losses.restore_loss,
    },
    check_lr=lambda config, lr: check_lr(lr, config.channels),
    sample=sample.sample,
    check_hr=sample.check_hr,
    encode=sample.encode,
    decode=sample.decode,
    likelihood=False,
    downscale=sample.downscale,
    upscale=sample.upscale,
    init_state=plus.init_state,
    views=sample.views,
    check_invertibility=sample.check_invertibility,
    latent_shapes=network.latent_shapes,
    noise_shapes=network.noise_shapes,
    group_files={"features": weights.vgg_from_torch},
    notes=plus.notes,
    recognise_torch=weights.from_torch.recognise,
    from_torch=weights.from_torch,
)

__all__ = ["FAMILY", "IRNConfig"]
