"""K equal steps: compiled once, and trained in memory that need not grow with K."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from flowsr_jax.bijectors.base import (
    Array,
    Bijector,
    Composite,
    NamedPart,
    PyTree,
    Shape,
    require,
    require_positive,
    zeros_logdet,
)
from flowsr_jax.config import choice
from flowsr_jax.nets.conv import MEMORY
from flowsr_jax.types import Learn


@dataclasses.dataclass(frozen=True)
class Scan(Composite):
    """`length` applications of one step; parameters carry a leading axis of that length.

    Compiled once per level (lax.scan), or unrolled.  What the backward pass works with:

    memory        kept from the forward pass                 computed again, per step
    "store"       every step's activations                   nothing
    "remat"       every step's input                         the step
    "reversible"  the last step's output                     the step and its inverse

    With "store" the conditioning's share of all steps is prepared together (one wide
    convolution instead of many narrow ones).  The other two prepare each step where it
    runs, since that share is wider than the step's own state; `prepared`, if it is
    given, is used and kept.  "reversible" (Gomez et al., NeurIPS 2017, for any bijector)
    has no forward-mode derivative.

    Attributes:
      step: the bijector that is repeated (its output has its input's shape).
      length: K.
      unroll: unroll the loop at compile time.
      memory: see above.
      hoist: prepare all steps before the loop; False leaves it to each step, as a plain
        transcription would (for benchmarks).

    Raises:
      ValueError: a length below 1, or an unknown `memory`.
    """

    step: Bijector
    length: int
    unroll: bool = False
    memory: str = "store"
    hoist: bool = True

    def __post_init__(self) -> None:
        require_positive("Scan: length", self.length)
        choice("memory", self.memory, MEMORY)

    def init(self, key: Array, shape: Shape) -> PyTree:
        require(self.step.output_shape(shape) == shape, "Scan: the step must keep the shape")
        # A loop: vmap would batch the QR of the 1x1s, which can hang XLA's CPU backend.
        keys = jax.random.split(key, self.length)
        return stack_steps([self.step.init(k, shape) for k in keys])

    def step_params(self, params: PyTree, k: int) -> PyTree:
        """Return the parameters of step k (from 0), without the leading axis."""
        return jax.tree.map(lambda leaf: leaf[k], params)

    def prepare(self, params: PyTree, cond: PyTree = None, inverse: bool = False) -> PyTree:
        return self.step.prepare_stacked(params, cond, inverse) if self.hoist else None

    def forward(
        self, params: PyTree, x: Any, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Any, Array]:
        return self._run(False, params, x, cond, prepared)

    def inverse(
        self, params: PyTree, y: Any, cond: PyTree = None, prepared: PyTree = None
    ) -> tuple[Any, Array]:
        return self._run(True, params, y, cond, prepared)

    def _run(
        self, inverse: bool, params: PyTree, x: Any, cond: PyTree, prepared: PyTree
    ) -> tuple[Any, Array]:
        if prepared is None and self.memory == "store":
            prepared = self.prepare(params, cond, inverse)
        run = _run_reversible if self.memory == "reversible" else _run_steps
        return run(self, inverse, params, x, cond, prepared)

    def learned(
        self, learn: Learn, params: PyTree, x: Any, cond: PyTree, inverse: bool
    ) -> tuple[PyTree, Any, Array]:
        def body(carry: Any, step_params: PyTree) -> tuple[Any, PyTree]:
            z, total = carry
            new, z, logdet = learn(self.step, step_params, z, cond)
            return (z, total + logdet), new

        carry = (x, zeros_logdet(x))
        (z, total), new = jax.lax.scan(body, carry, params, self.length, reverse=inverse)
        return new, z, total

    def parts(self, params: PyTree, cond: PyTree = None) -> list[NamedPart]:
        return [
            (f"[{k}]", self.step, self.step_params(params, k), cond) for k in range(self.length)
        ]


def stack_steps(steps: Sequence[PyTree]) -> PyTree:
    """Return equal parameter trees as one whose leaves have a leading axis (for Scan)."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *steps)


def _loop(scan: Scan, body: Callable[..., Any], carry: Any, xs: PyTree, reverse: bool) -> Any:
    unroll = scan.length if scan.unroll else 1
    return jax.lax.scan(body, carry, xs, length=scan.length, reverse=reverse, unroll=unroll)


def _run_steps(
    scan: Scan, inverse: bool, params: PyTree, x: Any, cond: PyTree, prepared: PyTree
) -> tuple[Any, Array]:
    """Return (z, logdet[B]) of all steps."""
    method = scan.step.inverse if inverse else scan.step.forward

    def body(carry: Any, xs: Any) -> tuple[Any, PyTree]:
        z, total = carry
        z, logdet = method(xs[0], z, cond, xs[1])
        return (z, total + logdet), None

    if scan.memory == "remat":
        body = jax.checkpoint(body)  # ty: ignore[invalid-assignment]
    return _loop(scan, body, (x, zeros_logdet(x)), (params, prepared), reverse=inverse)[0]


_run_reversible = jax.custom_vjp(_run_steps, nondiff_argnums=(0, 1))


def _reversible_fwd(
    scan: Scan, inverse: bool, params: PyTree, x: Any, cond: PyTree, prepared: PyTree
) -> tuple[Any, PyTree]:
    z, logdet = _run_steps(scan, inverse, params, x, cond, prepared)
    return (z, logdet), (params, z, cond, prepared)


def _reversible_bwd(
    scan: Scan, inverse: bool, residuals: PyTree, cotangents: tuple[Any, Array]
) -> tuple[PyTree, Any, PyTree, PyTree]:
    """Walk the steps from the last to the first, each from its output to its input."""
    # The barrier keeps an unrolled loop from saving what the forward pass has in common
    # with this one (the conditioning's share of every step).
    residuals, cotangents = jax.lax.optimization_barrier((residuals, cotangents))
    params, z, cond, prepared = residuals
    dz, dlogdet = cotangents

    def body(carry: Any, xs: Any) -> tuple[Any, PyTree]:
        z, dz, dcond = carry
        z, (dparams, dz, dc, dprepared) = scan.step.vjp_from_output(
            xs[0], z, (dz, dlogdet), cond, xs[1], inverse
        )
        return (z, dz, jax.tree.map(jnp.add, dcond, dc)), (dparams, dprepared)

    dcond = jax.tree.map(_zeros, cond)
    (_, dx, dcond), (dparams, dprepared) = _loop(
        scan, body, (z, dz, dcond), (params, prepared), reverse=not inverse
    )
    return dparams, dx, dcond, dprepared


def _zeros(leaf: Array) -> Array | None:
    """Return the cotangent to begin with; None for integers."""
    return jnp.zeros_like(leaf) if jnp.issubdtype(leaf.dtype, jnp.inexact) else None


_run_reversible.defvjp(_reversible_fwd, _reversible_bwd)
