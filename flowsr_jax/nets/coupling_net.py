"""The network inside SRFlow's coupling and injector.

conv3x3 - ActNorm - ReLU - conv1x1 - ActNorm - ReLU - zero-initialised conv3x3.
Source: docs/papers/srflow.md section 1.

The first convolution acts on concat(x, cond).  Its two halves are kept as two
kernels, because conv([x, cond]) = conv(x) + conv(cond) and the second term does not
depend on the latent: `prepare` computes it once per LR image, for all samples.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from flowsr_jax.nets import random
from flowsr_jax.nets.conv import Compute, conv2d, matmul
from flowsr_jax.nets.upsampled import conv_parts, dense


def init_channel_affine(c: int):
    """The identity of `channel_affine`."""
    return {name: jnp.zeros(c, jnp.float32) for name in ("bias", "logs")}


def channel_affine(p, x):
    """(x + bias) * exp(logs) over the last axis (ActNorm without its logdet)."""
    return (x + p["bias"]) * jnp.exp(p["logs"])


def channel_statistics(x):
    """ActNorm parameters that whiten x [..., C] per channel.

    bias = -mean; logs = -log(sqrt(mean((x + bias)^2)) + 1e-6), biased variance, over
    all axes but the last.  Under jit with a sharded batch these are statistics over
    all devices.
    """
    axes = tuple(range(x.ndim - 1))
    bias = -jnp.mean(x, axis=axes)
    variance = jnp.mean(jnp.square(x + bias), axis=axes)
    return {"bias": bias, "logs": -jnp.log(jnp.sqrt(variance) + 1e-6)}


def init_conv_zeros(ci: int, co: int, cond_channels: int = 0):
    """Zero-initialised 3x3 convolution of [x, cond] with a log-scale: Conv2dZeros."""
    params = {name: jnp.zeros(co, jnp.float32) for name in ("b", "logs")}
    for name, width in (("w", ci), ("w_cond", cond_channels)):
        if width:
            params[name] = jnp.zeros((3, 3, width, co), jnp.float32)
    return params


def conv_zeros(p, x, compute: Compute, share=None):
    """(conv3x3(x) + share + b) * exp(3 logs), float32; x or the share of cond may be None."""
    if x is None:
        return (share + p["b"]) * jnp.exp(3.0 * p["logs"])
    y = conv2d(x, p["w"], p["b"], compute)
    return (y if share is None else y + share) * jnp.exp(3.0 * p["logs"])


def conv_cond(cond, kernel, compute: Compute):
    """3x3 convolution of cond [B,H,W,C], or of the parts (`Upsampled`) that make it up."""
    if isinstance(cond, tuple):
        return conv_parts(cond, kernel, compute)
    return conv2d(cond, kernel, None, compute)


def conv_cond_stacked(cond, kernels, compute: Compute):
    """The same by K kernels [K,3,3,C,Co], as one wide convolution: [K,B,H,W,Co]."""
    k, kh, kw, ci, co = kernels.shape
    y = conv_cond(cond, kernels.transpose(1, 2, 3, 0, 4).reshape(kh, kw, ci, k * co), compute)
    return jnp.moveaxis(y.reshape(*y.shape[:-1], k, co), -2, 0)


@dataclasses.dataclass(frozen=True)
class CouplingNet:
    """Static choices of the network; parameters are passed to every call.

    Attributes:
      hidden: width of the two hidden layers.
      cond_channels: channels of the conditioning features (0: unconditional).
      compute: precision and form of the convolutions.
    """

    hidden: int = 64
    cond_channels: int = 0
    compute: Compute = Compute()

    def init(self, key, ci: int, co: int):
        """Parameters for [B,H,W,ci] (ci may be 0) to [B,H,W,co]."""
        kz, kc, k2 = jax.random.split(key, 3)
        params = {
            "actnorm1": init_channel_affine(self.hidden),
            "w2": 0.05 * random.normal(k2, (self.hidden, self.hidden)),
            "actnorm2": init_channel_affine(self.hidden),
            "out": init_conv_zeros(self.hidden, co),
        }
        if ci:
            params["w_x"] = 0.05 * random.normal(kz, (3, 3, ci, self.hidden))
        if self.cond_channels:
            shape = (3, 3, self.cond_channels, self.hidden)
            params["w_cond"] = 0.05 * random.normal(kc, shape)
        return params

    def prepare(self, params, cond):
        """First-layer contribution of cond: [B,H,W,hidden].

        cond is [B,H,W,cond_channels], or the parts (`Upsampled`) whose channels make it up.
        """
        if not self.cond_channels:
            return None
        if not self.compute.hoist:
            return dense(cond) if isinstance(cond, tuple) else cond
        return conv_cond(cond, params["w_cond"], self.compute)

    def prepare_stacked(self, params, cond):
        """The same for K stacked nets as one wide convolution: [K,B,H,W,hidden]."""
        if not self.cond_channels:
            return None
        return conv_cond_stacked(cond, params["w_cond"], self.compute)

    def _first(self, params, x, prepared):
        if x is not None and prepared is not None and prepared.shape[:-1] != x.shape[:-1]:
            raise ValueError(
                f"cond must have the batch and positions of x, {tuple(x.shape[:-1])}, got "
                f"{tuple(prepared.shape[:-1])}"
            )
        if self.compute.hoist or prepared is None:
            terms = [] if prepared is None else [prepared]
            if x is not None:
                terms.append(conv2d(x, params["w_x"], None, self.compute))
            return sum(terms)
        # The plain form: prepared is the conditioning itself.
        joined, w = prepared, params["w_cond"]
        if x is not None:
            joined = jnp.concatenate([x, prepared], axis=-1)
            w = jnp.concatenate([params["w_x"], w], axis=2)
        return conv2d(joined, w, None, self.compute)

    def _second(self, params, hidden):
        dtype, precision = self.compute.operands, self.compute.precision
        return matmul(hidden.astype(dtype), params["w2"].astype(dtype), precision)

    def apply(self, params, x, prepared):
        """Raw output [B,H,W,co] float32; x [B,H,W,ci] or None, prepared from `prepare`."""
        h = jax.nn.relu(channel_affine(params["actnorm1"], self._first(params, x, prepared)))
        h = jax.nn.relu(channel_affine(params["actnorm2"], self._second(params, h)))
        return conv_zeros(params["out"], h, self.compute)

    def init_from_data(self, params, x, cond):
        """Data-dependent ActNorms, layer after layer; returns (params, raw output)."""
        params = dict(params)
        h = self._first(params, x, self.prepare(params, cond))
        params["actnorm1"] = channel_statistics(h)
        h = self._second(params, jax.nn.relu(channel_affine(params["actnorm1"], h)))
        params["actnorm2"] = channel_statistics(h)
        h = jax.nn.relu(channel_affine(params["actnorm2"], h))
        return params, conv_zeros(params["out"], h, self.compute)

    def forward_train(self, params, x, cond):
        """(params, raw output): nothing depends on the batch."""
        return params, self.apply(params, x, self.prepare(params, cond))
