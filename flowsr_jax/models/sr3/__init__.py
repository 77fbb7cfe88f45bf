"""SR3: super-resolution by iterative refinement (Saharia et al., 2021), and DDPM."""

from flowsr_jax.models.base import Family
from flowsr_jax.models.sr3 import arguments, losses, network, sample, weights
from flowsr_jax.models.sr3.config import SR3Config

FAMILY = Family(
    name="sr3",
    config_class=SR3Config,
    init=network.init,
    losses={"eps": losses.eps_loss},
    check_lr=arguments.check_lr,
    sample=sample.sample,
    views=sample.views,
    noise_shapes=sample.noise_shapes,
    predict_noise=network.predict_noise,
    recognise_torch=weights.from_torch.recognise,
    from_torch=weights.from_torch,
)

__all__ = ["FAMILY", "SR3Config"]
