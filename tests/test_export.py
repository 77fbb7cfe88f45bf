"""Exported programs: run in a process that cannot import this library, with equal pixels."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flowsr_jax
from flowsr_jax import export
from flowsr_jax.diffusion.schedules import ScheduleConfig
from flowsr_jax.export import export_model
from flowsr_jax.files import atomic
from flowsr_jax.files.atomic import atomic_write
from flowsr_jax.models.base import Params, get_family
from flowsr_jax.models.irn import IRNConfig
from flowsr_jax.models.rrdb.config import RRDBConfig
from flowsr_jax.models.sr3 import SR3Config
from flowsr_jax.models.srflow.config import SRFlowConfig
from flowsr_jax.nets.unet import UNetConfig

pytest.importorskip("flatbuffers", reason="jax.export writes with the package flatbuffers")
ROOT = Path(__file__).resolve().parents[1]
ENCODER = RRDBConfig(scale=2, nf=4, gc=2, nb=1)
FLOW = SRFlowConfig(
    encoder=ENCODER, steps=(1, 2), transition_steps=1, hidden=4, stacked_blocks=(0,)
)
OURS = RRDBConfig(scale=2, nf=4, gc=2, nb=1, head="subpixel", residual=True)
RESCALER = IRNConfig(scale=4, blocks=(1, 1), growth=4)
LEARNED = IRNConfig(scale=3, blocks=(1,), growth=4)
UNET = UNetConfig(channels=4, multipliers=(1, 2), res_blocks=1, attn_res=(8,), image_size=16,
                  norm_groups=2, dropout=0.0)  # fmt: skip
DIFFUSION = SR3Config(scale=3, unet=UNET, schedule=ScheduleConfig("linear", 20, 1e-4, 0.6))
TIMED = dataclasses.replace(DIFFUSION, unet=dataclasses.replace(UNET, conditioning="time"))
KEY = jax.random.key(0)
# {name: (config, options of export_model, further shapes of the first program's input)}
CASES = {
    "srflow": (FLOW, {"programs": ("sample", "encode", "decode")}, ((2, 6, 10, 3),)),
    "srflow_baked": (FLOW, {"bake": True, "batch": 2, "size": (6, 10)}, ()),
    "rrdb": (ENCODER, {}, ()),
    "residual": (OURS, {}, ((2, 1, 5, 3),)),
    "irn": (RESCALER, {}, ((2, 8, 20, 3),)),
    "irn_baked": (LEARNED, {"bake": True, "batch": 2, "size": (5, 6)}, ()),
    "sr3": (DIFFUSION, {"options": {"steps": 3}}, ((2, 6, 4, 3),)),
    "ddpm_baked": (TIMED, {"bake": True, "options": {"sampler": "ddim", "steps": 2}}, ()),
}
# What each program must give: the public call.
PUBLIC = {
    "sample": lambda params, lr, options: flowsr_jax.sample(params, lr, KEY, **options),
    "downscale": lambda params, hr, options: flowsr_jax.downscale(params, hr) / 255.0,
    "upscale": lambda params, lr, options: flowsr_jax.upscale(params, lr, KEY),
}
# Runs the examples of all README files, and calls the sampler with other shapes.
RELOAD = """
import json, os, sys
sys.modules["flowsr_jax"] = None  # importing it fails
import numpy as np
for folder, shapes in json.loads(sys.argv[1]).items():
    os.chdir(folder)
    examples = open("README.md").read().split("```python\\n")[1:]
    results = {}
    for number, example in enumerate(examples):
        names = {}
        exec(example.split("```")[0], names)
        jax = names["jax"]
        results[f"image{number}"] = names["hr"] if "hr" in names else names["lr"]
        outputs = jax.tree.leaves(names["result"])
        for i, array in enumerate(outputs):
            results[f"example{number}/{i}"] = np.asarray(array)
        if number:
            continue
        params = [names["params"]] if "params" in names else []
        rest = [names[n] for n in ("key", "temperature") if n in names]
        for shape in map(tuple, shapes):
            image = np.random.default_rng(1).random(shape, np.float32)
            results[str(shape)] = np.asarray(jax.jit(names["program"].call)(*params, image, *rest))
        if "srflow" == os.path.basename(folder):
            try:
                jax.jit(names["program"].call)(*params, np.zeros((1, 3, 4, 3), np.float32), *rest)
            except ValueError as error:
                results["odd"] = np.array(str(error))
    np.savez("results.npz", **results)
assert not any(name.startswith("flowsr_jax.") for name in sys.modules)
print("reloaded")
"""


def _params(config):
    """Random parameters of a moderate, invertible model."""
    shapes = jax.eval_shape(lambda key: get_family(config.family).init(config, key), KEY)
    rng = np.random.default_rng(2)

    def leaf(path, x):
        noise = 0.1 * rng.standard_normal(x.shape).astype("f")
        square = "conv1x1" in jax.tree_util.keystr(path)
        return jnp.asarray(noise + np.eye(x.shape[-1], dtype="f") if square else noise)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """{name: (params, record, results of the second process)}."""
    root = tmp_path_factory.mktemp("export")
    models = {config: _params(config) for config, *_ in CASES.values()}
    made = {}
    for name, (config, options, _) in CASES.items():
        record = export_model(
            models[config], root / name, **options, metadata={"licence": "as you like"}
        )
        made[name] = (models[config], record)
    plan = {str(root / name): shapes for name, (_, _, shapes) in CASES.items()}
    result = subprocess.run(
        [sys.executable, "-c", RELOAD, json.dumps(plan)],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
    )
    assert "reloaded" in result.stdout, result.stderr[-3000:]
    return {
        name: (*both, dict(np.load(root / name / "results.npz"))) for name, both in made.items()
    }


@pytest.mark.parametrize("name", CASES)
def test_equal_pixels_in_a_process_without_the_library(exported, name):
    params, record, results = exported[name]
    config, options, shapes = CASES[name]
    calls = [
        (program, f"example{number}/0", results[f"image{number}"])
        for number, program in enumerate(record["programs"])
        if program in PUBLIC
    ]
    first = calls[0][0]
    for shape in shapes:
        calls.append((first, str(shape), np.random.default_rng(1).random(shape, np.float32)))
    for program, key, image in calls:
        want = np.asarray(PUBLIC[program](params, image, options.get("options", {})))
        got = results[key]
        assert got.shape == want.shape and np.isfinite(got).all()
        error = np.abs(got - want).max() / np.abs(want).max()
        pixels = [(np.clip(x, 0, 1) * 255).round().astype(np.uint8) for x in (got, want)]
        print(f"{name} {program} {image.shape}: largest relative difference {error:.1e}")
        np.testing.assert_array_equal(*pixels)
        assert error < 1e-5 and want.std() > 0.01
    assert record["platforms"] == ["cpu", "cuda", "tpu"]


def test_other_programs_of_a_flow(exported):
    params, record, results = exported["srflow"]
    assert list(record["programs"]) == ["sample", "encode", "decode"]
    hr = np.random.default_rng(0).random((1, 64, 64, 3), np.float32)
    lr = np.random.default_rng(0).random((1, 32, 32, 3), np.float32)
    latents, log_prob = flowsr_jax.encode(params, hr, lr)
    for i, want in enumerate([*latents, log_prob]):
        np.testing.assert_allclose(results[f"example1/{i}"], want, rtol=1e-5, atol=1e-5)
    zero = flowsr_jax.sample(params, lr, jax.random.key(0), temperature=0.0)
    np.testing.assert_allclose(results["example2/0"], zero, atol=1e-5)
    assert "odd" in results  # a size that the flow cannot take is refused by the program


def test_record_and_readme(exported):
    params, record, _ = exported["srflow"]
    assert record == json.loads(json.dumps(record)) and record["family"] == "srflow"
    sample = record["programs"]["sample"]
    assert [(x["name"], x["shape"], x["dtype"]) for x in sample["inputs"]] == [
        ("lr", ["b", "2*h", "2*w", 3], "float32"),
        ("key", [2], "uint32"),
        ("temperature", [], "float32"),
    ]
    assert sample["outputs"] == [{"shape": ["b", "4*h", "4*w", 3], "dtype": "float32"}]
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert 4 * count < record["params"]["bytes"] < 4 * count + 20_000
    baked = exported["srflow_baked"][1]
    assert baked["params"] is None
    inside = baked["programs"]["sample"]["bytes"]
    print(f"{count} parameters; program {sample['bytes']} bytes, baked {inside}")
    assert inside > 4 * count and inside > sample["bytes"]
    irn = exported["irn"][1]["programs"]
    down, up = irn["downscale"], irn["upscale"]
    assert (down["file"], up["file"]) == ("model.stablehlo", "upscale.stablehlo")
    assert down["inputs"][0]["shape"] == ["b", "4*h", "4*w", 3] == up["outputs"][0]["shape"]
    assert down["outputs"][0]["shape"] == ["b", "h", "w", 3] == up["inputs"][0]["shape"]
    sr3 = exported["sr3"][1]["programs"]["sample"]
    assert sr3["inputs"][0]["shape"] == ["b", "2*h", "2*w", 3]  # its network halves 6*h once
    rrdb = exported["rrdb"][1]["programs"]["sample"]
    assert [x["name"] for x in rrdb["inputs"]] == ["lr"]


def test_requests_that_cannot_be_met(tmp_path, exported, monkeypatch):
    params = exported["srflow"][0]

    def refused(message, model=params, **options):
        with pytest.raises(ValueError, match=message) as info:
            export_model(model, tmp_path / "out", **options)
        print(info.value)
        assert not (tmp_path / "out").exists()

    refused(r"size = \(3, 4\).* multiples of 2", size=(3, 4))
    refused("batch = 0", batch=0)
    refused("programs = 'upscale'.*'sample'", programs=["upscale"])
    refused("platforms = 'gpu'.*'cuda'", platforms=["gpu"])
    refused("did you mean 'steps'", exported["sr3"][0], options={"step": 3})
    refused("programs = 'encode'.*'downscale', 'upscale'", exported["irn"][0], programs=["encode"])
    glow = Params({}, get_family("glow").config_class())
    refused("'glow' takes no LR image.*from nothing are not exported", glow)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    refused("pip install flatbuffers")


def _main():
    spec = importlib.util.spec_from_file_location("launch_export", ROOT / "launch" / "export.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_command(tmp_path, exported, capsys):
    main, model, out = _main(), tmp_path / "model", tmp_path / "out"
    notes = {"licence": "as you like", "step": 3}
    flowsr_jax.io.weights.save(exported["rrdb"][0], model, metadata=notes)
    assert main([str(model), str(out), "--size=8x6", "--bake", "--platforms=cpu"]) == 0
    printed = capsys.readouterr().out
    assert "model.stablehlo: " in printed and "export.deserialize" in printed
    record = json.loads((out / "export.json").read_text())
    assert record["programs"]["sample"]["inputs"][0]["shape"] == ["b", 8, 6, 3]
    assert record["metadata"] == {"licence": "as you like"}
    assert "licence: as you like" in (out / "README.md").read_text()
    assert sorted(os.listdir(out)) == ["README.md", "export.json", "model.stablehlo"]
    official = tmp_path / "official.pth"
    flowsr_jax.to_torch(exported["rrdb"][0], official)
    assert main([str(official), str(out), "--size=8x6", "--batch=1", "--platforms=cpu"]) == 0
    notes = json.loads((out / "export.json").read_text())["metadata"]
    assert notes["source"] == "official.pth" and not notes.get("licence")
    assert len(notes["source_sha256"]) == 64
    capsys.readouterr()
    for args, message in (
        ([str(tmp_path / "no"), str(out)], "no such folder"),
        ([str(model), str(out), "--programs=encode"], "programs = 'encode'"),
        ([str(model), str(out), "--set", "steps=4"], "steps"),
        ([str(model), str(out), "--size=8"], "'8' is not HxW"),
        ([str(model)], "the following arguments are required: OUT"),
    ):
        try:
            code = main(args)
        except SystemExit as stop:
            code = stop.code
        error = capsys.readouterr().err
        print(error, end="")
        assert code == 2 and error.startswith("error: ") and error.count("\n") == 1
        assert message in error


ANEW = """
import sys, jax
sys.path.insert(0, sys.argv[1])
from test_export import ENCODER, _params
from flowsr_jax.export import export_model
export_model(_params(ENCODER), sys.argv[2])
"""


def files_of(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_an_export_is_the_same_bytes_from_another_process(tmp_path, exported):
    export_model(exported["rrdb"][0], tmp_path / "here")
    environment = {**os.environ, "PYTHONHASHSEED": "7", "JAX_PLATFORMS": "cpu"}
    environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
    command = [sys.executable, "-c", ANEW, str(ROOT / "tests"), str(tmp_path / "there")]
    subprocess.run(command, check=True, env=environment, cwd=tmp_path)
    here, there = files_of(tmp_path / "here"), files_of(tmp_path / "there")
    assert here == there and str(ROOT).encode() not in b"".join(here.values())


@pytest.mark.parametrize("exchange", [True, False])
def test_an_export_over_an_older_one_is_all_new_or_all_old(
    tmp_path, exported, monkeypatch, exchange
):
    if not exchange:  # where the system cannot
        monkeypatch.setattr(atomic.ctypes, "CDLL", lambda *_, **__: None)
    out, how = tmp_path / "out", {"size": (4, 4), "batch": 1, "platforms": ["cpu"]}
    params = exported["rrdb"][0]
    export_model(params, out, bake=True, **how)
    old = files_of(out)
    for number in range(4):  # killed while it writes its n-th file, or before the exchange
        write, done = atomic_write, []

        def dies(path, write=write, done=done, number=number):
            done.append(path)
            if len(done) > number:
                raise KeyboardInterrupt
            return write(path)

        with monkeypatch.context() as planted, pytest.raises(KeyboardInterrupt):
            planted.setattr(export, "atomic_write", dies)
            export_model(params, out, **how)
        assert files_of(out) == old
    export_model(params, out, **how)
    assert set(files_of(out)) == {
        "model.stablehlo",
        "params.safetensors",
        "export.json",
        "README.md",
    }
    assert os.listdir(tmp_path) == ["out"]
    (out / "mine.txt").touch()
    with pytest.raises(ValueError, match="holds 'mine.txt', which is no part of an export"):
        export_model(params, out, **how)
