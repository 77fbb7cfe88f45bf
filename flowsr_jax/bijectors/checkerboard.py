"""Checkerboard couplings (Dinh et al., RealNVP, section 3.4)."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from flowsr_jax.bijectors.base import Array, Shape, require
from flowsr_jax.bijectors.coupling import Conditioned
from flowsr_jax.bijectors.elementwise import Affine, Elementwise, logdet_of
from flowsr_jax.config import choice

SITES = ("even", "odd")


def checkerboard(h: int, w: int, sites: str) -> np.ndarray:
    """Return a boolean [h,w,1], true where row + column is "even" or "odd"."""
    parity = np.add.outer(np.arange(h), np.arange(w)) % 2
    return (parity == SITES.index(sites))[..., None]


@dataclasses.dataclass(frozen=True)
class CheckerboardCoupling(Conditioned):
    """Half of the sites pass unchanged and condition the others.

    The network sees the passed sites (zero elsewhere) and, as its last channel, the
    mask: it maps C + 1 channels to `transform.outputs(C)`.

    Attributes:
      net: the network, as of `Coupling`.
      transform: the elementwise map of the other sites.
      passed: "even" or "odd" sites (row + column) pass.
    """

    net: nn.Module
    transform: Elementwise = Affine()
    passed: str = "even"

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("passed", self.passed, SITES)

    def output_shape(self, shape: Shape) -> Shape:
        require(
            len(shape) == 3 and shape[0] * shape[1] > 1,
            f"CheckerboardCoupling: needs [H,W,C] with at least 2 sites, got {tuple(shape)}",
        )
        return shape

    def widths(self, channels: int) -> tuple[int, int]:
        return channels + 1, channels

    def seen(self, x: Array) -> tuple[Array, Array]:
        self.output_shape(x.shape[1:])
        mask = jnp.asarray(checkerboard(*x.shape[1:3], self.passed))
        plane = jnp.broadcast_to(mask, (*x.shape[:-1], 1)).astype(x.dtype)
        return jnp.concatenate([jnp.where(mask, x, 0.0), plane], axis=-1), mask

    def change(self, x: Array, raw: Array, context: Array, inverse: bool) -> tuple[Array, Array]:
        z = jnp.where(context, x, self.transform(x, raw, inverse)[0])
        # A second call, which the compiler merges with the first: so the programs stay those
        # that tests/test_frozen.py keeps.
        logs = self.transform(x, raw, inverse)[1]
        if logs is not None:
            logs = jnp.where(context, 0.0, logs)
        return z, logdet_of(logs, x, inverse)

    def log_slope(self, x: Array, raw: Array, context: Array) -> Array | None:
        logs = self.transform(x, raw)[1]
        return None if logs is None else jnp.where(context, 0.0, logs)
