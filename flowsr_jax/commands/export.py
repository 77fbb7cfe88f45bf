"""Export a model as StableHLO for the CPU, CUDA and TPUs.

    flowsr export runs/quickstart exported
    flowsr export models/df2k_4x exported --bake --size=40x40

MODEL is a folder written by flowsr_jax.save, a run's work directory, or an official
weight file.  OUT gets model.stablehlo, params.safetensors (unless --bake), export.json
and README.md, whose example needs jax, but not flowsr_jax.  --set NAME=VALUE sets an
option of the family's sampler.  Exit status: 0 done, 2 nothing was done.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path

from flowsr_jax.commands.parser import Parser

KEPT = ("source", "source_sha256", "licence")  # notes that go with the program


def _names(text: str) -> list[str]:
    return text.split(",")


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not HxW, as 40x48")
    return int(match[1]), int(match[2])


def parser() -> Parser:
    flags = Parser(__doc__)
    flags.add_argument("model", metavar="MODEL", help="model folder or weight file")
    flags.add_argument("out", metavar="OUT", help="output folder")
    flags.add_argument("--bake", action="store_true", help="parameters inside the program")
    flags.add_argument("--size", type=_size, metavar="HxW", help="LR size; default: any")
    flags.add_argument("--batch", type=int, metavar="B", help="images per call; default: any")
    flags.add_argument("--programs", type=_names, metavar="A,B", help="default: the sampler")
    flags.add_argument("--platforms", type=_names, metavar="A,B", help="default: cpu,cuda,tpu")
    flags.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="option of the sampler"
    )
    return flags


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    from flowsr_jax.exits import failed
    from flowsr_jax.export import PLATFORMS, export_model
    from flowsr_jax.train.overrides import split_overrides

    try:
        params, notes = _load(args.model)
        record = export_model(
            params,
            args.out,
            programs=args.programs,
            batch=args.batch,
            size=args.size,
            bake=args.bake,
            platforms=args.platforms or PLATFORMS,
            options=split_overrides([f"--config.{text}" for text in args.set])[1],
            metadata={k: v for k, v in notes.items() if k in KEPT and v},
        )
    except Exception as error:
        return failed(error)
    for file in (*record["programs"].values(), *filter(None, [record["params"]])):
        print(f"{os.path.join(args.out, file['file'])}: {file['bytes']:,} bytes")
    first = next(iter(record["programs"].values()))
    print(f"\nTo run it, in {args.out}:\n\n{first['example']}")
    return 0


def _load(model: str):
    """The parameters and their notes."""
    import flowsr_jax
    from flowsr_jax.io.torch_import import import_files

    if os.path.isfile(model):
        imported, notes = import_files(model)
        return imported.params, notes
    params = flowsr_jax.load(model)
    for file in (Path(model) / "config.json", Path(model) / "model" / "config.json"):
        if file.is_file():
            return params, json.loads(file.read_bytes()).get("metadata", {})
    return params, {}
