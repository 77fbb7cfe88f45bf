"""SRFlow: a conditional normalizing flow for super-resolution (Lugmayr et al., ECCV 2020)."""

from flowsr_jax.models.srflow.family import FAMILY
from flowsr_jax.models.srflow.model import SRFlowConfig

__all__ = ["FAMILY", "SRFlowConfig"]
