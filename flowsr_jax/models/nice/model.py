"""NICE's architecture: additive couplings on a vector, a scaling, a factorial prior.

Exact numerics: ../shared/spec/glow.md section 6.  Dinh, Krueger and Bengio (2014).
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp

from flowsr_jax.bijectors import (
    Affine,
    Bijector,
    Chain,
    Coupling,
    Deinterleave,
    Flatten,
    Reverse,
    Scaling,
)
from flowsr_jax.config import ConfigError, choice
from flowsr_jax.math.gaussian import standard_normal_log_prob, sum_event
from flowsr_jax.models.base import Params
from flowsr_jax.models.glow.unconditional import pixels
from flowsr_jax.nets.mlp import MLP

RANGES = {"unit": (1.0, 0.0), "symmetric": (2.0, -1.0)}


@dataclasses.dataclass(frozen=True)
class NICEConfig:
    """Hyper-parameters of NICE; the defaults are MNIST's.

    Attributes:
      shape: of one example: [H,W,C], or [D].
      couplings: additive couplings; each changes the last half, then all is reversed.
      layers, hidden: hidden layers of a coupling's network, and their width.
      prior: "logistic" or "gaussian".
      tile: begin with the elements 0, 2, 4, ..., 1, 3, 5, ...
      range: what the flow sees, "unit" [0,1] (MNIST, TFD, SVHN) or "symmetric" [-1,1]
        (CIFAR-10); published log-likelihoods are densities on that range.
      temperature: default temperature of `sample`.
    """

    family: ClassVar[str] = "nice"
    scale: ClassVar[int] = 1
    classes: ClassVar[int] = 0
    n_bits: ClassVar[int] = 8
    shape: tuple[int, ...] = (28, 28, 1)
    couplings: int = 4
    layers: int = 5
    hidden: int = 1000
    prior: str = "logistic"
    tile: bool = True
    range: str = "unit"
    temperature: float = 1.0

    def __post_init__(self):
        choice("prior", self.prior, ("logistic", "gaussian"))
        choice("range", self.range, tuple(RANGES))
        for field in ("couplings", "hidden"):
            if getattr(self, field) < 1:
                raise ConfigError(f"{field} = {getattr(self, field)} must be at least 1")
        for field in ("layers", "temperature"):
            if getattr(self, field) < 0:
                raise ConfigError(f"{field} = {getattr(self, field)} must be at least 0")
        if len(self.shape) not in (1, 3) or min(self.shape) < 1 or math.prod(self.shape) < 2:
            raise ConfigError(
                f"shape = {self.shape} must be (H, W, C) or (D,), of at least 2 values"
            )

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one drawn example."""
        return self.shape

    @property
    def dims(self) -> int:
        """D, the number of values of one example."""
        return math.prod(self.shape)


def build_flow(config: NICEConfig) -> Chain:
    """The flow as a bijector: example -> latent [B,D]."""
    parts: list[tuple[str, Bijector]] = [("pixels", pixels(*RANGES[config.range]))]
    parts.append(("flatten", Flatten(config.shape)))
    if config.tile:
        parts.append(("tile", Deinterleave()))
    net = MLP(config.hidden, config.layers)
    for i in range(config.couplings):
        parts.append((f"coupling{i}", Coupling(net, Affine(scale=None))))
        parts.append((f"reverse{i}", Reverse()))
    return Chain((*parts, ("scaling", Scaling())))


def init(config: NICEConfig, key) -> Params:
    """Random parameters with the released code's initial values; one group, "flow"."""
    return Params({"flow": build_flow(config).init(key, config.shape)}, config)


def latent_shapes(config: NICEConfig, shape) -> list[tuple[int, ...]]:
    """[[B, D]] for examples of `shape` [B,...]."""
    return [(shape[0], config.dims)]


def logistic_log_prob(z):
    """Standard logistic log-density: [B, ...] -> [B]."""
    return -sum_event(jax.nn.softplus(z) + jax.nn.softplus(-z))


def logistic_from_uniform(u):
    """The standard logistic quantile log u - log(1 - u)."""
    return jnp.log(u) - jnp.log1p(-u)


def prior_log_prob(config: NICEConfig, z):
    """log-density of the latent under the prior: [B,D] -> [B]."""
    density = {"logistic": logistic_log_prob, "gaussian": standard_normal_log_prob}
    return density[config.prior](z)


def draw(config: NICEConfig, key, shape):
    """A latent of the prior."""
    if config.prior == "gaussian":
        return jax.random.normal(key, shape)
    tiny = jnp.finfo(jnp.float32).tiny  # log 0 is not drawn
    return logistic_from_uniform(jax.random.uniform(key, shape, minval=tiny))


def forward(params: Params, image, label=None):
    """([latent [B,D]], log p(image) [B] in nats) of examples in [0,1]."""
    z, logdet = build_flow(params.config).forward(params["flow"], image)
    return [z], logdet + prior_log_prob(params.config, z)


def inverse(params: Params, latents, label=None):
    """The example [B,...] of [latent], not clipped."""
    return build_flow(params.config).inverse(params["flow"], latents[0])[0]
