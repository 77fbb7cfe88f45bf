"""The bijector protocol.

A bijector is a frozen dataclass of static choices.  It holds no arrays: parameters,
conditioning and everything computed from them are arguments.

    params          = b.init(key, shape)                       # shape without batch
    y, logdet       = b.forward(params, x, cond)               # data to latent
    x, logdet       = b.inverse(params, y, cond)               # logdet of the inverse
    prepared        = b.prepare(params, cond, inverse=False)   # optional, see below
    y, logdet       = b.forward(params, x, cond, prepared)
    params, y, logdet = b.init_from_data(params, x, cond)
    params, y, logdet = b.forward_train(params, x, cond)
    scales          = b.scales(params, x, cond)                # what forward multiplies by
    parts           = b.parts(params, cond)                    # of a composite

x is [B, ..., C]; logdet is [B], float32, nats, summed over everything but the batch.
`prepare` computes what does not depend on x (the conditioning's share of the
networks, determinants, matrix inverses).  Handing its result to forward or inverse
shares that work between calls, between samples (vmap over x alone), and between the
K steps of a scan.  `cond` is any pytree, ignored by bijectors that need none.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from flowsr_jax.types import Learn

Array = jax.Array
PyTree = Any
Shape = tuple[int, ...]
NamedPart = tuple[str, "Bijector", PyTree, PyTree]  # (name, bijector, its params, its cond)


class Bijector(abc.ABC):
    """Base class: a subclass is a frozen dataclass that defines `forward` and `inverse`.

    The other methods have defaults: no parameters, the input's shape, nothing prepared,
    nothing initialised from data, and no parts.  A bijector that changes volume also defines
    `scales`, or `parts` if it is made of others.  A class that lacks `forward` or `inverse`
    raises a TypeError where it is constructed.
    """

    diverts: ClassVar[bool] = False  # forward gives (rest, latent), as the split of a MultiScale

    def init(self, key: Array, shape: Shape) -> PyTree:
        """Return parameters for inputs of `shape` (without the batch axis)."""
        del key, shape
        return {}

    def output_shape(self, shape: Shape) -> Any:
        """Return the shape (without batch) of forward's output for inputs of `shape`.

        Raises:
          ValueError: a shape that the bijector cannot take; names what is allowed.
        """
        return shape

    def prepare(self, params: PyTree, cond: PyTree = None, inverse: bool = False) -> PyTree:
        """Return what forward (or inverse) needs and x does not change; None for nothing."""
        del params, cond, inverse
        return None

    def prepare_stacked(self, params: PyTree, cond: PyTree = None, inverse: bool = False) -> PyTree:
        """Return `prepare` of K stacked parameter sets; every leaf gets a leading K axis.

        A loop, not vmap: batched LAPACK calls can hang XLA's CPU backend.
        """
        if type(self).prepare is Bijector.prepare:
            return None
        return jax.lax.map(lambda p: self.prepare(p, cond, inverse), params)

    @abc.abstractmethod
    def forward(
        self, params: PyTree, x: Any, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Any, Array]:
        """Return (y, logdet[B])."""

    @abc.abstractmethod
    def inverse(
        self, params: PyTree, y: Any, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Any, Array]:
        """Return (x, logdet[B] of the inverse)."""

    def vjp_from_output(
        self,
        params: PyTree,
        y: Any,
        cotangents: tuple[Any, Array],
        cond: PyTree = None,
        prepared: PyTree = None,
        inverse: bool = False,
    ) -> tuple[Any, tuple[PyTree, Any, PyTree, PyTree]]:
        """Return gradients of forward (or inverse) from its output; the input is computed back.

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

    def init_from_data(
        self, params: PyTree, x: Any, cond: PyTree = None, inverse: bool = False
    ) -> tuple[PyTree, Any, Array]:
        """Return (params initialised from x, y, logdet[B]); y and logdet are those of forward.

        With `inverse` x is an input of inverse, and so are y and logdet its outputs.
        """
        return params, *(self.inverse if inverse else self.forward)(params, x, cond)

    def forward_train(
        self, params: PyTree, x: Any, cond: PyTree = None
    ) -> tuple[PyTree, Any, Array]:
        """Return (params, y, logdet[B]) of training: batch norms use the batch's statistics.

        The statistics that were used are in the returned parameters; gradients flow through
        them.  For all other bijectors this is `forward`.
        """
        return params, *self.forward(params, x, cond)

    def parts(self, params: PyTree, cond: PyTree = None) -> Sequence[NamedPart]:
        """Return ((name, bijector, its params, its cond), ...); empty if it has no parts.

        Applied in this order the parts are `forward`.  A part that `diverts` gives (rest,
        latent): the rest goes on, and the output lists the latents and, last, what remains.
        """
        del params, cond
        return ()

    def scales(self, params: PyTree, x: Array, cond: PyTree = None) -> Array | None:
        """Return the positive factors that forward multiplies x by: [B, ...].

        The singular values of the Jacobian, up to the shear of a coupling: their logarithms
        sum to the logdet.  None stands for ones.  Composites report by their `parts`.
        """
        del params, x, cond
        return None

    def condition_number(self, params: PyTree) -> float:
        """Return the condition number of the matrix that forward multiplies by, NaN without."""
        del params
        return math.nan


class Composite(Bijector):
    """A bijector made of others: what learns from a batch in them is reached through it."""

    def init_from_data(
        self, params: PyTree, x: Any, cond: PyTree = None, inverse: bool = False
    ) -> tuple[PyTree, Any, Array]:
        def learn(part: Bijector, *args: Any) -> tuple[PyTree, Any, Array]:
            return part.init_from_data(*args, inverse=inverse)

        return self.learned(learn, params, x, cond, inverse)

    def forward_train(
        self, params: PyTree, x: Any, cond: PyTree = None
    ) -> tuple[PyTree, Any, Array]:
        return self.learned(
            lambda part, *args: part.forward_train(*args), params, x, cond, inverse=False
        )

    @abc.abstractmethod
    def learned(
        self, learn: Learn, params: PyTree, x: Any, cond: PyTree, inverse: bool
    ) -> tuple[PyTree, Any, Array]:
        """Return (params, y, logdet) where every part runs as learn(part, params, x, cond).

        `learn` gives the part's (params, y, logdet), of its inverse with `inverse`.
        """


def zeros_logdet(x: Array) -> Array:
    """Return the logdet of a volume-preserving map: zeros [B] (constant, no gradient)."""
    return jnp.zeros(x.shape[0], jnp.float32)


def positions(x: Array) -> int:
    """Return the number of positions per example: product of the axes between batch and channel."""
    return math.prod(x.shape[1:-1])


def constant_logdet(x: Array, value: Array) -> Array:
    """Return positions * value, the same for every example: [B] float32."""
    return jnp.broadcast_to(positions(x) * value.astype(jnp.float32), (x.shape[0],))


def require(condition: bool, message: str) -> None:
    """Raise ValueError(message) unless the (static) condition holds."""
    if not condition:
        raise ValueError(message)


def require_positive(name: str, value: int) -> None:
    """Raise ValueError unless `value` is an integer of at least 1."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    require(whole and value >= 1, f"{name} must be an integer of at least 1, got {value!r}")


def check_channels(name: str, x: Array, channels: int) -> None:
    """Raise ValueError unless the last axis of x has `channels` entries."""
    require(
        x.ndim >= 2 and x.shape[-1] == channels,
        f"{name}: expected an array [B, ..., {channels}], got shape {tuple(x.shape)}",
    )
