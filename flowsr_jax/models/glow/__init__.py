"""Glow: generative flow with invertible 1x1 convolutions (Kingma and Dhariwal, 2018)."""

from flowsr_jax.models.glow.family import FAMILY
from flowsr_jax.models.glow.model import GlowConfig

__all__ = ["FAMILY", "GlowConfig"]
