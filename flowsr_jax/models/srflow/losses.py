"""SRFlow's loss, its training noise and the data-dependent initialisation."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from flowsr_jax.config import ConfigError, choice
from flowsr_jax.models.base import Params
from flowsr_jax.models.regression import regression_loss
from flowsr_jax.models.srflow.config import SRFlowConfig
from flowsr_jax.models.srflow.network import build_flow, condition
from flowsr_jax.models.srflow.sample import encode, encoder_image
from flowsr_jax.types import Array, Batch, LossResult, State

LOG_2 = math.log(2.0)
l1_loss = regression_loss(encoder_image, "l1")  # of the encoder alone


def add_noise(
    key: Array,
    hr: Array,
    noise: str = "gaussian",
    sigma: float = 4.0 / math.sqrt(3.0),
    quant: float = 32.0,
) -> Array:
    """Return HR with training noise.

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


def noisy(
    config: SRFlowConfig, key: Array, hr: Array, *, noise: str = "gaussian", **options: Any
) -> tuple[Array, Array | None]:
    """Return (HR with training noise, the deviation that the networks are told or None).

    noise "told": uniform of one grey level, and Gaussian noise whose deviation is drawn for
    each image, from 0 to the config's `told_noise` grey levels, and told; the others and
    their options are those of `add_noise`.

    Raises:
      ConfigError: "told" for a model that is told none.
    """
    if noise != "told":
        choice("noise", noise, ("gaussian", "uniform", "none", "told"))
        return add_noise(key, hr, noise, **options), None
    if not config.told_noise:
        raise ConfigError('noise = "told" needs a model with told_noise above 0')
    cell_key, sigma_key, noise_key = jax.random.split(key, 3)
    told = config.told_noise * jax.random.uniform(sigma_key, hr.shape[:1], jnp.float32)
    hr = add_noise(cell_key, hr, "uniform", quant=255.0)
    deviation = (told / 255.0)[:, None, None, None]
    return hr + deviation * jax.random.normal(noise_key, hr.shape, jnp.float32), told


def nll_loss(
    params: Params,
    state: State,
    batch: Batch,
    key: Array,
    *,
    units: str = "bits_per_dim",
    **noise: Any,
) -> LossResult:
    """Return the mean negative log-likelihood.

    Options:
      units: "bits_per_dim" of 8-bit images (all channels counted), or "official":
        bits per HR pixel of the density on [0,1], as the released code reports.
      noise, sigma, quant: see `noisy` and `add_noise`.  The default is the paper's Gaussian.
    """
    choice("units", units, ("bits_per_dim", "official"))
    hr, told = noisy(params.config, key, batch["hr"], **noise)
    _, log_prob = encode(params, hr, batch["lr"], sigma=told)
    _, h, w, c = hr.shape
    official = -jnp.mean(log_prob) / (LOG_2 * h * w)
    bits = official / c + math.log2(255.0)
    loss = bits if units == "bits_per_dim" else official
    return loss, (state, {"bits_per_dim": bits, "nll_srflow": official})


def init_from_data(
    params: Params, batch: Batch, key: Array, *, units: str = "bits_per_dim", **noise: Any
) -> Params:
    """Return params whose ActNorms are set from one batch, layer after layer."""
    hr, told = noisy(params.config, key, batch["hr"], **noise)
    flow_params, _, _ = build_flow(params.config).init_from_data(
        params["flow"], hr, condition(params, batch["lr"], told)
    )
    return params.replace(flow=flow_params)
