"""IRN: invertible image rescaling (Xiao et al., ECCV 2020; IJCV 2023)."""

from flowsr_jax.models.irn.family import FAMILY, decode, downscale, encode, upscale
from flowsr_jax.models.irn.model import IRNConfig

__all__ = ["FAMILY", "IRNConfig", "decode", "downscale", "encode", "upscale"]
