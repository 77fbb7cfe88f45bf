"""AlexNet and VGG16 features as pure functions of torchvision's own tensors.

Parameters are a plain dict {official name: float32 array}, e.g. "features.0.weight"
[O,I,kh,kw]; names and layout are those of the files, so a state dict needs no conversion.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import lax

from flowsr_jax.config import choice

EPS_L2 = 1e-12


@dataclasses.dataclass(frozen=True)
class Conv:
    """One convolution; `pool` stands before it, `tap` reads its output after the ReLU."""

    index: int
    out: int
    inp: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    pool: bool = False
    tap: bool = False

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return {official name: shape} of its tensors."""
        name, k = f"features.{self.index}", self.kernel
        return {f"{name}.weight": (self.out, self.inp, k, k), f"{name}.bias": (self.out,)}


@dataclasses.dataclass(frozen=True)
class Backbone:
    """What LPIPS and DISTS need to know of a network.

    Attributes:
      title: its name in messages.
      file: the name of torchvision's weight file.
      convs: in order.
      pool: window of the max pooling (stride 2, no padding, rounded down).
      minimum: pixels per side below which the last tap is empty.
    """

    title: str
    file: str
    convs: tuple[Conv, ...]
    pool: int
    minimum: int

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the taps."""
        return tuple(c.out for c in self.convs if c.tap)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return {official name: shape} of all tensors."""
        return {name: shape for conv in self.convs for name, shape in conv.shapes().items()}


def _vgg16() -> tuple[Conv, ...]:
    stages = ((64, (0, 2)), (128, (5, 7)), (256, (10, 12, 14)))
    stages += ((512, (17, 19, 21)), (512, (24, 26, 28)))
    convs, width = [], 3
    for out, indices in stages:
        for index in indices:
            first, last = index == indices[0], index == indices[-1]
            convs.append(Conv(index, out, width, pool=first and index > 0, tap=last))
            width = out
    return tuple(convs)


NETS = {
    # torchvision's AlexNet (one group, no LRN), not the paper's.
    "alex": Backbone(
        "AlexNet",
        "alexnet-owt-7be5be79.pth",
        (
            Conv(0, 64, 3, 11, 4, 2, tap=True),
            Conv(3, 192, 64, 5, 1, 2, pool=True, tap=True),
            Conv(6, 384, 192, pool=True, tap=True),
            Conv(8, 256, 384, tap=True),
            Conv(10, 256, 256, tap=True),
        ),
        pool=3,
        minimum=31,
    ),
    "vgg": Backbone("VGG16", "vgg16-397923af.pth", _vgg16(), pool=2, minimum=16),
}


def get_backbone(net: str) -> Backbone:
    """Return the record of "alex" or "vgg"; ConfigError for another name."""
    return NETS[choice("net", net, NETS)]


def taps(params: Mapping, x, net: str = "alex", *, l2_pool: bool = False) -> list[jax.Array]:
    """Return the features after the tapped ReLUs, finest first.

    Args:
      params: the backbone's tensors by official name (other keys are ignored).
      x: [B,H,W,3] float32, already normalised as the backbone wants it.
      net: "alex" (relu1..relu5) or "vgg" (relu1_2, 2_2, 3_3, 4_3, 5_3).
      l2_pool: replace each max pooling by `pool_l2` (DISTS).

    Returns:
      Five arrays [B,h,w,C] float32.
    """
    backbone, found = get_backbone(net), []
    for conv in backbone.convs:
        if conv.pool:
            x = pool_l2(x) if l2_pool else _pool_max(x, backbone.pool)
        name = f"features.{conv.index}"
        x = lax.conv_general_dilated(
            x,
            params[f"{name}.weight"],
            (conv.stride, conv.stride),
            ((conv.padding, conv.padding),) * 2,
            dimension_numbers=("NHWC", "OIHW", "NHWC"),
            precision=lax.Precision.HIGHEST,
        )
        # Not jnp.maximum: where all channels are 0 the gradient of their norm is NaN, and
        # only the derivative of jax.nn.relu masks it.
        x = jax.nn.relu(x + params[f"{name}.bias"])
        if conv.tap:
            found.append(x)
    return found


def pool_l2(x):
    """Return blurred L2 pooling, sqrt(blur(x^2) + 1e-12): 3x3 Hann window, stride 2, zeros.

    Args:
      x: [B,H,W,C].

    Returns:
      [B,ceil(H/2),ceil(W/2),C].

    Source: Henaff and Simoncelli 2016; DISTS_pytorch L2pooling.
    """
    y = jnp.square(x)
    for axis in (1, 2):
        size = y.shape[axis]
        padding = [(0, 0)] * 4
        padding[axis] = (1, 1)
        y = jnp.pad(y, padding)
        left, middle, right = (
            lax.slice_in_dim(y, i, i + size, stride=2, axis=axis) for i in range(3)
        )
        y = 0.25 * left + 0.5 * middle + 0.25 * right
    return jnp.sqrt(y + EPS_L2)


def _pool_max(x, window: int):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, window, window, 1), (1, 2, 2, 1), "VALID")
