"""Train a model; run the same command again to resume.

    flowsr train --config=NAME[:VARIANT] [--workdir=runs/x]
        [--config.train.batch_size=4] [--config.train.phases.NAME.steps=100]
        [--init-encoder=RRDB.pth]

NAME is a config of the package (srflow_quickstart) or a file (configs/srflow_div2k.py).  Exit
status: 0 all done; 1 the steps diverged, or something could not be written; 2 nothing could be
done; 130 or 143 interrupted: saved, the same command goes on.
"""

from __future__ import annotations

import os

from flowsr_jax.commands.parser import Parser


def parser() -> Parser:
    flags = Parser(__doc__)
    flags.add_argument("--config", required=True, metavar="NAME[:VARIANT]", help="name or file")
    flags.add_argument("--workdir", help="folder of the run; default: runs/<the config's name>")
    flags.add_argument(
        "--init-encoder",
        metavar="RRDB",
        help="RRDB weights (run, model folder or official file) of the first phase",
    )
    flags.add_argument(
        "--distributed", action="store_true", help="join the other processes of a cluster"
    )
    return flags


def main(argv: list[str] | None = None) -> int:
    args, overrides = parser().parse_with_overrides(argv)
    # After the flags: --help and mistakes in them answer at once.
    from flowsr_jax.train.command import run_command
    from flowsr_jax.train.config import resolve
    from flowsr_jax.train.config_files import read_config
    from flowsr_jax.train.loop import train_and_evaluate
    from flowsr_jax.train.mesh import initialize_distributed

    def work():
        values = read_config(args.config)
        if args.distributed:
            initialize_distributed()
        if args.init_encoder:
            first = {"init_from": args.init_encoder, "init_groups": ("encoder",)}
            overrides.update({f"train.phases[0].{k}": v for k, v in first.items()})
        config = resolve(values, overrides)
        train_and_evaluate(config, args.workdir or os.path.join("runs", config.name))

    return run_command(work)
