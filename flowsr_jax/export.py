"""Programs for other runtimes: a model's functions as StableHLO, through jax.export.

What a family offers is a dict of `Program`s, made by a builder: `family_programs` for
the verbs of `Family`, or an entry of BUILDERS for a family that has other functions.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flowsr_jax.config import choice, to_dict
from flowsr_jax.files.atomic import atomic_write
from flowsr_jax.models.base import Family, Params, family_of

PLATFORMS = ("cpu", "cuda", "tpu")
PARAMS = "params.safetensors"
EXAMPLE_SIDE = 32  # LR pixels of the example call
MULTIPLES = (1, 2, 4, 8, 16, 32)  # factors tried for the step of the open LR sizes
UNTRACEABLE = (
    TypeError,
    ValueError,
    NotImplementedError,
    jax.errors.InconclusiveDimensionOperation,  # a choice that depends on an open size
)
KEY = "threefry2x32"
RANDOM = "np.random.default_rng(0).random({shape}, np.float32)"
ZEROS = "np.zeros({shape}, np.float32)"
DRAWN = "super-resolved images, RGB, not clipped"


class ExportError(ValueError):
    """A model or a request that cannot be exported; one line."""


@dataclasses.dataclass(frozen=True)
class Input:
    """One input of a program.

    Attributes:
      shape: sizes, symbolic where they are open.
      meaning: one line for the reader.
      example: a Python expression (of jax and np) for one; "{shape}" is filled in.
      dtype: number type.
    """

    shape: tuple
    meaning: str
    example: str = RANDOM
    dtype: Any = jnp.float32


@dataclasses.dataclass(frozen=True)
class Program:
    """One function of a model.

    Attributes:
      call: pure function (params, *inputs).
      inputs: by name, in order.
      meaning: what it gives, one line.
      default: exported when no programs are named.
    """

    call: Callable[..., Any]
    inputs: Mapping[str, Input]
    meaning: str
    default: bool = True


def family_programs(family: Family, config, lr: tuple, options: Mapping) -> dict[str, Program]:
    """Programs of a family record: "sample"; "encode" and "decode" of flows.

    Args:
      family, config: the record and the model's config.
      lr: LR shape (b, h, w, c); sizes may be symbolic.
      options: static keyword arguments of `Family.sample`.
    """
    inputs = {"lr": Input(lr, "LR images in [0,1]")}
    if family.noise_shapes is None:

        def sample(params, lr):
            return family.sample(params, lr, None, temperature=None, num_samples=None, **options)

        return {"sample": Program(sample, inputs, DRAWN)}

    def sample(params, lr, key, temperature):
        key = jax.random.wrap_key_data(key, impl=KEY)
        return family.sample(params, lr, key, temperature=temperature, num_samples=None, **options)

    programs = {"sample": Program(sample, inputs | _noise(config), DRAWN)}
    if not (family.encode and family.decode and family.latent_shapes):
        return programs
    b, h, w, c = lr
    hr = Input((b, config.scale * h, config.scale * w, c), "HR images in [0,1]")
    latents = {
        f"latent{i}": Input(tuple(shape), "latent; the first is the finest level's", ZEROS)
        for i, shape in enumerate(family.latent_shapes(config, lr))
    }

    def decode(params, *arrays):
        return family.decode(params, list(arrays[:-1]), arrays[-1])

    given = "latents, finest level first, and log p(hr | lr) in nats"
    programs["encode"] = Program(family.encode, {"hr": hr, **inputs}, given, default=False)
    programs["decode"] = Program(decode, latents | inputs, DRAWN, default=False)
    return programs


def _noise(config) -> dict[str, Input]:
    named = (getattr(config, name, None) for name in ("temperature", "z_scale"))
    usual = next((value for value in named if value is not None), 1.0)
    return {
        "key": Input(
            (2,),
            f"jax.random.key_data of a key of the default kind ({KEY})",
            "jax.random.key_data(jax.random.key(0))",
            jnp.uint32,
        ),
        "temperature": Input(
            (),
            f"standard deviation of the noise, at least 0; usual: {usual:g}",
            f"np.float32({usual:g})",
        ),
    }


def irn_programs(family: Family, config, lr: tuple, options: Mapping) -> dict[str, Program]:
    """Both ways of an invertible rescaler: "downscale" and "upscale"."""
    from flowsr_jax.models.irn.network import forward, quantize

    hr = (lr[0], config.scale * lr[1], config.scale * lr[2], 3)
    upscale = family_programs(family, config, lr, options)["sample"]
    return {
        "downscale": Program(
            lambda params, hr: quantize(forward(params, hr)[0]),
            {"hr": Input(hr, "HR images in [0,1]")},
            "LR images in multiples of 1/255",
        ),
        "upscale": upscale,
    }


# Builders of families that offer other functions, with the signature of `family_programs`.
BUILDERS: dict[str, Callable[..., dict[str, Program]]] = {"irn": irn_programs}


def export_model(
    params: Params,
    folder: str | os.PathLike,
    *,
    programs: Sequence[str] | None = None,
    batch: int | None = None,
    size: tuple[int, int] | None = None,
    bake: bool = False,
    platforms: Sequence[str] = PLATFORMS,
    options: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write a model as StableHLO that needs jax, but not this library.

    Writes model.stablehlo (the first program; others are NAME.stablehlo), the parameters
    as params.safetensors unless they are baked in, export.json (inputs, outputs, sizes)
    and README.md with an example that runs as it stands.

    Args:
      params: model parameters.
      folder: made when missing; files of these names in it are replaced.
      programs: which of the family's programs; None is its default ones.
      batch: number of images; None leaves it open.
      size: LR (height, width); None leaves it open, in multiples of what the model needs.
      bake: keep the parameters inside the program instead of in a file of their own.
      platforms: of jax: "cpu", "cuda", "tpu", "rocm".
      options: static options of the family's sampler.
      metadata: JSON-ready notes kept in export.json and README.md.

    Returns:
      the record of export.json.

    Raises:
      ExportError: an unknown program, a size that the model cannot take, a function that
        cannot be traced for all sizes, or a package that is missing.
      OSError: the folder cannot be written to.
    """
    if importlib.util.find_spec("flatbuffers") is None:
        raise ExportError("jax.export writes with the package flatbuffers: pip install flatbuffers")
    for platform in platforms:
        choice("platforms", platform, (*PLATFORMS, "rocm"))
    family, config = family_of(params), params.config
    step, channels = family.multiple(config), _lr_channels(family, config)
    if size is not None and any(side < 1 or side % step for side in size):
        raise ExportError(f"size = {size} (LR height, width) must be multiples of {step}")
    if batch is not None and batch < 1:
        raise ExportError(f"batch = {batch} must be at least 1")
    build = BUILDERS.get(family.name, family_programs)

    def offered(b, h, w):
        return build(family, config, (b, h, w, channels), dict(options or {}))

    side = -(-EXAMPLE_SIDE // step) * step
    known = offered(batch or 1, *(size or (side, side)))
    names = [n for n, p in known.items() if p.default] if programs is None else list(programs)
    for name in names:
        program = known[choice("programs", name, known)]
        specs = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in program.inputs.values()]
        jax.eval_shape(program.call, params, *specs)  # wrong options show here

    flat, treedef = jax.tree_util.tree_flatten_with_path(params)
    leaves = {jax.tree_util.keystr(p, simple=True, separator="/"): np.asarray(x) for p, x in flat}

    def exported(name, step):
        b, h, w = jax.export.symbolic_shape("b, h, w")
        program = offered(batch or b, *(size or (step * h, step * w)))[name]
        specs = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in program.inputs.values()]

        def call(tree, *inputs):
            return program.call(jax.tree.unflatten(treedef, [tree[k] for k in leaves]), *inputs)

        if bake:
            function = jax.jit(lambda *inputs: call(leaves, *inputs))
        else:
            function = jax.jit(call)
            specs = [{k: jax.ShapeDtypeStruct(x.shape, x.dtype) for k, x in leaves.items()}, *specs]
        return program, jax.export.export(function, platforms=tuple(platforms))(*specs)

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {
        "format": 1,
        "family": family.name,
        "config": to_dict(config),
        "scale": config.scale,
        "platforms": list(platforms),
        "jax": jax.__version__,
        "programs": {},
        "params": None,
        "metadata": dict(metadata or {}),
    }
    for number, name in enumerate(names):
        program, made = _first_possible(name, exported, step, open_size=size is None)
        file = "model.stablehlo" if number == 0 else f"{name}.stablehlo"
        inputs = [
            {"name": key, "meaning": x.meaning, **_array(x)} for key, x in program.inputs.items()
        ]
        record["programs"][name] = {
            **_write(folder / file, bytes(made.serialize())),
            "meaning": program.meaning,
            "inputs": inputs,
            "outputs": [_array(x) for x in made.out_avals],
            "example": _example(file, known[name], bake),
        }
    if not bake:
        from safetensors.numpy import save

        record["params"] = _write(folder / PARAMS, save(leaves))
    _write(folder / "export.json", (json.dumps(record, indent=2) + "\n").encode())
    _write(folder / "README.md", readme(record).encode())
    return record


def readme(record: Mapping[str, Any]) -> str:
    """The README.md of an exported model: files, sizes, inputs and a call."""
    files = [(p, p["meaning"]) for p in record["programs"].values()]
    files += [(record["params"], "the parameters")] if record["params"] else []
    lines = [
        f"# {record['family']}, {record['scale']}x, as StableHLO",
        "",
        f"For {', '.join(record['platforms'])}; written with jax {record['jax']}. To run it: jax, "
        f"flatbuffers{' and safetensors' if record['params'] else ''}.",
        "",
        "| file | bytes | what it gives |",
        "|---|---|---|",
        *(f"| `{file['file']}` | {file['bytes']:,} | {what} |" for file, what in files),
    ]
    for note, value in record["metadata"].items():
        lines += ["", f"{note}: {value}"]
    for name, program in record["programs"].items():
        lines += ["", f"## {name}", "", "| | shape, dtype | meaning |", "|---|---|---|"]
        outputs = [{**x, "name": "result", "meaning": ""} for x in program["outputs"]]
        for x in (*program["inputs"], *outputs):
            shape = ", ".join(map(str, x["shape"]))
            lines.append(f"| {x['name']} | [{shape}] {x['dtype']} | {x['meaning']} |")
        lines += ["", "```python", program["example"], "```"]
    return "\n".join(lines) + "\n"


def _lr_channels(family: Family, config) -> int:
    side = family.multiple(config)
    for channels in (3, 1, 2, 4):
        try:
            family.check_lr(config, np.zeros((1, side, side, channels), np.float32))
        except ValueError:
            continue
        return channels
    raise ExportError(
        f"family {family.name!r} takes no LR image of 1 to 4 channels; models that draw images "
        "from nothing are not exported"
    )


def _first_possible(name: str, exported: Callable, step: int, open_size: bool):
    """Trace with the smallest step of the open sizes that works (padding may depend on it)."""
    for factor in MULTIPLES if open_size else (1,):
        try:
            return exported(name, factor * step)
        except UNTRACEABLE as error:
            reason = error
    text = " ".join(str(reason).split())[:200]
    hint = "; give a fixed LR size" if open_size else "; give a fixed batch as well"
    raise ExportError(f"{name} cannot be traced with open sizes ({text}){hint}") from reason


def _array(x) -> dict[str, Any]:
    shape = [n if isinstance(n, int) else str(n) for n in x.shape]
    return {"shape": shape, "dtype": str(np.dtype(x.dtype))}


def _example(file: str, program: Program, bake: bool) -> str:
    """Python that reloads and calls a program, to be run in the folder of the files."""
    lines = ["import jax", "import numpy as np", "from jax import export"]
    lines += [] if bake else ["from safetensors.numpy import load_file"]
    lines += ["", f'program = export.deserialize(bytearray(open("{file}", "rb").read()))']
    lines += [] if bake else [f'params = load_file("{PARAMS}")']
    for key, x in program.inputs.items():
        lines.append(f"{key} = {x.example.format(shape=x.shape)}")
    arguments = ", ".join([*([] if bake else ["params"]), *program.inputs])
    return "\n".join([*lines, f"result = jax.jit(program.call)({arguments})"])


def _write(path: Path, data: bytes) -> dict[str, Any]:
    with atomic_write(path) as file:
        file.write(data)
    return {
        "file": path.name,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
