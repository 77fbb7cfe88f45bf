"""SRFlow's verbs, losses and family record."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp

from flowsr_jax.config import choice
from flowsr_jax.math.gaussian import standard_normal_log_prob
from flowsr_jax.models import rrdb
from flowsr_jax.models.base import Family, View
from flowsr_jax.models.inputs import check_lr
from flowsr_jax.models.srflow import torch_map
from flowsr_jax.models.srflow.invertibility import check_invertibility
from flowsr_jax.models.srflow.model import (
    SRFlowConfig,
    build_flow,
    condition,
    init,
    latent_shapes,
)

LOG_2 = math.log(2.0)


@jax.jit
def encode(params, hr, lr):
    """Exact latents (finest level first) and log p(hr | lr) in nats [B]; no noise added."""
    flow = build_flow(params.config)
    latents, logdet = flow.forward(params["flow"], hr, condition(params, lr))
    return latents, logdet + sum(standard_normal_log_prob(z) for z in latents)


@jax.jit
def decode(params, latents, lr):
    """The image [B,s*h,s*w,3] of a latent list; not clipped."""
    image, _ = build_flow(params.config).inverse(params["flow"], latents, condition(params, lr))
    return image


@functools.partial(jax.jit, static_argnames=("num_samples",))
def sample(params, lr, key, *, temperature=None, num_samples=None, noise=None):
    """Draw images of p(HR | LR); see flowsr_jax.sample.

    The latents are `temperature` times `noise` (shapes of `latent_shapes`).

    The encoder, the conditioning's share of every step, the determinants and the
    inverse matrices are computed once and shared by all samples.
    """
    config = params.config
    flow = build_flow(config)
    cond = condition(params, lr)
    prepared = flow.prepare(params["flow"], cond, inverse=True)
    temperature = jnp.float32(config.temperature if temperature is None else temperature)
    if noise is None:
        n = 1 if num_samples is None else num_samples
        shapes = latent_shapes(config, lr.shape)
        noise = [
            jax.random.normal(k, (n, *shape))
            for k, shape in zip(jax.random.split(key, len(shapes)), shapes, strict=True)
        ]
    elif num_samples is None:
        noise = [z[None] for z in noise]

    def draw(z):
        return flow.inverse(params["flow"], z, cond, prepared)[0]

    images = jax.vmap(draw)([temperature * z for z in noise])
    return images[0] if num_samples is None else images


def add_noise(key, hr, noise: str = "gaussian", sigma: float = 4.0 / math.sqrt(3.0), quant=32.0):
    """HR with training noise.

    noise "gaussian": standard deviation `sigma` in grey levels of 255 (the paper);
    "uniform": width 1/quant, centred (the released code's option, quant 32;
    quant 255 is proper dequantisation); "none": the released training step.
    """
    choice("noise", noise, ("gaussian", "uniform", "none"))
    if noise == "gaussian":
        return hr + (sigma / 255.0) * jax.random.normal(key, hr.shape)
    if noise == "uniform":
        return hr + (jax.random.uniform(key, hr.shape) - 0.5) / quant
    return hr


def nll_loss(params, state, batch, key, *, units="bits_per_dim", **noise):
    """Mean negative log-likelihood.

    Options:
      units: "bits_per_dim" of 8-bit images (all channels counted), or "official":
        bits per HR pixel of the density on [0,1], as the released code reports.
      noise, sigma, quant: see `add_noise`.  The default is the paper's Gaussian.
    """
    choice("units", units, ("bits_per_dim", "official"))
    hr = add_noise(key, batch["hr"], **noise)
    _, log_prob = encode(params, hr, batch["lr"])
    _, h, w, c = hr.shape
    official = -jnp.mean(log_prob) / (LOG_2 * h * w)
    bits = official / c + math.log2(255.0)
    loss = bits if units == "bits_per_dim" else official
    return loss, (state, {"bits_per_dim": bits, "nll_srflow": official})


def init_from_data(params, batch, key, *, units="bits_per_dim", **noise):
    """Data-dependent ActNorms everywhere, layer after layer, from one batch."""
    hr = add_noise(key, batch["hr"], **noise)
    flow_params, _, _ = build_flow(params.config).init_from_data(
        params["flow"], hr, condition(params, batch["lr"])
    )
    return params.replace(flow=flow_params)


def encoder_image(params, lr, key=None):
    """The encoder's own image (the L1 estimate) [B,s*h,s*w,3]."""
    del key
    return rrdb.apply(params["encoder"], lr, params.config.encoder)


def _views(config, loss):
    views = [View("RRDB", encoder_image)]
    if loss != "l1":
        for temperature in (0.0, 0.5, 0.8):
            views.append(
                View(
                    f"T={temperature:g}",
                    functools.partial(sample, temperature=temperature),
                    stochastic=temperature > 0,
                )
            )
    return tuple(views)


FAMILY = Family(
    name="srflow",
    config_class=SRFlowConfig,
    init=init,
    losses={"l1": rrdb.l1_loss, "nll": nll_loss},
    check_lr=lambda config, lr: check_lr(lr, 3, config.multiple),
    sample=sample,
    encode=encode,
    decode=decode,
    init_from_data=init_from_data,
    views=_views,
    check_invertibility=check_invertibility,
    latent_shapes=latent_shapes,
    noise_shapes=latent_shapes,
    recognise_torch=lambda state: "RRDB.conv_first.weight" in state,
    from_torch=torch_map.from_torch,
    multiple=lambda config: config.multiple,
)
