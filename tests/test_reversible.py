"""Memory of training: reversible and rematerialised gradients are those of plain autodiff."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bijector_cases import CASES
from safetensors.numpy import load_file, save_file
from virtual_devices import virtual_devices

import flowsr_jax
from flowsr_jax.bijectors import Chain, InvertibleBlock, Scan, Shuffle
from flowsr_jax.config import ConfigError
from flowsr_jax.models import Params, get_family
from flowsr_jax.models.glow import GlowConfig
from flowsr_jax.models.irn import IRNConfig
from flowsr_jax.models.realnvp import RealNVPConfig
from flowsr_jax.models.rrdb.config import RRDBConfig
from flowsr_jax.models.srflow import SRFlowConfig
from flowsr_jax.nets.conv import Compute
from flowsr_jax.nets.dense_block import DenseBlock
from flowsr_jax.nets.rrdb import RRDBEncoder, init_rrdb
from flowsr_jax.nets.unet import UNetConfig
from flowsr_jax.train.config import resolve
from flowsr_jax.train.resume import check_resumable

FAST = {"xla_backend_optimization_level": 0}
LIMIT = 1e-4
ENCODER = RRDBConfig(scale=2, nf=4, gc=2, nb=1, head="subpixel")
SRFLOW = SRFlowConfig(ENCODER, steps=(16,), transition_steps=1, hidden=8, stacked_blocks=(0,))
GLOW = GlowConfig(levels=1, steps=6, hidden=8, size=16)
MODELS = {
    "srflow": (SRFLOW, "nll"),
    "glow affine conv1x1": (GLOW, "nll"),
    "glow additive shuffle": (
        dataclasses.replace(GLOW, coupling="additive", permutation="shuffle"),
        "nll",
    ),
    "glow affine reverse": (dataclasses.replace(GLOW, permutation="reverse"), "nll"),
    "irn, both directions": (IRNConfig(scale=2, blocks=(6,), growth=4), "rescale"),
}


def moved(params, seed=1):
    """Float leaves moved away from their start values, where networks are zero."""
    rng = np.random.default_rng(seed)
    noise = lambda x: x + 0.05 * rng.standard_normal(x.shape, np.float32)  # noqa: E731
    return jax.tree.map(lambda x: noise(x) if x.dtype == jnp.float32 else x, params)


def error(found, expected):
    """Largest relative error of a leaf, by norms; leaves of integers have no gradient."""
    worst = 0.0
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        if a.dtype != jax.dtypes.float0:
            assert np.all(np.isfinite(a))
            worst = max(worst, np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-12))
    return worst


def step_of(config, loss, memory, tree=None):
    """(compiled loss and gradients of one image, its arguments) of a model."""
    config = dataclasses.replace(config, compute=Compute(memory=memory))
    family = get_family(config.family)
    if tree is None:
        tree = moved(jax.jit(functools.partial(family.init, config))(jax.random.key(0))).tree
    hr = jnp.asarray(np.random.default_rng(0).random((1, 16, 16, 3), np.float32))
    arguments = Params(tree, config), {"hr": hr, "lr": hr[:, ::2, ::2]}

    def run(params, batch):
        return family.losses[loss](params, {}, batch, jax.random.key(1))[0]

    gradients = jax.jit(jax.value_and_grad(run, allow_int=True))
    return gradients.lower(*arguments).compile(compiler_options=FAST), arguments


def temporaries(compiled):
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_the_models(name):
    config, loss = MODELS[name]
    plain, arguments = step_of(config, loss, "store")
    saving, same = step_of(config, loss, "reversible", arguments[0].tree)
    value, gradients = plain(*arguments)
    found, others = saving(*same)
    np.testing.assert_allclose(found, value, rtol=1e-5)
    worst = error(others, gradients)
    print(f"{name}: largest relative error {worst:.1e}")
    assert worst < LIMIT
    if name == "srflow":  # 16 steps against 4: memory does not grow
        small, _ = step_of(dataclasses.replace(config, steps=(4,)), loss, "reversible")
        sizes = {"K=16": temporaries(saving), "K=4": temporaries(small), "kept": temporaries(plain)}
        print({k: f"{v / 1e6:.2f} MB" for k, v in sizes.items()})
        assert sizes["K=16"] < 1.15 * sizes["K=4"] and sizes["K=16"] < sizes["kept"] / 3


def _case(name="scan"):
    return next(case for case in CASES if case.name == name)


def _objective(scan, given, inverse, params, x, cond):
    """A scalar of both outputs of one direction."""
    run = scan.inverse if inverse else scan.forward
    prepared = scan.prepare(params, cond, inverse) if given else None
    y, logdet = run(params, x, cond, prepared)
    return jnp.sum(jnp.sin(y)) + jnp.sum(jnp.square(logdet))


FORWARD, INVERSE = (False, False, False), (False, True, False)
WAYS = {  # of each kind: (prepared given, inverse, vmapped over x alone)
    "float32": [FORWARD, INVERSE, (True, False, False), (True, True, False), (False, False, True)],
    "unrolled": [FORWARD, INVERSE],
    "bfloat16": [FORWARD, INVERSE],
}


@pytest.mark.parametrize(
    "kind", ["float32", "bfloat16", pytest.param("unrolled", marks=pytest.mark.slow)]
)
def test_every_way_of_calling_a_scan(kind):
    case = _case()
    key = jax.random.key(3)
    params, cond = case.params(key), case.cond(key)
    parts = case.bijector.step.bijectors
    compute = Compute("bfloat16" if kind == "bfloat16" else "float32")
    net = dict(parts)["coupling"].net.clone(compute=compute)
    nets = {
        name: dataclasses.replace(part, net=net) for name, part in parts if hasattr(part, "net")
    }
    step = Chain(tuple((name, nets.get(name, part)) for name, part in parts))
    x = jax.random.normal(key, (3, 2, *case.shape))

    @functools.partial(jax.jit, static_argnums=0, compiler_options=FAST)
    def everything(memory, params, x, cond):
        out = {}
        for given, inverse, many in WAYS[kind]:
            scan = Scan(step, 3, kind == "unrolled", memory)
            run = jax.grad(functools.partial(_objective, scan, given, inverse), (0, 1, 2))
            run = jax.vmap(run, (None, 0, None)) if many else run
            out[given, inverse, many] = run(params, x if many else x[0], cond)
        return out

    plain = everything("store", params, x, cond)
    # In bfloat16 an input off by one rounding may be rounded to the neighbour.
    limit = 0.02 if kind == "bfloat16" else LIMIT
    for memory in ("remat", "reversible"):
        for way, gradients in everything(memory, params, x, cond).items():
            worst = error(gradients, plain[way])
            print(f"{memory} prepared={way[0]} inverse={way[1]} vmap={way[2]}: {worst:.1e}")
            assert worst < limit


def test_integers_have_no_gradient_and_two_calls_agree():
    block = InvertibleBlock(DenseBlock(2), low=1)
    step = Chain((("shuffle", Shuffle()), ("block", block)))
    scan = Scan(step, 4, memory="reversible")
    params = moved(scan.init(jax.random.key(0), (2, 2, 4)))
    x = jax.random.normal(jax.random.key(1), (2, 2, 2, 4))
    run = jax.jit(
        jax.grad(functools.partial(_objective, scan, False, False), (0, 1), allow_int=True),
        static_argnums=2,
        compiler_options=FAST,
    )
    first, second = run(params, x, None), run(params, x, None)
    assert first[0]["shuffle"]["indices"].dtype == jax.dtypes.float0
    assert error(first, second) == 0.0


SHARDED = """
import jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
import test_reversible as t
from flowsr_jax.train import mesh as meshes
assert jax.device_count() == 8
mesh = meshes.make_mesh(4, 2)
case, key = t._case(), jax.random.key(3)
params = case.params(key)
x, cond = jax.random.normal(key, (8, 2, 2, 4)), jax.random.normal(key, (8, 2, 2, 3))
def gradients(memory, *args):
    scan = t.Scan(case.bijector.step, 3, memory=memory)
    run = jax.grad(t.functools.partial(t._objective, scan, False, False), (0, 1, 2))
    return jax.jit(run, compiler_options=t.FAST)(*args)
expected = gradients("store", params, x, cond)
put = lambda a: jax.device_put(a, meshes.batch_sharding(mesh))
everywhere = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
found = gradients("reversible", everywhere, put(x), put(cond))
print("error", t.error(jax.device_get(found), jax.device_get(expected)))
"""


def test_gradients_of_a_sharded_batch():
    done = subprocess.run(
        [sys.executable, "-c", SHARDED],
        env={**os.environ, **virtual_devices(8), "PYTHONPATH": os.pathsep.join([".", "tests"])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    print(done.stdout)
    assert float(done.stdout.split()[-1]) < LIMIT


def test_the_trained_demo():
    demo = flowsr_jax.load("demo")
    hr = jnp.asarray(np.random.default_rng(0).random((1, 16, 16, 3), np.float32))
    hr = jax.image.resize(hr[:, ::4, ::4], hr.shape, "cubic")
    batch = {"hr": hr, "lr": hr[:, ::4, ::4]}
    found = {}
    for memory in ("store", "reversible"):
        config = dataclasses.replace(demo.config, compute=Compute(memory=memory))
        params = Params(demo.tree, config)
        loss = lambda flow, params=params: get_family("srflow").losses["nll"](  # noqa: E731
            params.replace(flow=flow), {}, batch, jax.random.key(0)
        )[0]
        found[memory] = jax.jit(jax.grad(loss), compiler_options=FAST)(demo["flow"])
    worst = error(found["reversible"], found["store"])
    print(f"demo: largest relative error {worst:.1e}")
    assert worst < LIMIT


def test_a_rematerialised_encoder():
    params = init_rrdb(jax.random.key(0), ENCODER)
    lr = jax.random.uniform(jax.random.key(1), (1, 4, 4, 3))

    def loss(params, memory):
        config = dataclasses.replace(ENCODER, compute=Compute(memory=memory))
        fea, _ = RRDBEncoder(config).apply({"params": params}, lr, method="trunk")
        return jnp.sum(jnp.sin(fea))

    run = jax.jit(jax.grad(loss), static_argnums=1, compiler_options=FAST)
    assert error(run(params, "remat"), run(params, "store")) < 1e-6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Compute(memory="reversable"), "'reversable' is not one of.*mean 'reversible'"),
        (lambda: Compute(memory="all"), "memory = 'all' is not one of 'store', 'remat', 'rever"),
        (lambda: UNetConfig(compute=Compute(memory="reversible")), "of a U-Net.*'store', 'remat'"),
        (lambda: RRDBConfig(compute=Compute(memory="reversible")), "encoder.*'store', 'remat'"),
        (lambda: RealNVPConfig(compute=Compute(memory="remat")), "RealNVP.*one of 'store'"),
        (lambda: Scan(Shuffle(), 2, memory="remta"), "memory = 'remta'.*mean 'remat'"),
    ],
    ids=["misspelt", "unknown", "unet", "encoder", "realnvp", "scan"],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_records_of_earlier_versions(tmp_path):
    values = importlib.import_module("configs.irn_div2k").get_config("smoke").to_dict()
    values["model"]["compute"] = {"memory": "remat"}
    config = resolve(values)
    saved = config.to_dict()
    del saved["model"]["compute"]["memory"]
    saved["model"]["compute"]["remat"] = True
    assert check_resumable(saved, config, 0, 1) == []
    saved["model"]["compute"]["remat"] = False
    (note,) = check_resumable(saved, config, 0, 1)  # recomputing does not change the run
    assert note == "model.compute.memory: 'store' -> 'remat'"
    saved["model"]["compute"]["remat"] = True
    with pytest.raises(ConfigError, match="remat is not a field of Compute"):
        resolve(saved)  # a config of today has one way to say it

    params = get_family("irn").init(config.model, jax.random.key(0))
    flowsr_jax.save(params, tmp_path)
    tensors = load_file(tmp_path / "params.safetensors")
    save_file(tensors, tmp_path / "params.safetensors")  # without the record inside
    record = json.loads((tmp_path / "config.json").read_text())
    record["config"] = {k: v for k, v in saved["model"].items() if k != "family"}
    (tmp_path / "config.json").write_text(json.dumps(record))
    assert flowsr_jax.load(tmp_path).config == config.model
