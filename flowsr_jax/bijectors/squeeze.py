"""Squeeze: trade positions for channels.  Volume preserving."""

from __future__ import annotations

import dataclasses

from einops import rearrange

from flowsr_jax.bijectors.base import (
    Array,
    Bijector,
    PyTree,
    Shape,
    require,
    require_positive,
    zeros_logdet,
)
from flowsr_jax.config import choice

# Out channel of input channel c and pixel (dy, dx) of its block.
_PATTERNS = {
    "channel_major": "b (h p) (w q) c -> b h w (c p q)",
    "space_to_depth": "b (h p) (w q) c -> b h w (p q c)",
}
# RealNVP's ordered squeeze visits the 2x2 block as (0,0), (1,1), (0,1), (1,0) ...
_REALNVP_ORDER = (0, 3, 1, 2)


@dataclasses.dataclass(frozen=True)
class Squeeze(Bijector):
    """[B,H,W,C] -> [B,H/f,W/f,C f f].

    Attributes:
      factor: block size f.
      order: "channel_major" (channel c*f*f + dy*f + dx; Glow, SRFlow and PyTorch's
        pixel_unshuffle), "space_to_depth" (channel (dy*f + dx)*C + c), or "realnvp"
        (the released RealNVP's ordered squeeze, factor 2).

    Raises:
      ValueError: a factor below 1, or an unknown order.
    """

    factor: int = 2
    order: str = "channel_major"

    def __post_init__(self) -> None:
        require_positive("Squeeze: factor", self.factor)
        choice("order", self.order, (*_PATTERNS, "realnvp"))
        require(self.order != "realnvp" or self.factor == 2, "order 'realnvp' needs factor 2")

    def output_shape(self, shape: Shape) -> Shape:
        f = self.factor
        require(
            len(shape) == 3 and shape[0] % f == 0 and shape[1] % f == 0,
            f"Squeeze: height and width must be multiples of {f}, got shape {tuple(shape)}",
        )
        return (shape[0] // f, shape[1] // f, shape[2] * f * f)

    def forward(
        self, params: PyTree, x: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        self.output_shape(x.shape[1:])
        f = self.factor
        if self.order == "realnvp":
            y = rearrange(x, "b (h p) (w q) c -> b h w (p q) c", p=f, q=f)
            y = rearrange(y[..., list(_REALNVP_ORDER), :], "b h w o c -> b h w (o c)")
        else:
            y = rearrange(x, _PATTERNS[self.order], p=f, q=f)
        return y, zeros_logdet(x)

    def inverse(
        self, params: PyTree, y: Array, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Array, Array]:
        f = self.factor
        require(
            y.ndim == 4 and y.shape[-1] % (f * f) == 0,
            f"Squeeze: channels must be a multiple of {f * f}, got shape {tuple(y.shape)}",
        )
        if self.order == "realnvp":
            x = rearrange(y, "b h w (o c) -> b h w o c", o=f * f)
            back = [_REALNVP_ORDER.index(i) for i in range(f * f)]
            x = rearrange(x[..., back, :], "b h w (p q) c -> b (h p) (w q) c", p=f, q=f)
        else:
            left, right = _PATTERNS[self.order].split(" -> ")
            x = rearrange(y, f"{right} -> {left}", p=f, q=f)
        return x, zeros_logdet(y)
