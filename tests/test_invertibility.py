"""Reports of invertibility: every layer of every family is named, and a planted fault is found."""

from __future__ import annotations

import dataclasses
import math
import re

import jax
import jax.numpy as jnp
import pytest

from flowsr_jax.bijectors import Affine, Bijector, Chain, Conv1x1PLU, Coupling, ScaleForm, Scan
from flowsr_jax.bijectors.base import zeros_logdet
from flowsr_jax.bijectors.invertibility import elementary_layers, inspect_inverse, layer_reports
from flowsr_jax.models.glow.config import GlowConfig
from flowsr_jax.models.glow.network import whole_flow as glow_flow
from flowsr_jax.models.irn.config import IRNConfig
from flowsr_jax.models.irn.network import build_flow as irn_flow
from flowsr_jax.models.nice.config import NICEConfig
from flowsr_jax.models.nice.network import build_flow as nice_flow
from flowsr_jax.models.realnvp.config import RealNVPConfig
from flowsr_jax.models.realnvp.network import build_flow as realnvp_flow
from flowsr_jax.models.rrdb.config import RRDBConfig
from flowsr_jax.models.srflow.config import SRFlowConfig
from flowsr_jax.models.srflow.network import build_flow as srflow_flow
from flowsr_jax.nets.mlp import MLP
from flowsr_jax.testing import moved


def _levels(key, sizes, channels):
    return [jax.random.normal(key, (1, n, n, channels)) for n in sizes]


def _srflow():
    encoder = RRDBConfig(scale=2, nf=2, gc=2, nb=1)
    config = SRFlowConfig(
        encoder, steps=(1, 2), transition_steps=1, hidden=3, stacked_blocks=(), splits=(1,)
    )
    cond = {"levels": _levels(jax.random.key(1), (4, 2), config.cond_channels(1))}
    return srflow_flow(config), (8, 8, 3), cond


FLOWS = {
    "srflow": _srflow,
    "irn": lambda: (irn_flow(IRNConfig(scale=2, blocks=(2,), growth=2)), (4, 4, 3), None),
    "irn_x3": lambda: (irn_flow(IRNConfig(scale=3, blocks=(1,), growth=2)), (3, 3, 3), None),
    "glow": lambda: (
        glow_flow(GlowConfig(levels=2, steps=2, hidden=3, classes=2, permutation="conv1x1_plu")),
        (8, 8, 3),
        {"label": jnp.ones(1, jnp.int32)},
    ),
    "realnvp": lambda: (
        realnvp_flow(RealNVPConfig(scales=2, dim=2, blocks=1, size=4, channels=1)),
        (4, 4, 1),
        None,
    ),
    "nice": lambda: (nice_flow(NICEConfig((2, 2, 1), layers=1, hidden=3)), (2, 2, 1), None),
}


@dataclasses.dataclass(frozen=True)
class Broken(Bijector):
    """A bijector whose inverse is off by 0.05; the identity in the place of a network."""

    sound: Bijector

    def init(self, key, shape):
        return self.sound.init(key, shape)

    def output_shape(self, shape):
        return self.sound.output_shape(shape)

    @property
    def diverts(self):
        return self.sound.diverts

    def forward(self, params, x, cond=None, prepared=None):
        if hasattr(self.sound, "net"):
            return x, zeros_logdet(x)
        return self.sound.forward(params, x, cond)

    def inverse(self, params, y, cond=None, prepared=None):
        if not hasattr(self.sound, "net"):
            y, _ = self.sound.inverse(params, y, cond)
        return y + 0.05, zeros_logdet(y)


def plants(bijector, path=""):
    """Yield (path, the bijector with the layer there replaced by a broken one) of every layer.

    Indices of scanned steps are left out of the path; `outer` of a Within has its path.
    """
    inside = False
    for field in dataclasses.fields(bijector):
        value = getattr(bijector, field.name)
        entries = value if isinstance(value, tuple) else (value,)
        for i, entry in enumerate(entries):
            name, part = entry if isinstance(entry, tuple) else ("", entry)
            if not isinstance(part, Bijector):
                continue
            inside = True
            if field.name in ("levels", "splits"):
                kind = ".split" if part.diverts else ".prior"
                name = f"level{i + 1}" + (kind if field.name == "splits" else "")
            here = f"{path}.{name}" if path and name else path or name
            for where, broken in plants(part, here):
                new = (name, broken) if isinstance(entry, tuple) else broken
                if isinstance(value, tuple):
                    new = (*value[:i], new, *value[i + 1 :])
                yield where, dataclasses.replace(bijector, **{field.name: new})
    if not inside:
        yield path, Broken(bijector)


@pytest.fixture(scope="module")
def made():
    """{family: (flow, parameters, latents, cond)}, made once."""
    found = {}
    for name, make in FLOWS.items():
        flow, shape, cond = make()
        params = moved(jax.jit(flow.init, static_argnums=1)(jax.random.key(0), shape))
        shapes = flow.output_shape(shape)
        shapes = shapes if isinstance(shapes, list) else [shapes]
        latents = [0.3 * jax.random.normal(jax.random.key(2), (1, *s)) for s in shapes]
        found[name] = flow, params, latents, cond
    return found


@pytest.mark.parametrize("family", FLOWS)
def test_a_fault_planted_at_any_depth_is_named(family, made):
    flow, params, latents, cond = made[family]
    rows, _ = layer_reports(flow, params, latents, cond)
    assert max(row.round_trip for row in rows) < 1e-4
    names = [name for name, *_ in elementary_layers(flow, params, cond)]
    assert [row.name for row in rows] == names[::-1] and len(set(names)) == len(names)
    for path, broken in plants(flow):
        rows, _ = layer_reports(broken, params, latents, cond)
        fault = next(row for row in rows if not row.round_trip < 1e-3)
        place = re.sub(r"\[\d+\]", "", fault.name)
        # A fault of what a Within surrounds shows in the layers within it.
        assert place == path or place.startswith(f"{path}."), (path, fault)


@pytest.mark.parametrize("family", FLOWS)
def test_layers_that_scale_say_so(family, made):
    flow, params, latents, cond = made[family]
    rows, _ = layer_reports(flow, params, latents, cond)
    for row in rows:
        assert 0 < row.smallest_scale <= row.largest_scale < math.inf
    matrices = [row for row in rows if row.name.endswith(("conv1x1", "permutation"))]
    assert all(row.condition >= 1.0 for row in matrices)
    assert matrices or family not in ("srflow", "glow")
    scaling = [row for row in rows if (row.smallest_scale, row.largest_scale) != (1.0, 1.0)]
    wanted = {"realnvp": ("coupling", "bn_out"), "nice": ("scaling",), "glow": ("split", "prior")}
    for end in wanted.get(family, ()):
        assert any(row.name.endswith(end) for row in scaling), end


def test_a_nearly_singular_factor_has_a_condition_number():
    params = Conv1x1PLU().init(jax.random.key(0), (2, 2, 4))
    log_s = params["log_s"].at[0].set(-16.0)
    flow = Chain((("plu", Conv1x1PLU()),))
    report, _ = inspect_inverse(flow, {"plu": {**params, "log_s": log_s}}, [jnp.ones((1, 2, 2, 4))])
    (row,) = report.layers
    assert row.condition > 1e6 and row.largest_scale / row.smallest_scale > 1e5
    assert "plu" in str(report)


def test_a_scale_that_explodes_is_seen_in_its_step():
    coupling = Coupling(MLP(4, 1, None), Affine(ScaleForm("exp"), "half"))
    flow = Scan(Chain((("coupling", coupling),)), 2)
    params = flow.init(jax.random.key(0), (4,))
    last = params["coupling"]["net"]["layer1"]
    last["b"] = last["b"].at[1, 2:].set(20.0)
    report, _ = inspect_inverse(flow, params, [jnp.ones((1, 4))])
    named = {row.name: row.largest_scale for row in report.layers}
    assert named["[1].coupling"] > 1e8 and named["[0].coupling"] == 1.0
