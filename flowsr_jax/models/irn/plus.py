"""IRN+: distribution matching by a discriminator, on top of trained IRN weights.

The losses "plus" (generator) and "discriminator" are two entries of one training step:
both draw the same z from the step's key and see the same weights.
docs/papers/irn.md section 5.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from flowsr_jax.models.base import Params
from flowsr_jax.models.irn.config import IRNConfig
from flowsr_jax.models.irn.discriminator import (
    discriminate,
    discriminator_loss,
    generator_loss,
    init_statistics,
)
from flowsr_jax.models.irn.losses import charbonnier, draw_z, fit_weight, psnr, squared
from flowsr_jax.models.irn.network import forward, inverse, quantize
from flowsr_jax.nets.vgg import VGG19
from flowsr_jax.types import Array, Batch, LossResult, PyTree, State


def init_state(config: IRNConfig) -> State:
    """Return the running batch-norm statistics of the discriminator; empty without one."""
    if config.discriminator is None:
        return {}
    return {"discriminator": init_statistics(config.discriminator)}


def without_plus(params: Params) -> Params:
    """Return the parameters without discriminator and VGG19: what rescaling needs."""
    tree = {k: v for k, v in params.tree.items() if k not in ("discriminator", "features")}
    return Params(tree, dataclasses.replace(params.config, discriminator=None, features=False))


def plus_terms(
    params: Params,
    statistics: PyTree,
    hr: Array,
    guide: Array | None,
    z: Array,
    *,
    lambda_fit: float | None = None,
    lambda_rec: float = 0.01,
    lambda_features: float = 0.01,
    lambda_gan: float = 1.0,
    gan: str = "gan",
) -> tuple[dict[str, Array], PyTree, Array]:
    """Return the weighted terms of the generator's loss.

    Args:
      params: IRN parameters with the group "discriminator"; without the group "features"
        there is no perceptual term.
      statistics: running statistics of the discriminator (moved by the pass).
      hr, guide, z: as for `rescale_terms`.
      lambda_fit, lambda_rec, lambda_features, lambda_gan: weights of the guidance, the
        reconstruction, the VGG19 features and the GAN term.
      gan: "gan" or "ragan".

    Returns:
      ({"l_forw_fit", "l_back_rec", "l_back_fea", "l_back_gan"}, new statistics,
      reconstruction).
    """
    config = params.config
    lambda_fit = fit_weight(config) if lambda_fit is None else lambda_fit
    lr, _ = forward(params, hr)
    fake = inverse(params, quantize(lr), z)
    judge = params["discriminator"]
    fake_logits, statistics = discriminate(judge, statistics, fake, config.discriminator)
    real_logits = None
    if gan == "ragan":
        real_logits, statistics = discriminate(judge, statistics, hr, config.discriminator)
    terms = {
        "l_forw_fit": lambda_fit * squared(lr, guide),  # ty: ignore[invalid-argument-type]
        "l_back_rec": lambda_rec * charbonnier(hr, fake),
    }
    if lambda_features and "features" in params:
        vgg = VGG19(config.compute).bind({"params": params["features"]})
        term = charbonnier(jax.lax.stop_gradient(vgg(hr)), vgg(fake))
        terms["l_back_fea"] = lambda_features * term
    terms["l_back_gan"] = lambda_gan * generator_loss(fake_logits, real_logits, gan)
    return terms, statistics, fake


def discriminator_terms(
    params: Params, statistics: PyTree, hr: Array, z: Array, *, gan: str = "gan"
) -> tuple[Array, PyTree]:
    """Return (loss of the discriminator, new statistics): on HR, then on the reconstruction."""
    config = params.config
    fake = jax.lax.stop_gradient(inverse(params, quantize(forward(params, hr)[0]), z))
    judge = params["discriminator"]
    real_logits, statistics = discriminate(judge, statistics, hr, config.discriminator)
    fake_logits, statistics = discriminate(judge, statistics, fake, config.discriminator)
    return discriminator_loss(real_logits, fake_logits, gan), statistics


def plus_loss(params: Params, state: State, batch: Batch, key: Array, **options: Any) -> LossResult:
    """Return loss "plus" of the generator; options are those of `plus_terms`."""
    z = draw_z(key, params.config, batch["lr"])
    terms, statistics, fake = plus_terms(
        params, state["discriminator"], batch["hr"], batch["lr"], z, **options
    )
    metrics = {**terms, "psnr": psnr(fake, batch["hr"])}
    return sum(terms.values()), ({**state, "discriminator": statistics}, metrics)  # ty: ignore[invalid-explicit-return]


def plus_discriminator_loss(
    params: Params, state: State, batch: Batch, key: Array, *, gan: str = "gan"
) -> LossResult:
    """Return loss "discriminator" of the discriminator; option gan: "gan" or "ragan"."""
    z = draw_z(key, params.config, batch["lr"])
    loss, statistics = discriminator_terms(params, state["discriminator"], batch["hr"], z, gan=gan)
    return loss, ({**state, "discriminator": statistics}, {"l_d": loss})


def notes(config: IRNConfig) -> tuple[str, ...]:
    """Return what a training run says at its beginning."""
    if config.discriminator is None or config.features:
        return ()
    return ("IRN+ without VGG19 weights: no perceptual term (configs/irnp_div2k.py:vgg has it)",)
