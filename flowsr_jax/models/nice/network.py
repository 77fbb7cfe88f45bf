"""NICE's architecture: additive couplings on a vector, a scaling, a factorial prior.

Exact numerics: docs/papers/glow.md section 7.  Dinh, Krueger and Bengio (2014).
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from flowsr_jax.bijectors import (
    Additive,
    Bijector,
    Chain,
    Coupling,
    Deinterleave,
    Flatten,
    Reverse,
    Scaling,
)
from flowsr_jax.math.gaussian import standard_normal_log_prob, sum_event
from flowsr_jax.models.base import Params
from flowsr_jax.models.nice.config import RANGES, NICEConfig
from flowsr_jax.models.unconditional import pixels
from flowsr_jax.nets.layers import Tree
from flowsr_jax.nets.mlp import MLP
from flowsr_jax.types import Array, Shape


def build_flow(config: NICEConfig) -> Chain:
    """Return the flow as a bijector: example -> latent [B,D]."""
    parts: list[tuple[str, Bijector]] = [("pixels", pixels(*RANGES[config.range]))]
    parts.append(("flatten", Flatten(config.shape)))
    if config.tile:
        parts.append(("tile", Deinterleave()))
    net = MLP(config.hidden, config.layers, parent=None)
    for i in range(config.couplings):
        parts.append((f"coupling{i}", Coupling(net, Additive())))
        parts.append((f"reverse{i}", Reverse()))
    return Chain((*parts, ("scaling", Scaling())))


def init(config: NICEConfig, key: Array) -> Params:
    """Return random parameters with the released code's initial values; one group, "flow"."""
    return Params({"flow": build_flow(config).init(key, config.shape)}, config)


def latent_shapes(config: NICEConfig, shape: Shape) -> list[tuple[int, ...]]:
    """Return [[B, D]] for examples of `shape` [B,...]."""
    return [(shape[0], config.dims)]


def logistic_log_prob(z: Array) -> Array:
    """Return the standard logistic log-density: [B, ...] -> [B]."""
    return -sum_event(jax.nn.softplus(z) + jax.nn.softplus(-z))


def logistic_from_uniform(u: Array) -> Array:
    """Return the standard logistic quantile log u - log(1 - u)."""
    return jnp.log(u) - jnp.log1p(-u)


def prior_log_prob(config: NICEConfig, z: Array) -> Array:
    """Return the log-density of the latent under the prior: [B,D] -> [B]."""
    density = {"logistic": logistic_log_prob, "gaussian": standard_normal_log_prob}
    return density[config.prior](z)


def draw(config: NICEConfig, key: Array, shape: Shape) -> Array:
    """Return a latent of the prior."""
    if config.prior == "gaussian":
        return jax.random.normal(key, shape, jnp.float32)
    tiny = jnp.finfo(jnp.float32).tiny  # log 0 is not drawn
    return logistic_from_uniform(jax.random.uniform(key, shape, jnp.float32, minval=tiny))


class NICE(nn.Module):
    """NICE as a Flax module; its parameters are the groups of `Params`: {"flow"}."""

    config: NICEConfig

    def setup(self) -> None:
        c = self.config
        self.flow = Tree(lambda key: build_flow(c).init(key, c.shape))

    def __call__(self, image: Array) -> Array:
        """Return log p(image) in nats [B]; see `encode`."""
        return self.encode(image)[1]

    def encode(self, image: Array) -> tuple[list[Array], Array]:
        """Return ([latent [B,D]], log p(image) [B] in nats) of examples [B,...] in [0,1]."""
        z, logdet = build_flow(self.config).forward(self.flow(), image)
        return [z], logdet + prior_log_prob(self.config, z)

    def decode(self, latents: list[Array]) -> Array:
        """Return the example [B,...] of [latent], not clipped."""
        return build_flow(self.config).inverse(self.flow(), latents[0])[0]


def forward(params: Params, image: Array, label: Array | None = None) -> tuple[list[Array], Array]:
    """Return `NICE.encode` of parameters; there are no labels."""
    return NICE(params.config).apply({"params": params.tree}, image, method="encode")  # ty: ignore[invalid-explicit-return]


def inverse(params: Params, latents: list[Array], label: Array | None = None) -> Array:
    """Return `NICE.decode` of parameters; there are no labels."""
    return NICE(params.config).apply({"params": params.tree}, latents, method="decode")  # ty: ignore[invalid-explicit-return]
