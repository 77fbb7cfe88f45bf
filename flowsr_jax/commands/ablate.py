"""Run an ablation: the variants of a study, their curves and table.

    flowsr ablate --study=glow_permutation -o OUT [--steps 400] [--seeds 2]
        [--variants reverse_affine,conv1x1_affine] [--config.FIELD=VALUE ...]

Writes OUT/STUDY.png, .csv and .md; --config.FIELD=VALUE changes a field of every run.
To resume, run the same command again.
Exit status: 0 done, 1 a run diverged, 2 nothing could be done.
"""

from __future__ import annotations

from flowsr_jax.commands.parser import Parser


def _names(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)


def parser() -> Parser:
    flags = Parser(__doc__)
    flags.add_argument(
        "--study",
        required=True,
        help="glow_permutation, srflow_steps, srflow_channels, srflow_transition, srflow_injector",
    )
    flags.add_argument("-o", "--output", required=True, help="output folder")
    flags.add_argument("--steps", type=int, help="of each variant; default: the study's")
    flags.add_argument("--variants", type=_names, default=(), help="default: all of the study")
    flags.add_argument("--seeds", type=int, default=1, help="runs of each variant")
    return flags


def main(argv: list[str] | None = None) -> int:
    args, overrides = parser().parse_with_overrides(argv)
    # After the flags: --help and mistakes in them answer at once.
    from flowsr_jax.ablation import STUDIES, run_study
    from flowsr_jax.ablation.report import table
    from flowsr_jax.config import choice
    from flowsr_jax.train.command import run_command
    from flowsr_jax.train.config_files import read_config

    def work():
        study = STUDIES[choice("study", args.study, tuple(STUDIES))]
        results, diverged = run_study(
            study,
            read_config(study.config),
            args.output,
            steps=args.steps,
            variants=args.variants,
            seeds=args.seeds,
            overrides=overrides,
        )
        print(f"\n{table(study, results, diverged)}" if results else "every run diverged")
        return 1 if diverged else 0

    return run_command(work)
