"""Pure invertible transforms: (output, logdet[B]) over explicit parameters."""

from flowsr_jax.bijectors.actnorm import ActNorm
from flowsr_jax.bijectors.base import Bijector
from flowsr_jax.bijectors.compose import Chain, Invert, MultiScale, Scan, stack_steps
from flowsr_jax.bijectors.conv1x1 import Conv1x1, Conv1x1PLU
from flowsr_jax.bijectors.coupling import Affine, Coupling, Injector, ScaleForm, Shift
from flowsr_jax.bijectors.permute import Reverse, Shuffle
from flowsr_jax.bijectors.split import Split
from flowsr_jax.bijectors.squeeze import Squeeze

__all__ = [
    "ActNorm",
    "Affine",
    "Bijector",
    "Chain",
    "Conv1x1",
    "Conv1x1PLU",
    "Coupling",
    "Injector",
    "Invert",
    "MultiScale",
    "Reverse",
    "Scan",
    "ScaleForm",
    "Shift",
    "Shuffle",
    "Split",
    "Squeeze",
    "stack_steps",
]
