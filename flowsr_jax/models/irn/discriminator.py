"""The discriminator of IRN+ and the GAN losses that estimate a Jensen-Shannon divergence.

The released discriminator_vgg_128; ../shared/spec/irn.md section 7.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
from jax import lax

from flowsr_jax.config import Range, Width, check_ranges, choice
from flowsr_jax.nets.conv import HIGHEST
from flowsr_jax.nets.dense_block import leaky_relu
from flowsr_jax.nets.rrdb import init_conv

EPS, MOMENTUM, HIDDEN = 1e-5, 0.1, 100
STAGES = 5


@dataclasses.dataclass(frozen=True)
class DiscriminatorConfig:
    """Hyper-parameters of the discriminator.

    Attributes:
      nf: channels of the first stage; the last has 8 nf.
      size: side of the (square) images it judges, the HR training patch.
    """

    nf: Width = 64
    size: Annotated[int, Range(2**STAGES, 2**16)] = 144

    def __post_init__(self):
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
    """{name of each batch norm: channels}, in order; the first convolution has none."""
    names = {f"bn{i}_{j}": c for i, c in enumerate(config.widths) for j in (0, 1)}
    del names["bn0_0"]
    return names


def init_discriminator(key, config: DiscriminatorConfig):
    """Parameters with PyTorch's default initial values (the released code sets none)."""
    keys = iter(jax.random.split(key, 2 * STAGES + 2))
    params, ci = {}, 3
    for i, co in enumerate(config.widths):
        for j, kernel in enumerate((3, 4)):
            conv = init_conv(next(keys), kernel, ci, co)
            params[f"conv{i}_{j}"] = conv if i == j == 0 else {"w": conv["w"]}
            ci = co
    for name, channels in norm_names(config).items():
        params[name] = {"scale": jnp.ones(channels), "bias": jnp.zeros(channels)}
    for name, ni, no in (("linear1", config.flat, HIDDEN), ("linear2", HIDDEN, 1)):
        linear = init_conv(next(keys), 1, ni, no)
        params[name] = {"w": linear["w"][0, 0].T, "b": linear["b"]}
    return params


def init_statistics(config: DiscriminatorConfig):
    """Running means and variances of the batch norms before any pass."""
    return {
        name: {"mean": jnp.zeros(channels), "var": jnp.ones(channels)}
        for name, channels in norm_names(config).items()
    }


def discriminate(params, statistics, x, config: DiscriminatorConfig, train: bool = True):
    """Logits [B,1] of images, and the running statistics after the pass.

    Args:
      params, statistics: of `init_discriminator` and `init_statistics`.
      x: [B,H,W,3]; square of side config.size (up to rounding down to multiples of 32).
      config: hyper-parameters.
      train: normalise by the batch's own statistics and move the running ones.

    Raises:
      ValueError: images of another size.
    """
    side = config.size // 2**STAGES
    if x.shape[1] // 2**STAGES != side or x.shape[2] // 2**STAGES != side:
        raise ValueError(
            f"the discriminator judges images of {config.size}x{config.size} pixels, got shape "
            f"{tuple(x.shape)}"
        )
    new = {}
    for i in range(STAGES):
        for j in (0, 1):
            conv, norm = params[f"conv{i}_{j}"], f"bn{i}_{j}"
            x = _conv(x, conv["w"], stride=1 + j)
            if "b" in conv:
                x = x + conv["b"]
            else:
                x, new[norm] = _batch_norm(params[norm], statistics[norm], x, train)
            x = leaky_relu(x)
    # The released weights count channels slowest.
    x = x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)
    x = leaky_relu(_linear(params["linear1"], x))
    return _linear(params["linear2"], x), new


def _conv(x, w, stride):
    return lax.conv_general_dilated(
        x,
        w,
        (stride, stride),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=HIGHEST,
    )


def _linear(p, x):
    return jnp.matmul(x, p["w"].T, precision=HIGHEST) + p["b"]


def _batch_norm(p, running, x, train):
    mean, var = running["mean"], running["var"]
    if train:
        axes = (0, 1, 2)
        mean, var = jnp.mean(x, axes), jnp.var(x, axes)
        count = x.size // x.shape[-1]
        unbiased = var * (count / max(count - 1, 1))
        running = {
            "mean": (1 - MOMENTUM) * running["mean"] + MOMENTUM * mean,
            "var": (1 - MOMENTUM) * running["var"] + MOMENTUM * unbiased,
        }
    y = (x - mean) * lax.rsqrt(var + EPS) * p["scale"] + p["bias"]
    return y, lax.stop_gradient(running)


def bce(logits, target: float):
    """Mean binary cross entropy of logits against one target, 0 or 1."""
    return jnp.mean(jax.nn.softplus(logits) - target * logits)


def generator_loss(fake, real=None, kind: str = "gan"):
    """What the generator minimises, of logits [B,1].

    "gan": -log sigmoid(fake) (non-saturating); "ragan": relativistic average, which
    also needs `real` (a constant).
    """
    choice("gan", kind, ("gan", "ragan"))
    if kind == "gan":
        return bce(fake, 1.0)
    real = lax.stop_gradient(real)
    return (bce(real - jnp.mean(fake), 0.0) + bce(fake - jnp.mean(real), 1.0)) / 2


def discriminator_loss(real, fake, kind: str = "gan"):
    """What the discriminator minimises, of logits [B,1]; see `generator_loss`."""
    choice("gan", kind, ("gan", "ragan"))
    if kind == "gan":
        return bce(real, 1.0) + bce(fake, 0.0)
    return (bce(real - jnp.mean(fake), 1.0) + bce(fake - jnp.mean(real), 0.0)) / 2
