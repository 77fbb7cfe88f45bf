"""flowsr_jax: generative super-resolution in JAX, on TPUs and GPUs.

params = flowsr_jax.load("runs/quickstart")
sr = flowsr_jax.sample(params, lr, jax.random.key(0))
"""

import importlib

from flowsr_jax import models
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
from flowsr_jax.models import MODULES, Params, module, register_family

__version__ = "0.1.0"

# Imported on first use: who only samples does not pay for the data pipeline.
_LAZY = {
    "Metric": "flowsr_jax.metrics.columns",
    "NetworkConfig": "flowsr_jax.nets.choice",
    "SourceKind": "flowsr_jax.data.config",
    "register_metric": "flowsr_jax.metrics.columns",
    "register_network": "flowsr_jax.nets.choice",
    "register_source": "flowsr_jax.data.config",
    "regression_family": "flowsr_jax.models.regression",
}


def __getattr__(name: str):
    if name in MODULES.values():
        return getattr(models, name)
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'flowsr_jax' has no attribute {name!r}")


__all__ = [
    "Metric",
    "NetworkConfig",
    "NonFiniteWarning",
    "Params",
    "SourceKind",
    "bits_per_dim",
    "check_invertibility",
    "decode",
    "downscale",
    "encode",
    "from_torch",
    "imresize",
    "load",
    "module",
    "predict_noise",
    "register_family",
    "register_metric",
    "register_network",
    "register_source",
    "regression_family",
    "sample",
    "save",
    "to_torch",
    "upscale",
]


def __dir__():
    return sorted([*globals(), *_LAZY, *MODULES.values()])
