"""Compile a run's programs for TPUs without having one; print what they need and cost.

    flowsr compile --config=NAME[:VARIANT] --topology=v5e:4x4[,v6e:2x4]
        [--global-batch=64] [--what=step,sampler] [--phase=NAME] [--largest-batch]
        [--config.model...=...] [--output=FOLDER]

Needs libtpu (pip install libtpu), but no TPU.  With --output every program becomes a JSON
file in that folder and a row of its table.md; a program that is there is not compiled again.
"""

from __future__ import annotations

import os

from flowsr_jax.commands.parser import Parser


def _names(text: str) -> list[str]:
    return text.split(",")


def parser() -> Parser:
    flags = Parser(__doc__)
    flags.add_argument("--config", required=True, metavar="NAME[:VARIANT]", help="name or file")
    flags.add_argument("--topology", required=True, type=_names, help="such as v5e:4x4,v6e:2x4")
    flags.add_argument("--global-batch", type=int, help="examples of a step; default: the config's")
    flags.add_argument(
        "--what", type=_names, default=["step", "sampler"], help="step, sampler or both (default)"
    )
    flags.add_argument("--phase", help="of the step; default: the last")
    flags.add_argument(
        "--largest-batch", action="store_true", help="search the largest batch that fits too"
    )
    flags.add_argument("-o", "--output", help="folder of rows and their table")
    return flags


def main(argv: list[str] | None = None) -> int:
    args, overrides = parser().parse_with_overrides(argv)
    # Read by libtpu when it is loaded: no look-up of the machine it is on, several at once.
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from flowsr_jax.aot.run import compile_run
    from flowsr_jax.train.command import run_command
    from flowsr_jax.train.config import resolve
    from flowsr_jax.train.config_files import read_config

    def work():
        if args.global_batch is not None:
            overrides["train.batch_size"] = args.global_batch
        compile_run(
            resolve(read_config(args.config), overrides),
            args.topology,
            args.what,
            phase=args.phase,
            largest=args.largest_batch,
            output=args.output,
        )

    return run_command(work)
