"""Walk a composed flow layer by layer: who scales, who is ill-conditioned, who loses digits."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from flowsr_jax.bijectors.actnorm import ActNorm
from flowsr_jax.bijectors.base import Bijector
from flowsr_jax.bijectors.compose import Chain, MultiScale
from flowsr_jax.bijectors.conv1x1 import Conv1x1
from flowsr_jax.bijectors.coupling import Coupling, Injector
from flowsr_jax.bijectors.invertible_block import InvertibleBlock
from flowsr_jax.bijectors.scan import Scan


def atoms(bijector: Bijector, params, cond=None, name: str = "") -> Iterator[tuple]:
    """Yield (name, bijector, params, cond) of every elementary layer, in forward order.

    Splits of a multi-scale flow are yielded too.
    """
    if isinstance(bijector, Chain):
        for part_name, part in bijector.parts:
            dotted = f"{name}.{part_name}" if name else part_name
            yield from atoms(part, params.get(part_name, {}), cond, dotted)
    elif isinstance(bijector, Scan):
        for k in range(bijector.length):
            yield from atoms(bijector.step, bijector.step_params(params, k), cond, f"{name}[{k}]")
    elif isinstance(bijector, MultiScale):
        for i, level in enumerate(bijector.levels):
            level_name, p = f"level{i + 1}", params[f"level{i + 1}"]
            level_cond = cond if bijector.key is None or cond is None else cond[bijector.key][i]
            yield from atoms(level, p["flow"], level_cond, level_name)
            if bijector.splits[i] is not None:
                yield f"{level_name}.split", bijector.splits[i], p["split"], None
    else:
        yield name, bijector, params, cond


@dataclasses.dataclass(frozen=True)
class LayerReport:
    """One layer of an invertibility report.

    Attributes:
      name: dotted path, e.g. "level1.steps[3].coupling".
      smallest_scale, largest_scale: range of what the forward pass multiplies by
        (NaN for layers without scales).
      condition: condition number of a 1x1 convolution (NaN otherwise).
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
        return bool(np.isfinite(self.round_trip) and np.isfinite(self.magnitude))


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
        return self.fault is None

    def __str__(self) -> str:
        lines = [
            f"{'layer':32s} {'scale min':>10s} {'scale max':>10s} {'condition':>10s} "
            f"{'round trip':>10s} {'max |x|':>10s}"
        ]
        for r in self.layers:
            lines.append(
                f"{r.name:32s} {r.smallest_scale:10.3g} {r.largest_scale:10.3g} "
                f"{r.condition:10.3g} {r.round_trip:10.2g} {r.magnitude:10.3g}"
            )
        lines.append(f"whole flow, image round trip: {self.image_round_trip:.2g}")
        fault = self.fault
        verdict = "invertible to the limit" if fault is None else f"layer at fault: {fault.name}"
        return "\n".join([*lines, f"{verdict} (limit {self.limit:g} per layer)"])


def layer_scales(bijector: Bijector, params, x, cond):
    """Array of the factors that forward multiplies x by, or None."""
    if isinstance(bijector, ActNorm):
        return jnp.exp(bijector.logscale_factor * params["logs"])
    if isinstance(bijector, (Coupling, Injector)) and bijector.affine.scale is not None:
        z1 = x[..., : bijector._passed(x.shape[-1])] if isinstance(bijector, Coupling) else None
        raw = bijector.net.apply(params["net"], z1, bijector.prepare(params, cond)["net"])
        return bijector.affine._split(raw)[1]
    if isinstance(bijector, InvertibleBlock):
        y1 = bijector.forward(params, x)[0][..., : bijector.low]
        return bijector.scale(bijector.net.apply(params["H"], y1))[0]
    return None


def inspect_inverse(flow: Bijector, params, latents, cond, limit: float = 1e-3):
    """Run the inverse layer by layer and report each layer; returns (report, image)."""
    latents = list(latents)
    y = latents.pop()
    rows = []
    for name, layer, p, layer_cond in reversed(list(atoms(flow, params, cond))):
        target = (y, latents.pop()) if name.endswith(".split") else y
        x, _ = layer.inverse(p, target, layer_cond)
        again, _ = layer.forward(p, x, layer_cond)
        errors, sizes = [], [1.0]
        for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(target), strict=True):
            errors.append(float(jnp.max(jnp.abs(a - b))))
            sizes.append(float(jnp.max(jnp.abs(b))))
        scales = layer_scales(layer, p, x, layer_cond)
        condition = np.nan
        if isinstance(layer, Conv1x1):
            condition = float(np.linalg.cond(np.asarray(p["weight"], np.float64)))
        rows.append(
            LayerReport(
                name=name,
                smallest_scale=np.nan if scales is None else float(jnp.min(scales)),
                largest_scale=np.nan if scales is None else float(jnp.max(scales)),
                condition=condition,
                round_trip=max(errors) / max(sizes),
                magnitude=float(jnp.max(jnp.abs(x))),
            )
        )
        y = x
    back, _ = flow.inverse(params, flow.forward(params, y, cond)[0], cond)
    error = float(jnp.max(jnp.abs(back - y)))
    return InvertibilityReport(tuple(rows), limit, error), y
