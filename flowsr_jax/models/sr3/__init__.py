"""SR3: super-resolution by iterative refinement (Saharia et al., 2021), and DDPM."""

from flowsr_jax.models.sr3.config import SR3Config
from flowsr_jax.models.sr3.family import FAMILY
from flowsr_jax.models.sr3.model import predict_noise

__all__ = ["FAMILY", "SR3Config", "predict_noise"]
