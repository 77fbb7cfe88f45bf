"""flowsr_jax: generative super-resolution in JAX, on TPUs and GPUs.

params = flowsr_jax.load("runs/quickstart")
sr = flowsr_jax.sample(params, lr, jax.random.key(0))
"""

from flowsr_jax.api import (
    NonFiniteWarning,
    bits_per_dim,
    check_invertibility,
    decode,
    downscale,
    encode,
    from_torch,
    load,
    predict_noise,
    sample,
    save,
    to_torch,
    upscale,
)
from flowsr_jax.math.resize import imresize
from flowsr_jax.models import Params

__version__ = "0.1.0"

__all__ = [
    "NonFiniteWarning",
    "Params",
    "bits_per_dim",
    "check_invertibility",
    "decode",
    "downscale",
    "encode",
    "from_torch",
    "imresize",
    "load",
    "predict_noise",
    "sample",
    "save",
    "to_torch",
    "upscale",
]
