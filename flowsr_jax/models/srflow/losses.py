"""SRFlow's loss, its training noise and the data-dependent initialisation."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from flowsr_jax.config import choice
from flowsr_jax.models.srflow.network import build_flow, condition
from flowsr_jax.models.srflow.sample import encode

LOG_2 = math.log(2.0)


def add_noise(key, hr, noise: str = "gaussian", sigma: float = 4.0 / math.sqrt(3.0), quant=32.0):
    """HR with training noise.

    noise "gaussian": standard deviation `sigma` in grey levels of 255 (the paper);
    "uniform": width 1/quant, centred (the released code's option, quant 32;
    quant 255 is proper dequantisation); "none": the released training step.
    """
    choice("noise", noise, ("gaussian", "uniform", "none"))
    if noise == "gaussian":
        return hr + (sigma / 255.0) * jax.random.normal(key, hr.shape, jnp.float32)
    if noise == "uniform":
        return hr + (jax.random.uniform(key, hr.shape, jnp.float32) - 0.5) / quant
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
