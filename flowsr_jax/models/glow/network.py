"""Glow's architecture: a multi-scale flow, a learned top prior, a classifier.

Exact numerics: docs/papers/glow.md.  Kingma and Dhariwal (NeurIPS 2018).
"""

from __future__ import annotations

import dataclasses

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
from flowsr_jax.nets.glow_net import LOGSCALE, GlowNet, init_linear_zeros, linear_zeros

PERMUTATIONS = {
    "reverse": Reverse(),
    "shuffle": Shuffle(),
    "conv1x1": Conv1x1(),
    "conv1x1_plu": Conv1x1PLU(),
}
COUPLINGS = {"additive": Additive(), "affine": Affine(ScaleForm("sigmoid2"))}


def build_flow(config: GlowConfig) -> Chain:
    """The flow as a bijector: image -> latents, finest first, the last not yet whitened."""
    compute = config.compute
    net = GlowNet(config.hidden, config.border, compute)
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
    """The bijector that whitens the coarsest latent."""
    return TopPrior(config.learn_top, config.classes, config.border)


def init(config: GlowConfig, key) -> Params:
    """Random parameters with the released code's initial values (ActNorm not yet).

    Groups: "flow"; "prior" if the top prior has parameters; "classifier" if there is one.
    """
    flow_key, prior_key = jax.random.split(key)
    flow, side = build_flow(config), config.multiple
    shape = (side, side, config.channels)
    tree = {"flow": flow.init(flow_key, shape)}
    top = latent_shapes(config, (1, *shape))[-1][1:]
    if prior := top_prior(config).init(prior_key, top):
        tree["prior"] = prior
    if config.has_classifier:
        tree["classifier"] = init_linear_zeros(top[-1], config.classes)
    return Params(tree, config)


def latent_shapes(config: GlowConfig, shape) -> list[tuple[int, ...]]:
    """Shapes of the latents of images [B,H,W,C], finest level first."""
    multiscale = build_flow(config)["multiscale"]
    return [(shape[0], *s) for s in multiscale.output_shape(tuple(shape[1:]))]


def forward(params: Params, image, label=None):
    """The exact forward pass.

    Args:
      params: Glow parameters.
      image: [B,H,W,C] in [0,1].
      label: int [B] with classes, else None.

    Returns:
      (latents, log p(image | label) [B] of the density on [0,1]-valued images in nats,
      the coarsest latent before the top prior): latents are standard normal.
    """
    config = params.config
    latents, logdet = build_flow(config).forward(params["flow"], image)
    top = latents[-1]
    prior = params.get("prior", {})
    latents[-1], whitening = top_prior(config).forward(prior, top, {"label": label})
    log_prob = logdet + whitening + sum(standard_normal_log_prob(z) for z in latents)
    return latents, log_prob, top


def whole_flow(config: GlowConfig) -> Chain:
    """Return the flow with the top prior as its last layer: image -> latents."""
    flow = build_flow(config)
    scales = flow["multiscale"]
    scales = dataclasses.replace(scales, splits=(*scales.splits[:-1], top_prior(config)))
    return Chain((*flow.bijectors[:-1], ("multiscale", scales)))


def whole_params(params: Params):
    """Return the parameters of `whole_flow`."""
    levels = params["flow"]["multiscale"]
    last = f"level{params.config.levels}"
    top = {**levels[last], "prior": params.get("prior", {})}
    return {**params["flow"], "multiscale": {**levels, last: top}}


def unwhiten(params: Params, latents, label=None):
    """Latents as `build_flow` gives them: the coarsest one with the top prior undone."""
    prior = params.get("prior", {})
    top, _ = top_prior(params.config).inverse(prior, latents[-1], {"label": label})
    return [*latents[:-1], top]


def inverse(params: Params, latents, label=None):
    """The image [B,H,W,C] of latents, not clipped."""
    latents = unwhiten(params, latents, label)
    return build_flow(params.config).inverse(params["flow"], latents)[0]


def logits(params: Params, top):
    """Class scores [B,classes] from the coarsest latent before the top prior."""
    return linear_zeros(params["classifier"], jnp.mean(top, axis=(1, 2)))
