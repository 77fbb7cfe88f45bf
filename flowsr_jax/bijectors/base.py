"""The bijector protocol.

A bijector is a frozen dataclass of static choices.  It holds no arrays: parameters,
conditioning and everything computed from them are arguments.

    params          = b.init(key, shape)                       # shape without batch
    y, logdet       = b.forward(params, x, cond)               # data to latent
    x, logdet       = b.inverse(params, y, cond)               # logdet of the inverse
    prepared        = b.prepare(params, cond, inverse=False)   # optional, see below
    y, logdet       = b.forward(params, x, cond, prepared)
    params, y, logdet = b.init_from_data(params, x, cond)

x is [B, ..., C]; logdet is [B], float32, nats, summed over everything but the batch.
`prepare` computes what does not depend on x (the conditioning's share of the
networks, determinants, matrix inverses).  Handing its result to forward or inverse
shares that work between calls, between samples (vmap over x alone), and between the
K steps of a scan.  `cond` is any pytree, ignored by bijectors that need none.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


class Bijector:
    """Base class: the defaults of the protocol.  Subclasses are frozen dataclasses."""

    def init(self, key, shape):
        """Parameters for inputs of `shape` (without the batch axis)."""
        del key, shape
        return {}

    def output_shape(self, shape):
        """Shape (without batch) of forward's output for inputs of `shape`.

        Raises:
          ValueError: a shape that the bijector cannot take; names what is allowed.
        """
        return shape

    def prepare(self, params, cond=None, inverse: bool = False):
        """What forward (or inverse) needs and x does not change."""
        del params, cond, inverse
        return None

    def prepare_stacked(self, params, cond=None, inverse: bool = False):
        """`prepare` for K stacked parameter sets; every leaf gets a leading K axis.

        A loop, not vmap: batched LAPACK calls can hang XLA's CPU backend.
        """
        if type(self).prepare is Bijector.prepare:
            return None
        return jax.lax.map(lambda p: self.prepare(p, cond, inverse), params)

    def forward(self, params, x, cond=None, prepared=None):
        """(y, logdet[B])."""
        raise AttributeError(f"{type(self).__name__} defines no forward")

    def inverse(self, params, y, cond=None, prepared=None):
        """(x, logdet[B] of the inverse)."""
        raise AttributeError(f"{type(self).__name__} defines no inverse")

    def vjp_from_output(self, params, y, cotangents, cond=None, prepared=None, inverse=False):
        """Gradients of forward (or inverse) from its output: the input is computed back.

        What reversible training needs (flowsr_jax/bijectors/scan.py): nothing of the pass
        itself is kept.

        Args:
          params, cond, prepared: as they were in the pass.
          y: the first output of forward(params, x, cond, prepared), or of inverse.
          cotangents: those of the pass's two outputs, y and the logdet.
          inverse: which pass it was.

        Returns:
          (x, cotangents of (params, x, cond, prepared)); integers have None.
        """
        undo, do = (self.forward, self.inverse) if inverse else (self.inverse, self.forward)
        x, _ = undo(params, y, cond, prepared)
        _, pull_back = jax.vjp(do, params, x, cond, prepared)
        gradients = pull_back(cotangents)
        return x, jax.tree.map(lambda g: None if g.dtype == jax.dtypes.float0 else g, gradients)

    def init_from_data(self, params, x, cond=None):
        """Data-dependent initialisation: (new params, forward's y, logdet)."""
        y, logdet = self.forward(params, x, cond)
        return params, y, logdet


def zeros_logdet(x):
    """Logdet of a volume-preserving map: zeros [B] (constant, no gradient)."""
    return jnp.zeros(x.shape[0], jnp.float32)


def positions(x) -> int:
    """Number of positions per example: product of the axes between batch and channel."""
    count = 1
    for n in x.shape[1:-1]:
        count *= n
    return count


def constant_logdet(x, value):
    """positions * value, the same for every example: [B] float32."""
    return jnp.broadcast_to(positions(x) * value.astype(jnp.float32), (x.shape[0],))


def require(condition: bool, message: str) -> None:
    """Raise ValueError(message) unless the (static) condition holds."""
    if not condition:
        raise ValueError(message)


def check_channels(name: str, x, channels: int) -> None:
    """Raise ValueError unless the last axis of x has `channels` entries."""
    require(
        x.ndim >= 2 and x.shape[-1] == channels,
        f"{name}: expected an array [B, ..., {channels}], got shape {tuple(x.shape)}",
    )
