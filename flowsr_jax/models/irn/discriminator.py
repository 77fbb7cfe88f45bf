"""The discriminator of IRN+ and the GAN losses that estimate a Jensen-Shannon divergence.

The released discriminator_vgg_128; docs/papers/irn.md section 5.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jax import lax

from flowsr_jax.config import Range, Width, check_ranges, choice
from flowsr_jax.nets.discriminator import STAGES, Discriminator
from flowsr_jax.types import Array, PyTree


@dataclasses.dataclass(frozen=True)
class DiscriminatorConfig:
    """Hyper-parameters of the discriminator.

    Attributes:
      nf: channels of the first stage; the last has 8 nf.
      size: side of the (square) images it judges, the HR training patch.
    """

    nf: Width = 64
    size: Annotated[int, Range(2**STAGES, 2**16)] = 144

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def widths(self) -> tuple[int, ...]:
        """Output channels of the five stages."""
        return tuple(min(2**i, 8) * self.nf for i in range(STAGES))

    @property
    def flat(self) -> int:
        """Inputs of the first linear layer."""
        return self.widths[-1] * (self.size // 2**STAGES) ** 2


def norm_names(config: DiscriminatorConfig) -> dict[str, int]:
    """Return {name of each batch norm: channels}, in order; the first convolution has none."""
    names = {f"bn{i}_{j}": c for i, c in enumerate(config.widths) for j in (0, 1)}
    del names["bn0_0"]
    return names


def init_discriminator(key: Array, config: DiscriminatorConfig) -> PyTree:
    """Return parameters with PyTorch's default initial values (the released code sets none)."""
    return Discriminator(config).lazy_init(key, _images(config))["params"]


def init_statistics(config: DiscriminatorConfig) -> PyTree:
    """Return running means and variances of the batch norms before any pass."""
    return {
        name: {"mean": jnp.zeros(channels), "var": jnp.ones(channels)}
        for name, channels in norm_names(config).items()
    }


def _images(config: DiscriminatorConfig) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, config.size, config.size, 3), jnp.float32)


def discriminate(
    params: PyTree, statistics: PyTree, x: Array, config: DiscriminatorConfig, train: bool = True
) -> tuple[Array, PyTree]:
    """Return logits [B,1] of images, and the running statistics after the pass.

    Args:
      params, statistics: of `init_discriminator` and `init_statistics`.
      x: [B,H,W,3]; square of side config.size (up to rounding down to multiples of 32).
      config: hyper-parameters.
      train: normalise by the batch's own statistics and move the running ones.

    Raises:
      ValueError: images of another size.
    """
    variables = {"params": params, "batch_stats": statistics}
    logits, new = Discriminator(config).apply(variables, x, train, mutable=["batch_stats"])
    return logits, new["batch_stats"]


def bce(logits: Array, target: float) -> Array:
    """Return the mean binary cross entropy of logits against one target, 0 or 1."""
    return jnp.mean(jax.nn.softplus(logits) - target * logits)


def generator_loss(fake: Array, real: Any = None, kind: str = "gan") -> Array:
    """Return what the generator minimises, of logits [B,1].

    "gan": -log sigmoid(fake) (non-saturating); "ragan": relativistic average, which
    also needs `real` (a constant).
    """
    choice("gan", kind, ("gan", "ragan"))
    if kind == "gan":
        return bce(fake, 1.0)
    real = lax.stop_gradient(real)
    return (bce(real - jnp.mean(fake), 0.0) + bce(fake - jnp.mean(real), 1.0)) / 2


def discriminator_loss(real: Array, fake: Array, kind: str = "gan") -> Array:
    """Return what the discriminator minimises, of logits [B,1]; see `generator_loss`."""
    choice("gan", kind, ("gan", "ragan"))
    if kind == "gan":
        return bce(real, 1.0) + bce(fake, 0.0)
    return (bce(real - jnp.mean(fake), 1.0) + bce(fake - jnp.mean(real), 0.0)) / 2
