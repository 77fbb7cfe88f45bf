"""Glow's architecture: a multi-scale flow, a learned top prior, a classifier.

Exact numerics: ../shared/spec/glow.md.  Kingma and Dhariwal (NeurIPS 2018).
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from flowsr_jax.bijectors import (
    ActNorm,
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
from flowsr_jax.config import ConfigError, choice
from flowsr_jax.math.gaussian import standard_normal_log_prob
from flowsr_jax.models.base import Params
from flowsr_jax.models.glow.unconditional import pixels
from flowsr_jax.nets.conv import Compute
from flowsr_jax.nets.glow_net import LOGSCALE, GlowNet, init_linear_zeros, linear_zeros

PERMUTATIONS = {
    "reverse": Reverse(),
    "shuffle": Shuffle(),
    "conv1x1": Conv1x1(),
    "conv1x1_plu": Conv1x1PLU(),
}
COUPLINGS = {"additive": Affine(scale=None), "affine": Affine(ScaleForm("sigmoid2"))}


@dataclasses.dataclass(frozen=True)
class GlowConfig:
    """Hyper-parameters of Glow; the defaults are CIFAR-10's quantitative model.

    Attributes:
      levels: L; image sides must be multiples of 2^L.
      steps: K, flow steps per level.
      hidden: width of the coupling networks.
      coupling: "affine" or "additive".
      permutation: "conv1x1", "conv1x1_plu", "shuffle" (fixed, random) or "reverse".
      learn_top: learn the prior of the coarsest latent (all published models do).
      classes: number of classes that condition the top prior; 0 is unconditional.
      class_weight: weight of the classification loss on the coarsest latent; above 0 the
        model has a classifier.  Only with classes.
      n_bits: bits per value of the images that are modelled.
      border: 3x3 convolutions see a channel that is 1 on the padding (the released code).
      channels: of the images.
      size: side of the images that `sample` draws by default.
      temperature: default temperature of `sample`.
      compute: precision and form of the networks.
    """

    family: ClassVar[str] = "glow"
    scale: ClassVar[int] = 1
    levels: int = 3
    steps: int = 32
    hidden: int = 512
    coupling: str = "affine"
    permutation: str = "conv1x1"
    learn_top: bool = True
    classes: int = 0
    class_weight: float = 0.01
    n_bits: int = 8
    border: bool = True
    channels: int = 3
    size: int = 32
    temperature: float = 0.7
    compute: Compute = Compute()

    def __post_init__(self):
        choice("coupling", self.coupling, tuple(COUPLINGS))
        choice("permutation", self.permutation, tuple(PERMUTATIONS))
        for field in ("levels", "steps", "hidden", "channels", "size"):
            if getattr(self, field) < 1:
                raise ConfigError(f"{field} = {getattr(self, field)} must be at least 1")
        for field in ("classes", "class_weight", "temperature"):
            if getattr(self, field) < 0:
                raise ConfigError(f"{field} = {getattr(self, field)} must be at least 0")
        if not 1 <= self.n_bits <= 8:
            raise ConfigError(f"n_bits = {self.n_bits} must be 1 to 8")
        if self.size % self.multiple:
            raise ConfigError(f"size = {self.size} must be a multiple of 2^levels, {self.multiple}")

    @property
    def multiple(self) -> int:
        """Image sides must be multiples of this: 2^L."""
        return 2**self.levels

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of one drawn image."""
        return (self.size, self.size, self.channels)

    @property
    def has_classifier(self) -> bool:
        return self.classes > 0 and self.class_weight > 0


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
    multiscale = build_flow(config).parts[-1][1]
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
