"""RealNVP: density estimation by real-valued non-volume-preserving maps (Dinh et al., 2017)."""

from flowsr_jax.models.realnvp.family import FAMILY
from flowsr_jax.models.realnvp.model import RealNVPConfig

__all__ = ["FAMILY", "RealNVPConfig"]
