"""Learnable down-sampling (IRN at x3): one matrix mixes the pixels of every block."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from einops import rearrange

from flowsr_jax.bijectors.base import Array, Bijector, PyTree, Shape, require, require_positive
from flowsr_jax.bijectors.conv1x1 import Conv1x1

_HAAR = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], np.float32) / 4


@dataclasses.dataclass(frozen=True)
class ConvDown(Bijector):
    """[B,H,W,C] -> [B,H/f,W/f,C f f]: channel k*C + c is sum_m W[k,m] x_c[m].

    m counts the pixels of a block by rows; W [f f, f f] is shared by all colours and
    starts with the block mean in band 0.  logdet = (H/f)(W/f) C log|det W|.
    The released code's use_ConvDownsampling; docs/papers/irn.md section 1.

    Attributes:
      factor: block size f.
    """

    factor: int

    def __post_init__(self) -> None:
        require_positive("ConvDown: factor", self.factor)

    def init(self, key: Array, shape: Shape) -> PyTree:
        """Return Haar's matrix for f = 2; else band 0 is the mean and band k is pixel k."""
        n = self.factor**2
        matrix = _HAAR if n == 4 else np.eye(n, dtype=np.float32)
        matrix = np.concatenate([np.full((1, n), 1 / n, np.float32), matrix[1:]])
        return {"weight": jnp.asarray(matrix)}

    def output_shape(self, shape: Shape) -> Shape:
        f = self.factor
        require(
            len(shape) == 3 and shape[0] % f == 0 and shape[1] % f == 0,
            f"ConvDown: height and width must be multiples of {f}, got shape {tuple(shape)}",
        )
        return (shape[0] // f, shape[1] // f, shape[2] * f * f)

    def prepare(self, params: PyTree, cond: PyTree = None, inverse: bool = False) -> PyTree:
        return Conv1x1().prepare(params, inverse=inverse)

    def _blocks(self, x: Array) -> Array:
        """Return [B,H,W,C] as [B,H/f,W/f,C,f f]."""
        self.output_shape(x.shape[1:])
        f = self.factor
        return rearrange(x, "b (h p) (w q) c -> b h w c (p q)", p=f, q=f)

    def forward(
        self, params: PyTree, x: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        y, logdet = Conv1x1().forward(params, self._blocks(x), prepared=prepared)
        return rearrange(y, "b h w c k -> b h w (k c)"), logdet

    def inverse(
        self, params: PyTree, y: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        f = self.factor
        require(
            y.ndim == 4 and y.shape[-1] % f**2 == 0,
            f"ConvDown: channels must be a multiple of {f**2}, got shape {tuple(y.shape)}",
        )
        bands = rearrange(y, "b h w (k c) -> b h w c k", k=f**2)
        blocks, logdet = Conv1x1().inverse(params, bands, prepared=prepared)
        return rearrange(blocks, "b h w c (p q) -> b (h p) (w q) c", p=f, q=f), logdet

    def scales(self, params: PyTree, x: Array, cond: PyTree = None) -> Array:
        return Conv1x1().scales(params, self._blocks(x))

    def condition_number(self, params: PyTree) -> float:
        return Conv1x1().condition_number(params)
