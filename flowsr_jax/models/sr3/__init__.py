"""SR3: super-resolution by iterative refinement (Saharia et al., 2021), and DDPM."""

from flowsr_jax.models.sr3.family import FAMILY
from flowsr_jax.models.sr3.model import SR3Config, predict_noise

__all__ = ["FAMILY", "SR3Config", "predict_noise"]
