"""Glow's architecture: a multi-scale flow, a learned top prior, a classifier.

Exact numerics: docs/papers/glow.md.  Kingma and Dhariwal (NeurIPS 2018).
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from flowsr_jax.bijectors import (
    ActNorm,
    Additive,
    Affine,
    BorderedSplit,
    Chain,
    Conv1x1,
    Conv1x1PLU,
    Coupling,
    MultiScale,
    Reverse,
    ScaleForm,
    Scan,
    Shuffle,
    Split,
    Squeeze,
    TopPrior,
)
from flowsr_jax.math.gaussian import standard_normal_log_prob
from flowsr_jax.models.base import Params
from flowsr_jax.models.glow.config import GlowConfig
from flowsr_jax.models.unconditional import pixels
from flowsr_jax.nets.choice import build_network
from flowsr_jax.nets.glow_net import GlowNet, ZeroDense
from flowsr_jax.nets.layers import LOGSCALE, Tree, init_params
from flowsr_jax.types import Array, PyTree, Shape

PERMUTATIONS = {
    "reverse": Reverse(),
    "shuffle": Shuffle(),
    "conv1x1": Conv1x1(),
    "conv1x1_plu": Conv1x1PLU(),
}
COUPLINGS = {"additive": Additive(), "affine": Affine(ScaleForm("sigmoid2"))}


def build_flow(config: GlowConfig) -> Chain:
    """Return the bijector: image -> latents, finest first, the last not yet whitened."""
    compute = config.compute
    if config.network is None:
        net = GlowNet(config.hidden, config.border, compute, parent=None)
    else:
        net = build_network(config.network, compute=compute)
    step = Chain(
        (
            ("actnorm", ActNorm(LOGSCALE)),
            ("permutation", PERMUTATIONS[config.permutation]),
            ("coupling", Coupling(net, COUPLINGS[config.coupling])),
        )
    )
    steps = Scan(step, config.steps, unroll=compute.unroll, memory=compute.memory)
    level = Chain((("squeeze", Squeeze()), ("steps", steps)))
    split = (BorderedSplit if config.border else Split)(compute=compute)
    splits = (split,) * (config.levels - 1) + (None,)
    multiscale = MultiScale((level,) * config.levels, splits)
    return Chain((("pixels", pixels(shift=-0.5)), ("multiscale", multiscale)))


def top_prior(config: GlowConfig) -> TopPrior:
    """Return the bijector that whitens the coarsest latent."""
    return TopPrior(config.learn_top, config.classes, config.border)


class Glow(nn.Module):
    """Glow as a Flax module; its parameters are the groups of `Params`.

    These are {"flow"}, "prior" if the top prior has parameters, "classifier" if there is one.
    """

    config: GlowConfig

    def setup(self) -> None:
        c = self.config
        self.flow = Tree(lambda key: build_flow(c).init(key, _smallest(c)))
        self.prior = Tree(lambda key: top_prior(c).init(key, top_shape(c)))
        if c.has_classifier:
            self.classifier = ZeroDense(c.classes)

    def __call__(self, image: Array, label: Array | None = None) -> Array:
        """Return log p(image | label) in nats [B]; see `encode`."""
        _, log_prob, top = self.forward(image, label)
        if self.is_initializing() and self.config.has_classifier:
            self.logits(top)
        return log_prob

    def encode(self, image: Array, label: Array | None = None) -> tuple[list[Array], Array]:
        """Return (latents, finest first, and log p(image | label) [B]); see `forward`."""
        return self.forward(image, label)[:2]

    def forward(self, image: Array, label: Array | None = None) -> tuple[list[Array], Array, Array]:
        """Evaluate the exact forward pass.

        Args:
          image: [B,H,W,C] in [0,1].
          label: int [B] with classes, else None.

        Returns:
          (latents, log p(image | label) [B] of the density on [0,1]-valued images in nats,
          the coarsest latent before the top prior): latents are standard normal.
        """
        latents, logdet = build_flow(self.config).forward(self.flow(), image)
        top, cond = latents[-1], {"label": label}
        latents[-1], whitening = top_prior(self.config).forward(self.prior(), top, cond)
        log_prob = logdet + whitening + sum(standard_normal_log_prob(z) for z in latents)
        return latents, log_prob, top

    def decode(self, latents: list[Array], label: Array | None = None) -> Array:
        """Return the image [B,H,W,C] of latents, not clipped."""
        *finer, top = latents
        top, _ = top_prior(self.config).inverse(self.prior(), top, {"label": label})
        return build_flow(self.config).inverse(self.flow(), [*finer, top])[0]

    def logits(self, top: Array) -> Array:
        """Return class scores [B,classes] of the coarsest latent before the top prior."""
        return self.classifier(jnp.mean(top, axis=(1, 2)))


def _smallest(config: GlowConfig) -> tuple[int, int, int]:
    """Return the shape of the smallest image that all levels can halve."""
    return (config.multiple, config.multiple, config.channels)


def top_shape(config: GlowConfig) -> tuple[int, ...]:
    """Return the shape of the coarsest latent of the smallest image, without the batch."""
    return latent_shapes(config, (1, *_smallest(config)))[-1][1:]


def init(config: GlowConfig, key: Array) -> Params:
    """Return random parameters with the released code's initial values (ActNorm not yet).

    Groups: "flow"; "prior" if the top prior has parameters; "classifier" if there is one.
    """
    flow_key, prior_key = jax.random.split(key)
    tree = {"flow": build_flow(config).init(flow_key, _smallest(config))}
    if prior := top_prior(config).init(prior_key, top_shape(config)):
        tree["prior"] = prior
    if config.has_classifier:
        mean = jax.ShapeDtypeStruct((1, top_shape(config)[-1]), jnp.float32)
        tree["classifier"] = init_params(ZeroDense(config.classes, parent=None), prior_key, mean)
    return Params(tree, config)


def latent_shapes(config: GlowConfig, shape: Shape) -> list[tuple[int, ...]]:
    """Return the shapes of the latents of images [B,H,W,C], finest level first."""
    multiscale = build_flow(config)["multiscale"]
    return [(shape[0], *s) for s in multiscale.output_shape(tuple(shape[1:]))]


def forward(
    params: Params, image: Array, label: Array | None = None
) -> tuple[list[Array], Array, Array]:
    """Return `Glow.forward` of parameters."""
    return Glow(params.config).apply({"params": params.tree}, image, label, method="forward")  # ty: ignore[invalid-explicit-return]


def whole_flow(config: GlowConfig) -> Chain:
    """Return the flow with the top prior as its last layer: image -> latents."""
    flow = build_flow(config)
    scales = flow["multiscale"]
    scales = dataclasses.replace(scales, splits=(*scales.splits[:-1], top_prior(config)))  # ty: ignore[invalid-argument-type, missing-attribute]
    return Chain((*flow.bijectors[:-1], ("multiscale", scales)))


def whole_params(params: Params) -> PyTree:
    """Return the parameters of `whole_flow`."""
    levels = params["flow"]["multiscale"]
    last = f"level{params.config.levels}"
    top = {**levels[last], "prior": params.get("prior", {})}
    return {**params["flow"], "multiscale": {**levels, last: top}}


def inverse(params: Params, latents: list[Array], label: Array | None = None) -> Array:
    """Return `Glow.decode` of parameters."""
    return Glow(params.config).apply({"params": params.tree}, latents, label, method="decode")  # ty: ignore[invalid-explicit-return]


def logits(params: Params, top: Array) -> Array:
    """Return `Glow.logits` of parameters."""
    return Glow(params.config).apply({"params": params.tree}, top, method="logits")  # ty: ignore[invalid-explicit-return]
