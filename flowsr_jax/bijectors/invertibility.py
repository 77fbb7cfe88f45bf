"""Walk a flow layer by layer: who scales, who is ill-conditioned, who loses digits."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp

from flowsr_jax.bijectors.base import Array, Bijector, NamedPart, PyTree


def elementary_layers(
    bijector: Bijector, params: PyTree, cond: PyTree = None, name: str = ""
) -> Iterator[NamedPart]:
    """Yield (dotted name, bijector, params, cond) of every layer without parts, forward order."""
    parts = bijector.parts(params, cond)
    if not parts:
        yield name, bijector, params, cond
    for part_name, part, part_params, part_cond in parts:
        dot = "." if name and not part_name.startswith("[") else ""
        yield from elementary_layers(part, part_params, part_cond, f"{name}{dot}{part_name}")


@dataclasses.dataclass(frozen=True)
class LayerReport:
    """One layer of an invertibility report.

    Attributes:
      name: dotted path, e.g. "multiscale.level1.steps[3].coupling".
      smallest_scale, largest_scale: range of what the forward pass multiplies by (1 for
        layers that preserve volume element by element).
      condition: condition number of the layer's matrix (NaN without one).
      round_trip: max |forward(inverse(y)) - y| / max(1, max |y|).
      magnitude: max |inverse(y)|.
    """

    name: str
    smallest_scale: float
    largest_scale: float
    condition: float
    round_trip: float
    magnitude: float

    @property
    def finite(self) -> bool:
        """Whether the layer's inverse gave finite values only."""
        return math.isfinite(self.round_trip) and math.isfinite(self.magnitude)


@dataclasses.dataclass(frozen=True)
class InvertibilityReport:
    """Per-layer figures in the order of the inverse pass (deepest layer first).

    Attributes:
      layers: one LayerReport per layer.
      limit: largest accepted relative round-trip error of a layer.
      image_round_trip: max |encode-decode error| of the whole flow on the drawn image.
    """

    layers: tuple[LayerReport, ...]
    limit: float
    image_round_trip: float

    @property
    def fault(self) -> LayerReport | None:
        """The first layer of the inverse pass that is not finite or exceeds the limit."""
        for layer in self.layers:
            if not (layer.finite and layer.round_trip <= self.limit):
                return layer
        return None

    @property
    def ok(self) -> bool:
        """Whether no layer is at fault."""
        return self.fault is None

    def __str__(self) -> str:
        width = max(32, *(len(r.name) for r in self.layers))
        lines = [
            f"{'layer':{width}s} {'scale min':>10s} {'scale max':>10s} {'condition':>10s} "
            f"{'round trip':>10s} {'max |x|':>10s}"
        ]
        for r in self.layers:
            lines.append(
                f"{r.name:{width}s} {r.smallest_scale:10.3g} {r.largest_scale:10.3g} "
                f"{r.condition:10.3g} {r.round_trip:10.2g} {r.magnitude:10.3g}"
            )
        lines.append(f"whole flow, image round trip: {self.image_round_trip:.2g}")
        fault = self.fault
        verdict = "invertible to the limit" if fault is None else f"layer at fault: {fault.name}"
        return "\n".join([*lines, f"{verdict} (limit {self.limit:g} per layer)"])


@functools.partial(jax.jit, static_argnums=0)
def _measure(
    layer: Bijector, params: PyTree, y: PyTree, cond: PyTree
) -> tuple[Array, tuple[Array, ...]]:
    """Return (inverse(y), (smallest scale, largest, round trip, magnitude)).

    Equal layers share the compiled program.
    """
    x, _ = layer.inverse(params, y, cond)
    again, _ = layer.forward(params, x, cond)
    given = jax.tree.leaves(y)
    errors = [jnp.max(jnp.abs(a - b)) for a, b in zip(jax.tree.leaves(again), given, strict=True)]
    size = functools.reduce(jnp.maximum, [jnp.max(jnp.abs(b)) for b in given], jnp.float32(1.0))
    scales = layer.scales(params, x, cond)
    scales = jnp.ones(1, jnp.float32) if scales is None else scales
    error = functools.reduce(jnp.maximum, errors) / size
    return x, (jnp.min(scales), jnp.max(scales), error, jnp.max(jnp.abs(x)))


def layer_reports(
    flow: Bijector, params: PyTree, latents: Sequence[Array], cond: PyTree = None
) -> tuple[tuple[LayerReport, ...], Array]:
    """Return (one report per layer, deepest first; the image) of the inverse pass of latents."""
    latents = list(latents)
    y = latents.pop()
    rows = []
    for name, layer, p, layer_cond in reversed(list(elementary_layers(flow, params, cond))):
        given = (y, latents.pop()) if layer.diverts else y
        y, (low, high, error, size) = _measure(layer, p, given, layer_cond)
        condition = layer.condition_number(p)
        rows.append(
            LayerReport(name, float(low), float(high), condition, float(error), float(size))
        )
    return tuple(rows), y


def inspect_inverse(
    flow: Bijector,
    params: PyTree,
    latents: Sequence[Array],
    cond: PyTree = None,
    limit: float = 1e-3,
) -> tuple[InvertibilityReport, Array]:
    """Run the inverse layer by layer and report each layer.

    Args:
      flow: gives one latent or, as a MultiScale, a list of them.
      params: of the flow.
      latents: [B, ...] each, finest level first.
      cond: of the flow.
      limit: largest accepted relative round-trip error of a layer.

    Returns:
      (report, the image that the latents are of).
    """
    rows, image = layer_reports(flow, params, latents, cond)
    back, _ = flow.inverse(params, flow.forward(params, image, cond)[0], cond)
    error = float(jnp.max(jnp.abs(back - image)))
    return InvertibilityReport(rows, limit, error), image
