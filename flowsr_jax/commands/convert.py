"""Convert official weights to a model folder, and back.

    flowsr convert SRFlow_DF2K_4X.pth models/df2k_4x
    flowsr convert mine.pth models/mine --model srflow --stacked-blocks=1,8,15,22
    flowsr convert IRN_x2_finetune.pth models/compression --with CRM_x2_q90.pth
    flowsr convert logs/model_best_loss.ckpt models/glow --n-bits=5 --size=256
    flowsr convert models/df2k_4x out.pth --to torch

IN may be .pth (read without PyTorch), .npz or .safetensors; OUT too, on the way back.  Glow's
TensorFlow checkpoints need TensorFlow, or an .npz of their variables.
--NAME=VALUE sets what weights do not determine.  Exit status: 0 done, 2 nothing was done.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from flowsr_jax.commands.parser import Parser


def parser() -> Parser:
    flags = Parser(__doc__)
    flags.add_argument("source", metavar="IN", help="weight file, or model folder")
    flags.add_argument("target", metavar="OUT", help="model folder, or weight file")
    flags.add_argument("--to", choices=("jax", "torch"), default="jax", help="the direction")
    flags.add_argument("--model", help="srflow, rrdb, sr3, ddpm, irn or glow; default: inferred")
    flags.add_argument(
        "--with", action="append", default=[], dest="more", metavar="FILE",
        help="a further weight file of the same model",
    )  # fmt: skip
    flags.add_argument(
        "--key", metavar="NAME",
        help="the container or net of a file that holds several, as ema or state_dict.netG",
    )  # fmt: skip
    flags.add_argument("--overwrite", action="store_true", help="replace a model that is there")
    return flags


def main(argv: list[str] | None = None) -> int:
    args, rest = parser().parse_known_args(argv)
    from flowsr_jax.console import run_command

    def work():
        options = parse_options(rest)
        if args.to == "torch":
            if args.more or args.key is not None:
                raise ValueError("--with is for the way from official files, and so is --key")
            to_torch(args.source, args.target, args.overwrite, options)
        else:
            sources = (args.source, *args.more)
            to_jax(sources, args.target, args.model, args.key, args.overwrite, options)

    return run_command(work, "nothing is written")


def parse_options(arguments: Sequence[str]) -> dict:
    """{name: value} of --name=value arguments; values are Python literals or text.

    Raises:
      ValueError: an argument of another form.
    """
    from flowsr_jax.train.overrides import split_overrides

    for argument in arguments:
        if not argument.startswith("--") or "=" not in argument:
            raise ValueError(f"unknown argument {argument!r} (settings are --name=value)")
    options = split_overrides([a.replace("--", "--config.", 1) for a in arguments])[1]
    return {name.replace("-", "_"): value for name, value in options.items()}


def to_jax(
    sources: Sequence[str],
    target: str,
    model: str | None,
    key: str | None,
    overwrite: bool,
    options: dict,
) -> None:
    import jax

    from flowsr_jax.io import weights
    from flowsr_jax.io.torch_import import import_files
    from flowsr_jax.models.base import get_family
    from flowsr_jax.models.importer import show

    if not overwrite and (Path(target) / weights.CONFIG).exists():
        raise ValueError(f"{target}: holds a model already (--overwrite replaces it)")
    imported, metadata = import_files(
        *sources, model=model, report=lambda text: print(f"note: {text}"), key=key, **options
    )
    for text in imported.notes:
        print(f"note: {text}")
    params = imported.params
    family = get_family(params.config.family)
    channels = family.lr_channels(params.config)
    if family.kind(params.config) == "super_resolution" and channels != 3:
        raise ValueError(
            f"{sources[0]}: takes images of {channels} channels, which no command reads (they give "
            "RGB); from_torch reads it for programs of your own"
        )
    weights.save(params, target, metadata=metadata)
    print(f"family: {params.config.family}")
    for name, value in vars(params.config).items():
        print(f"  {name} = {value}")
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    print(f"parameters: {count:,}, from {metadata['tensors']} official tensors")
    if imported.ignored:
        print(f"left out: {', '.join(map(show, imported.ignored))}")
    print(f"licence, by the file's own metadata: {metadata['licence'] or 'not known'}")
    print(f"written to {target}")


def to_torch(source: str, target: str, overwrite: bool, options: dict) -> None:
    import flowsr_jax
    from flowsr_jax.io import torch_write, weights
    from flowsr_jax.io.torch_import import sha256

    if not overwrite and os.path.exists(target):
        raise ValueError(f"{target}: exists already (--overwrite replaces it)")
    params = flowsr_jax.load(source)
    torch_write.to_torch(params, target, **options)
    print(f"family: {params.config.family}, written to {target} ({sha256(target)})")
    for folder in (Path(source), Path(source) / "model"):
        if (folder / weights.CONFIG).is_file():
            notes = json.loads((folder / weights.CONFIG).read_bytes()).get("metadata", {})
            if notes.get("licence"):
                print(f"licence, by the file's own metadata: {notes['licence']}")
