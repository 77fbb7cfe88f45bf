"""Run an ablation: the variants of a study, their curves and table.

    python launch/ablate.py --study=glow_permutation -o OUT [--steps 400] [--seeds 2]
        [--variants reverse_affine,conv1x1_affine] [--config.FIELD=VALUE ...]

Writes OUT/STUDY.png, .csv and .md; run the same command again to resume.
Exit status: 0 done, 1 a run diverged, 2 nothing could be done.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys


def _names(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        epilog="--config.FIELD=VALUE changes a field of every run, as of launch/train.py.",
    )
    parser.add_argument(
        "--study",
        required=True,
        help="glow_permutation, srflow_steps, srflow_channels, srflow_transition, srflow_injector",
    )
    parser.add_argument("-o", "--output", required=True, help="output folder")
    parser.add_argument("--steps", type=int, help="of each variant; default: the study's")
    parser.add_argument("--variants", type=_names, default=(), help="default: all of the study")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each variant")
    args, rest = parser.parse_known_args(argv)
    from absl import logging  # after the flags: --help and mistakes in them answer at once

    from flowsr_jax.ablation import STUDIES, run_study
    from flowsr_jax.ablation.report import table
    from flowsr_jax.config import choice
    from flowsr_jax.exits import failed
    from flowsr_jax.train.loop import Interrupted
    from flowsr_jax.train.overrides import split_overrides

    rest, overrides = split_overrides(rest)
    if rest:
        parser.error(f"unknown argument {rest[0]!r}")
    logging.set_verbosity(logging.FATAL)  # of orbax; what matters is reported by the loop
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # configs
    try:
        study = STUDIES[choice("study", args.study, tuple(STUDIES))]
        values = importlib.import_module(f"configs.{study.config}").get_config()
        results, diverged = run_study(
            study,
            values,
            args.output,
            steps=args.steps,
            variants=args.variants,
            seeds=args.seeds,
            overrides=overrides,
        )
    except Exception as error:
        return failed(error)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        raise
    print(f"\n{table(study, results, diverged)}" if results else "every run diverged")
    return 1 if diverged else 0


if __name__ == "__main__":
    sys.exit(main())
