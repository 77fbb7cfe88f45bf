"""flowsr_jax: generative super-resolution in JAX, on TPUs and GPUs.

params = flowsr_jax.load("runs/quickstart")
sr = flowsr_jax.sample(params, lr, jax.random.key(0))
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    from flowsr_jax.data.config import SourceKind, register_source
    from flowsr_jax.math.resize import imresize
    from flowsr_jax.metrics.columns import Metric, register_metric
    from flowsr_jax.models import Params, module, register_family
    from flowsr_jax.models.regression import regression_family
    from flowsr_jax.nets.choice import NetworkConfig, register_network

__version__ = "0.1.0"

# Everything is imported on first use: the command line answers before jax is loaded, and who
# only samples does not pay for the data pipeline.  {name: its module}; others are in `api`.
_PLACES = {
    "Metric": "metrics.columns",
    "NetworkConfig": "nets.choice",
    "Params": "models",
    "SourceKind": "data.config",
    "imresize": "math.resize",
    "module": "models",
    "register_family": "models",
    "register_metric": "metrics.columns",
    "register_network": "nets.choice",
    "register_source": "data.config",
    "regression_family": "models.regression",
}
_FLAX_MODULES = ("SRFlow", "RRDB", "SR3", "IRN", "Glow", "RealNVP", "NICE")

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


def __getattr__(name: str) -> Any:
    if name in __all__ or name in _FLAX_MODULES:
        place = "models" if name in _FLAX_MODULES else _PLACES.get(name, "api")
        return getattr(importlib.import_module(f"{__name__}.{place}"), name)
    if importlib.util.find_spec(f"{__name__}.{name}"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module 'flowsr_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, *_FLAX_MODULES])
