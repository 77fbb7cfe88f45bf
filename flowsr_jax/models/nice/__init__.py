"""NICE: non-linear independent components estimation (Dinh, Krueger and Bengio, 2014)."""

from flowsr_jax.models.nice.family import FAMILY
from flowsr_jax.models.nice.model import NICEConfig

__all__ = ["FAMILY", "NICEConfig"]
