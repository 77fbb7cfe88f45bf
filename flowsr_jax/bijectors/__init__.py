"""Pure invertible transforms: (output, logdet[B]) over explicit parameters."""

from flowsr_jax.bijectors.actnorm import ActNorm
from flowsr_jax.bijectors.base import Bijector, Composite
from flowsr_jax.bijectors.batchnorm import BatchNorm
from flowsr_jax.bijectors.checkerboard import CheckerboardCoupling
from flowsr_jax.bijectors.compose import Chain, MultiScale
from flowsr_jax.bijectors.conv1x1 import Conv1x1, Conv1x1PLU
from flowsr_jax.bijectors.conv_down import ConvDown
from flowsr_jax.bijectors.coupling import Coupling, Injector, Shift
from flowsr_jax.bijectors.elementwise import (
    Additive,
    Affine,
    Elementwise,
    RationalQuadratic,
    ScaleForm,
)
from flowsr_jax.bijectors.glow import BorderedSplit, TopPrior
from flowsr_jax.bijectors.haar import Haar
from flowsr_jax.bijectors.invertible_block import InvertibleBlock
from flowsr_jax.bijectors.module import Flow
from flowsr_jax.bijectors.permute import Reverse, Shuffle
from flowsr_jax.bijectors.pointwise import Logit, Rescale, Scaling
from flowsr_jax.bijectors.scan import Scan, stack_steps
from flowsr_jax.bijectors.split import ConditionalPrior, Split
from flowsr_jax.bijectors.squeeze import Squeeze
from flowsr_jax.bijectors.vector import Deinterleave, Flatten
from flowsr_jax.bijectors.wrappers import Invert, Part, Swap, Within, Wrapper

__all__ = [
    "ActNorm",
    "Additive",
    "Affine",
    "BatchNorm",
    "Bijector",
    "BorderedSplit",
    "Chain",
    "CheckerboardCoupling",
    "Composite",
    "ConditionalPrior",
    "Conv1x1",
    "Conv1x1PLU",
    "ConvDown",
    "Coupling",
    "Deinterleave",
    "Elementwise",
    "Flatten",
    "Flow",
    "Haar",
    "Injector",
    "Invert",
    "InvertibleBlock",
    "Logit",
    "MultiScale",
    "Part",
    "RationalQuadratic",
    "Rescale",
    "Reverse",
    "ScaleForm",
    "Scaling",
    "Scan",
    "Shift",
    "Shuffle",
    "Split",
    "Squeeze",
    "Swap",
    "TopPrior",
    "Within",
    "Wrapper",
    "stack_steps",
]
