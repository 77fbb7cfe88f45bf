"""SRFlow's architecture: conditioning from the encoder, and the flow.

Exact numerics: docs/papers/srflow.md.  Official weights fit the defaults; the
options marked "ours" are off for them.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from flowsr_jax.bijectors import (
    ActNorm,
    Affine,
    Chain,
    ConditionalPrior,
    Conv1x1,
    Coupling,
    Injector,
    MultiScale,
    ScaleForm,
    Scan,
    Shift,
    Split,
    Squeeze,
)
from flowsr_jax.math.gaussian import standard_normal_log_prob
from flowsr_jax.models.base import Params
from flowsr_jax.models.srflow.config import SRFlowConfig
from flowsr_jax.nets.choice import build_network
from flowsr_jax.nets.coupling_net import CouplingNet
from flowsr_jax.nets.layers import Tree, half_size
from flowsr_jax.nets.rrdb import RRDBEncoder, init_rrdb
from flowsr_jax.nets.upsampled import Upsampled, dense
from flowsr_jax.types import Array, PyTree, Shape


def build_flow(config: SRFlowConfig) -> Chain:
    """Return the flow as a bijector HR image -> list of latents, finest level first."""
    scale_form = ScaleForm(config.scale_form, config.scale_clamp, config.affine_eps)
    affine = Affine(scale_form, layout="cross", shift_first=True)
    transition = Chain((("actnorm", ActNorm()), ("conv1x1", Conv1x1())))
    options = {k: getattr(config.compute, k) for k in ("unroll", "memory", "hoist")}
    levels, splits = [], []
    for level in range(1, config.levels + 1):
        width = config.cond_channels(level)
        if config.network is None:
            net = CouplingNet(config.hidden, width, config.compute, parent=None)
        else:
            net = build_network(config.network, cond_channels=width, compute=config.compute)
        injector = (("injector", Injector(net, affine)),) if config.injector else ()
        step = Chain((*transition.bijectors, *injector, ("coupling", Coupling(net, affine))))
        parts = [("squeeze", Squeeze())]
        if config.transition_steps:
            parts.append(("transition", Scan(transition, config.transition_steps, **options)))
        if config.steps[level - 1]:
            parts.append(("steps", Scan(step, config.steps[level - 1], **options)))
        levels.append(Chain(tuple(parts)))
        told = config.cond_channels(level) if config.conditional_prior else 0
        split = None
        if level in config.split_levels:
            split = Split(cond_channels=told, compute=config.compute)
        elif told and level == config.levels:
            split = ConditionalPrior(told, config.compute)
        splits.append(split)
    multiscale = MultiScale(tuple(levels), tuple(splits), key="levels")
    shift = (("shift", Shift("estimate")),) if config.shift_by_encoder else ()
    return Chain((*shift, ("multiscale", multiscale)))


class SRFlow(nn.Module):
    """SRFlow as a Flax module; its parameters are the groups of `Params`: {"encoder", "flow"}."""

    config: SRFlowConfig

    def setup(self) -> None:
        self.encoder = RRDBEncoder(self.config.encoder)
        self.flow = Tree(lambda key: init_flow(self.config, key))
        if self.config.official_extras:
            self.unused = Tree(lambda key: unused(self.config))

    def __call__(self, hr: Array, lr: Array, sigma: Array | None = None) -> Array:
        """Return log p(hr | lr) in nats [B]; see `encode`."""
        if self.is_initializing():
            if self.config.official_extras:
                self.unused()
            self.encoder(lr)  # of its head the flow need not see everything
        return self.encode(hr, lr, sigma)[1]

    def encode(self, hr: Array, lr: Array, sigma: Array | None = None) -> tuple[list[Array], Array]:
        """Return the exact latents, finest level first, and log p(hr | lr) in nats [B].

        hr is [B,s*h,s*w,3] and lr [B,h,w,3], both in [0,1]; no noise is added.  sigma is that
        of `condition`.
        """
        return self.density(hr, self.condition(lr, sigma))

    def density(self, hr: Array, cond: Array) -> tuple[list[Array], Array]:
        """Return what `encode` returns, with `cond` of `condition`."""
        latents, logdet = build_flow(self.config).forward(self.flow(), hr, cond)
        return latents, logdet + sum(standard_normal_log_prob(z) for z in latents)

    def decode(self, latents: list[Array], lr: Array, sigma: Array | None = None) -> Array:
        """Return the image [B,s*h,s*w,3] of a list of latents, not clipped."""
        cond = self.condition(lr, sigma)
        return build_flow(self.config).inverse(self.flow(), latents, cond)[0]

    def condition(self, lr: Array, sigma: Array | None = None) -> PyTree:
        """Return everything that depends on the LR image alone, computed once and shared.

        Args:
          lr: [B,h,w,3] in [0,1].
          sigma: with `told_noise`: the deviation of the noise on HR in grey levels, one number
            or one per image [B]; None is 0.

        Returns:
          {"levels": [cond of level 1, ...], "estimate": encoder image or None}; the cond
          of level l is [B, s*h/2^l, s*w/2^l, C]: the level's feature first, then the
          stacked blocks, then (options) the squeezed estimate and the noise that is told, as
          a fraction of `told_noise`.  With `compute.subpixel` it is a tuple of `Upsampled`,
          whose channels are these.
        """
        config, enc, encoder = self.config, self.config.encoder, self.encoder
        feature, stacked = encoder.trunk(lr, config.stacked_blocks)
        stacked = jnp.concatenate(stacked, axis=-1) if stacked else None
        want_estimate = config.shift_by_encoder or config.condition_on_estimate
        released = enc.head == "nearest_conv"
        top = config.scale if (want_estimate and released) else config.scale // 2
        features = encoder.upsampled_features(feature, top if released else 1)
        estimate = encoder.head(features, lr) if want_estimate else None
        levels, squeezed = [], estimate
        for level in range(1, config.levels + 1):
            factor = config.scale // 2**level
            if factor == 0:
                # The level's own feature is averaged, the stacked blocks are sub-sampled.
                parts = [Upsampled(half_size(feature), 1)]
                if stacked is not None:
                    parts.append(Upsampled(stacked[:, ::2, ::2], 1))
            else:
                own = features.get(factor)
                parts = [Upsampled(feature, factor) if own is None else Upsampled(own, 1)]
                if stacked is not None:
                    parts.append(Upsampled(stacked, factor))
            if config.condition_on_estimate:
                squeezed, _ = Squeeze().forward({}, squeezed)  # ty: ignore[invalid-argument-type]
                parts.append(Upsampled(squeezed, 1))
            if config.told_noise:
                parts.append(Upsampled(_noise_plane(config, parts[0].x, sigma), parts[0].factor))
            mixed = config.compute.subpixel and any(part.factor > 1 for part in parts)
            levels.append(tuple(parts) if mixed else dense(parts))
        return {"levels": levels, "estimate": estimate}


def init_flow(config: SRFlowConfig, key: Array) -> PyTree:
    """Return initial parameters of the flow alone."""
    size = 2**config.levels
    return build_flow(config).init(key, (size, size, 3))


def unused(config: SRFlowConfig) -> PyTree:
    """Return the convolution that official files hold and no program uses."""
    width = 64 * (1 + len(config.stacked_blocks))
    out = 96 if config.split_levels else 384  # fixed in the released code
    return {"f": {"w": jnp.zeros((3, 3, width, out)), "b": jnp.zeros(out)}}


def init(config: SRFlowConfig, key: Array) -> Params:
    """Return random parameters with the released code's initial values (ActNorm not yet).

    Part by part: `SRFlow(config).init` would evaluate the whole flow.
    """
    encoder_key, flow_key = jax.random.split(key)
    tree = {
        "encoder": init_rrdb(encoder_key, config.encoder),
        "flow": init_flow(config, flow_key),
    }
    if config.official_extras:
        tree["unused"] = unused(config)
    return Params(tree, config)


def condition(params: Params, lr: Array, sigma: Array | None = None) -> PyTree:
    """Return `SRFlow.condition` of parameters."""
    return SRFlow(params.config).apply({"params": params.tree}, lr, sigma, method="condition")


def _noise_plane(config: SRFlowConfig, x: Array, sigma: Any) -> Array:
    """Return the told noise as one channel [B,h,w,1] beside x [B,h,w,C], from 0 to 1."""
    share = jnp.asarray(0.0 if sigma is None else sigma, jnp.float32) / config.told_noise
    return jnp.broadcast_to(share.reshape(-1, 1, 1, 1), (*x.shape[:-1], 1))


def latent_shapes(config: SRFlowConfig, lr_shape: Shape) -> list[tuple[int, ...]]:
    """Return the shapes [B, ...] of the latents of an LR batch [B,h,w,3], finest level first."""
    b, h, w, _ = lr_shape
    flow = build_flow(config)["multiscale"]
    return [(b, *s) for s in flow.output_shape((h * config.scale, w * config.scale, 3))]
