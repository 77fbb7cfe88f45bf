"""FLOPs of a traced function by analytic count: its convolutions and matrix products.

Elementwise work, reductions, triangular solves and determinants are left out: of the
networks here they are below a hundredth.  Zeros that pad an image are counted as values.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

# bfloat16 passes in which a TPU multiplies float32 at each precision.
PASSES = {"DEFAULT": 1, "HIGH": 3, "HIGHEST": 6}
_CONVOLUTION, _PRODUCT = "conv_general_dilated", "dot_general"


@dataclasses.dataclass(frozen=True)
class Count:
    """Work of a function on the whole (global) arrays.

    Attributes:
      flops: a multiplication and an addition are two.
      passes: `flops` times the bfloat16 passes of each product: what a TPU's peak is for.
      open_loops: loops whose length is not known before they run, counted once.
    """

    flops: float = 0.0
    passes: float = 0.0
    open_loops: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(
            self.flops + other.flops,
            self.passes + other.passes,
            self.open_loops + other.open_loops,
        )

    def times(self, factor: float) -> Count:
        """Return the count of so many executions."""
        return Count(factor * self.flops, factor * self.passes, self.open_loops)


def count_flops(jaxpr: ClosedJaxpr, platform: str = "tpu") -> Count:
    """Count a traced function (`jax.jit(f).trace(...).jaxpr`, `jax.make_jaxpr(f)(...)`).

    A scan counts by its length, a while loop by its length where that is a constant of the
    program.  Of `lax.platform_dependent` the branch of `platform` counts, of other
    conditionals the one with most work.
    """
    return _count(jaxpr.jaxpr, [_scalar(c) for c in jaxpr.consts], [], platform)


def _count(jaxpr: Jaxpr, consts: list, given: list, platform: str) -> Count:
    """Return the FLOPs of a jaxpr; `consts`, `given`: known integer scalars, else None."""
    known = dict(zip(jaxpr.constvars, consts, strict=False))
    known |= dict(zip(jaxpr.invars, given, strict=False))

    def value(atom: Any) -> Any:
        return _scalar(atom.val) if isinstance(atom, Literal) else known.get(atom)

    total = Count()
    for eqn in jaxpr.eqns:
        values = [value(v) for v in eqn.invars]
        if eqn.primitive.name == "convert_element_type":
            known[eqn.outvars[0]] = values[0]
        total += _equation(eqn, values, platform)
    return total


def _equation(eqn: Any, values: list, platform: str) -> Count:
    name, params = eqn.primitive.name, eqn.params
    if name in (_CONVOLUTION, _PRODUCT):
        flops = _convolution(eqn) if name == _CONVOLUTION else _product(eqn)
        return Count(flops, flops * _passes(eqn))
    if name == "scan":
        fixed = values[: params["num_consts"]]  # what is carried changes
        return _inner(params["jaxpr"], fixed, platform).times(params["length"])
    if name == "while":
        body_consts = values[params["cond_nconsts"] :][: params["body_nconsts"]]
        once = _inner(params["body_jaxpr"], body_consts, platform)
        length = _length(params, values)
        if length is None:
            return once + Count(open_loops=1 if once.flops else 0)
        return once.times(length)
    if name == "cond":
        branches, platforms = params["branches"], params.get("branches_platforms")
        if platforms is not None:
            chosen = [i for i, names in enumerate(platforms) if names is None or platform in names]
            return _inner(branches[chosen[0]], values[1:], platform)
        counts = [_inner(branch, values[1:], platform) for branch in branches]
        return max(counts, key=lambda c: c.flops)
    parts = Count()
    for inner in _jaxprs(params):
        parts += _inner(inner, values, platform)
    if name == "shard_map":  # its body sees the arrays of one device
        parts = parts.times(math.prod(params["mesh"].shape[a] for a in params["manual_axes"]))
    return parts


def _inner(jaxpr: Any, values: list, platform: str) -> Count:
    closed = isinstance(jaxpr, ClosedJaxpr)
    consts = [_scalar(c) for c in jaxpr.consts] if closed else []
    return _count(jaxpr.jaxpr if closed else jaxpr, consts, values, platform)


def _jaxprs(params: dict[str, Any]) -> list[Any]:
    # A call with a custom gradient runs only the function itself, unless a gradient is taken.
    for only in ("call_jaxpr", "jaxpr"):
        if isinstance(params.get(only), (Jaxpr, ClosedJaxpr)):
            return [params[only]]
    return [v for v in params.values() if isinstance(v, (Jaxpr, ClosedJaxpr))]


def _convolution(eqn: Any) -> float:
    out, kernel = eqn.outvars[0].aval, eqn.invars[1].aval
    taps = [kernel.shape[i] for i in eqn.params["dimension_numbers"].rhs_spec[1:]]
    # A dilated input (the gradient of a strided convolution) has a value at every d-th place
    # alone; the zeros between them are not counted.
    return 2.0 * math.prod(out.shape) * math.prod(taps) / math.prod(eqn.params["lhs_dilation"])


def _product(eqn: Any) -> float:
    (axes, _), _ = eqn.params["dimension_numbers"]
    left, out = eqn.invars[0].aval, eqn.outvars[0].aval
    return 2.0 * math.prod(out.shape) * math.prod(left.shape[i] for i in axes)


def _passes(eqn: Any) -> int:
    if not any(v.aval.dtype == np.float32 for v in eqn.invars[:2]):
        return 1
    precision = eqn.params["precision"]
    if isinstance(precision, tuple):
        return max(PASSES[p.name] for p in precision)
    if precision is None:
        return PASSES["DEFAULT"]
    # An algorithm such as BF16_BF16_F32_X3.
    name = precision.name
    return PASSES["HIGHEST"] if name == "F32_F32_F32" else int((name.split("_X") + ["1"])[1])


def _length(params: dict[str, Any], values: list) -> int | None:
    """Return the turns of `while i < n: i += 1` (what a fori_loop is) with known i and n."""
    cond = params["cond_jaxpr"].jaxpr
    skip = params["cond_nconsts"] + params["body_nconsts"]
    start = dict(zip(cond.invars, values[: params["cond_nconsts"]] + values[skip:], strict=True))
    if len(cond.eqns) != 1 or cond.eqns[0].primitive.name != "lt":
        return None
    first, last = (
        _scalar(v.val) if isinstance(v, Literal) else start.get(v) for v in cond.eqns[0].invars
    )
    return None if first is None or last is None else max(last - first, 0)


def _scalar(x: Any) -> int | None:
    """Return an integer scalar's value, None for all else."""
    if (
        isinstance(x, jax.core.Tracer)
        or np.ndim(x)
        or not np.issubdtype(getattr(x, "dtype", type(x)), np.integer)
    ):
        return None
    return int(x)
