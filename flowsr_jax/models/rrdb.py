"""RRDB: the L1-trained super-resolver that SRFlow uses as its LR encoder.

Source: ../shared/spec/srflow.md sections 3 and 6.2.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from flowsr_jax.models.base import Family, Params, View
from flowsr_jax.models.inputs import check_lr
from flowsr_jax.models.rrdb_config import RRDBConfig
from flowsr_jax.models.rrdb_torch import from_torch
from flowsr_jax.nets import rrdb as net


def init(config: RRDBConfig, key) -> Params:
    """Random parameters (initial values of the released code)."""
    return Params({"encoder": net.init_rrdb(key, config)}, config)


def apply(encoder, lr, config: RRDBConfig):
    """Super-resolved image [B,s*h,s*w,3] of the encoder parameters, not clipped."""
    features, _ = net.trunk(encoder, lr, config, config.compute)
    top = config.scale if config.head == "nearest_conv" else 1
    features = net.upsampled_features(encoder, features, config, config.compute, top)
    return net.head(encoder, features, lr, config, config.compute)


def l1_loss(params, state, batch, key):
    """Mean absolute error of the encoder's image against HR."""
    del key
    config = getattr(params.config, "encoder", params.config)
    sr = apply(params["encoder"], batch["lr"], config)
    loss = jnp.mean(jnp.abs(sr - batch["hr"]))
    mse = jnp.mean(jnp.square(jax.lax.stop_gradient(sr) - batch["hr"]))
    return loss, (state, {"l1": loss, "psnr": -10.0 * jnp.log10(mse)})


@functools.partial(jax.jit, static_argnames=("num_samples",))
def sample(params, lr, key=None, *, temperature=None, num_samples=None):
    """The deterministic image; key and temperature are accepted and unused."""
    del key, temperature
    sr = apply(params["encoder"], lr, params.config)
    return sr if num_samples is None else jnp.broadcast_to(sr, (num_samples, *sr.shape))


FAMILY = Family(
    name="rrdb",
    config_class=RRDBConfig,
    init=init,
    losses={"l1": l1_loss},
    check_lr=lambda config, lr: check_lr(lr, channels=config.in_channels),
    sample=sample,
    recognise_torch=from_torch.recognise,
    from_torch=from_torch,
    views=lambda config, loss: (View("RRDB", lambda params, lr, key: sample(params, lr)),),
)
