"""Programs for other runtimes: a model's functions as StableHLO, through jax.export.

What a family offers is a dict of `Program`s: `Family.programs`, or those of its verbs.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flowsr_jax.config import choice, to_dict
from flowsr_jax.files.atomic import atomic_folder, atomic_write, require_writable
from flowsr_jax.models.base import Params, family_of
from flowsr_jax.models.programs import Program, verb_programs

PLATFORMS = ("cpu", "cuda", "tpu")
PARAMS, RECORD, README = "params.safetensors", "export.json", "README.md"
EXAMPLE_SIDE = 32  # LR pixels of the example call
MULTIPLES = (1, 2, 4, 8, 16, 32)  # factors tried for the step of the open LR sizes
UNTRACEABLE = (
    TypeError,
    ValueError,
    NotImplementedError,
    jax.errors.InconclusiveDimensionOperation,  # a choice that depends on an open size
)


class ExportError(ValueError):
    """A model or a request that cannot be exported; one line."""


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
      folder: made when missing; an older export in it is replaced as a whole.
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
    if family.kind(config) == "unconditional":
        raise ExportError(
            f"family {family.name!r} takes no LR image; models that draw images from nothing are "
            "not exported"
        )
    step, channels = family.multiple(config), family.lr_channels(config)
    if size is not None and any(side < 1 or side % step for side in size):
        raise ExportError(f"size = {size} (LR height, width) must be multiples of {step}")
    if batch is not None and batch < 1:
        raise ExportError(f"batch = {batch} must be at least 1")
    build = family.programs or verb_programs

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
        with _without_places():
            return program, jax.export.export(function, platforms=tuple(platforms))(*specs)

    folder = Path(folder)
    require_writable(folder.resolve().parent)
    _refuse_others(folder)
    record: dict[str, Any] = {
        "format": 1,
        "family": family.name,
        "config": to_dict(config),
        "scale": family.scale(config),
        "platforms": list(platforms),
        "jax": jax.__version__,
        "programs": {},
        "params": None,
        "metadata": dict(metadata or {}),
    }
    files: dict[str, bytes] = {}
    for number, name in enumerate(names):
        program, made = _first_possible(name, exported, step, open_size=size is None)
        file = "model.stablehlo" if number == 0 else f"{name}.stablehlo"
        inputs = [
            {"name": key, "meaning": x.meaning, **_array(x)} for key, x in program.inputs.items()
        ]
        record["programs"][name] = {
            **_described(files, file, bytes(made.serialize())),
            "meaning": program.meaning,
            "inputs": inputs,
            "outputs": [_array(x) for x in made.out_avals],
            "example": _example(file, known[name], bake),
        }
    if not bake:
        from safetensors.numpy import save

        record["params"] = _described(files, PARAMS, save(leaves))
    files[RECORD] = (json.dumps(record, indent=2) + "\n").encode()
    files[README] = readme(record).encode()
    with atomic_folder(folder) as new:
        for file, data in files.items():
            with atomic_write(new / file) as written:
                written.write(data)
    return record


def readme(record: Mapping[str, Any]) -> str:
    """Return the README.md of an exported model: files, sizes, inputs and a call."""
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
    """Return Python that reloads and calls a program, to be run in the folder of the files."""
    lines = ["import jax", "import numpy as np", "from jax import export"]
    lines += [] if bake else ["from safetensors.numpy import load_file"]
    lines += ["", f'program = export.deserialize(bytearray(open("{file}", "rb").read()))']
    lines += [] if bake else [f'params = load_file("{PARAMS}")']
    for key, x in program.inputs.items():
        lines.append(f"{key} = {x.example.format(shape=x.shape)}")
    arguments = ", ".join([*([] if bake else ["params"]), *program.inputs])
    return "\n".join([*lines, f"result = jax.jit(program.call)({arguments})"])


@contextlib.contextmanager
def _without_places() -> Iterator[None]:
    """Keep paths and lines of source files, which differ by machine, out of programs."""
    name, before = "jax_traceback_in_locations_limit", jax.config.jax_traceback_in_locations_limit
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)


def _refuse_others(folder: Path) -> None:
    """Raise ExportError if a folder holds anything but an export, for it is replaced as a whole."""
    if folder.exists() and not folder.is_dir():
        raise ExportError(f"{folder}: is no folder")
    known = (PARAMS, RECORD, README)
    for path in sorted(folder.iterdir()) if folder.exists() else ():
        if path.name not in known and path.suffix != ".stablehlo":
            raise ExportError(
                f"{folder}: holds {path.name!r}, which is no part of an export; name a new folder, "
                "or that of an older export, which is replaced"
            )


def _described(files: dict[str, bytes], name: str, data: bytes) -> dict[str, Any]:
    files[name] = data
    return {
        "file": name,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
