"""Agreement of NICE with reference arrays.  Run with -s to see the largest error of each."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_tools import Table

from flowsr_jax.bijectors import Deinterleave, Scaling
from flowsr_jax.bijectors.invertibility import elementary_layers
from flowsr_jax.models.base import Params
from flowsr_jax.models.nice import NICEConfig
from flowsr_jax.models.nice.config import RANGES
from flowsr_jax.models.nice.network import build_flow, logistic_from_uniform
from flowsr_jax.models.nice.sample import decode, encode
from flowsr_jax.models.unconditional import dequantize, pixels

pytestmark = pytest.mark.usefixtures("as_users_compile")

D = 24


@pytest.fixture(scope="module")
def golden(shared):
    with np.load(shared / "golden/nice.npz") as data:
        return dict(data)


def load(golden, prior="logistic"):
    flow = {"scaling": {"logs": jnp.asarray(golden["model/log_scale"])}}
    for i in range(4):
        layers = [f"params/coupling{i}/layer{j}" for j in range(6)]
        net = {
            f"layer{j}": {"w": jnp.asarray(golden[f"{k}/W"]), "b": jnp.asarray(golden[f"{k}/b"])}
            for j, k in enumerate(layers)
        }
        flow[f"coupling{i}"] = {"net": net}
    config = NICEConfig(shape=(D,), hidden=10, prior=prior)
    return Params({"flow": flow}, config)


def to_image(v):
    """The vector in [0,1] that the flow sees as v."""
    return pixels().inverse({}, jnp.asarray(v))[0]


def test_model(golden):
    table = Table("nice")
    x = to_image(golden["model/x"])
    inside = np.float64(D * np.log(255 / 256))  # logdet of the map from images to x
    for prior in ("logistic", "gaussian"):
        params = load(golden, prior)
        (z,), log_prob = encode(params, x)
        table.check(f"model/z {prior}", z, golden["model/z"], 1e-5)
        want = golden[f"model/logp_x_{prior}"]
        table.check(f"model/logp_x_{prior}", np.asarray(log_prob) - inside, want, 1e-5)
    flow, h = build_flow(params.config), x
    logdet = flow.forward(params["flow"], x)[1]
    table.check("model/logdet", np.asarray(logdet) - inside, golden["model/logdet"], 1e-5)
    for name, layer, p, _ in elementary_layers(flow, params["flow"]):
        h, _ = layer.forward(p, h)
        if name.startswith("reverse"):
            key = f"model/after_coupling{name[-1]}"
            table.check(key, h, golden[key], 1e-5)
    tile, _ = Deinterleave().forward({}, jnp.arange(D)[None])
    table.check("model/perm_tile", tile[0], golden["model/perm_tile"], 0.0)
    back = decode(params, [golden["decode/z"]])
    table.check("decode/x", pixels().forward({}, back)[0], golden["decode/x"], 1e-5)
    table.finish()


def test_parts(golden):
    table = Table("nice: scaling, dequantisation, logistic prior")
    params = {"logs": jnp.asarray(golden["scaling/log_scale"])}
    y, logdet = Scaling().forward(params, jnp.asarray(golden["scaling/x"]))
    table.check("scaling/y", y, golden["scaling/y"], 1e-6)
    table.check("scaling/logdet", logdet, golden["scaling/logdet"], 1e-6)
    image = jnp.asarray(golden["dequantize/x_uint8"], jnp.float32) / 255
    image = dequantize(image, golden["dequantize/u"])
    for name, limits in {"y_0_1": "unit", "y_m1_1": "symmetric"}.items():
        y, _ = pixels(*RANGES[limits]).forward({}, image)
        table.check(f"dequantize/{name}", y, golden[f"dequantize/{name}"], 1e-6)
    z = jax.jit(logistic_from_uniform)(golden["logistic_sample/u"])
    table.check("logistic_sample/z", z, golden["logistic_sample/z"], 1e-5)
    table.finish()
