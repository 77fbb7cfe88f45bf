"""Measure a model, bicubic upscaling or result files on a folder of HR images.

    flowsr evaluate -n demo -i photos -o out --curve
    flowsr evaluate -n bicubic --scale 4 -i Set5 --lr Set5/LR_x4 -o out --protocol matlab
    flowsr evaluate --sr results -i DIV2K_valid_HR -o out --scale 4 --protocol ntire

MODEL is `demo`, a folder written by flowsr_jax.save, a run's work directory, an official
weight file, or `bicubic`.  Exit status: 0 all images measured, 1 an image failed, 2 nothing
could be done.
"""

from __future__ import annotations

from flowsr_jax.commands.parser import Parser, chain_options


def parser() -> Parser:
    flags = Parser(__doc__)
    what = flags.add_mutually_exclusive_group(required=True)
    what.add_argument("-n", "--model", help="model folder, weight file or `bicubic`")
    what.add_argument("--sr", help="folder of results NAME.png, or NAME_0.png, NAME_1.png, ...")
    flags.add_argument("-i", "--input", required=True, help="HR folder or file, or `embedded`")
    flags.add_argument("-o", "--output", required=True, help="output folder")
    flags.add_argument(
        "--lr",
        help="LR folder; default: made from HR by the protocol's rule, or by a rescaling model",
    )
    flags.add_argument("--scale", type=int, help="where neither the model nor --lr tells it")
    flags.add_argument("--protocol", default="default", help="srflow, ntire, basicsr, irn, ...")
    heat = flags.add_mutually_exclusive_group()
    heat.add_argument("--temperatures", type=_numbers, default=(), help="such as 0,0.5,0.8")
    heat.add_argument("--curve", action="store_true", help="temperatures 0,0.1,...,1")
    flags.add_argument("--num-samples", type=int, help="samples per image; default: protocol's")
    flags.add_chain()
    flags.add_argument("--seed", type=int, default=0, help="0 to 2**32 - 1")
    flags.add_argument("--lpips", nargs="*", metavar="FILE", help="weights; default: installed")
    flags.add_argument("--dists", nargs="+", metavar="FILE", help="alpha and beta; backbone")
    flags.add_argument(
        "--metrics",
        type=lambda text: tuple(text.split(",")),
        default=(),
        metavar="NAME,...",
        help="columns to measure, such as psnr,lpips,ms_ssim; default: the protocol's",
    )
    flags.add_argument("--bits", action="store_true", help="likelihood of the HR images")
    flags.add_argument("--features", nargs=2, metavar="FILE", help="FID, KID of real and fake")
    flags.add_argument("--limit", type=int, default=0, help="the first so many images only")
    return flags


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    # After the flags: --help and mistakes in them answer at once.
    from flowsr_jax.api import read_model
    from flowsr_jax.console import run_command
    from flowsr_jax.evaluation import evaluate_folder
    from flowsr_jax.evaluation.curve import TEMPERATURES
    from flowsr_jax.io.compilation_cache import use_compilation_cache

    if argv is None:  # as a command
        use_compilation_cache()

    def work():
        params = None
        if args.model not in (None, "bicubic"):
            params = read_model(args.model)
        result = evaluate_folder(
            args.input,
            args.output,
            params=params,
            results=args.sr,
            name=args.model or args.sr,
            lr=args.lr,
            scale=args.scale,
            protocol=args.protocol,
            temperatures=TEMPERATURES if args.curve else args.temperatures,
            num_samples=args.num_samples,
            seed=args.seed,
            lpips=args.lpips,
            dists=args.dists,
            bits=args.bits,
            features=args.features,
            limit=args.limit,
            metrics=args.metrics,
            options=chain_options(args),
        )
        return 1 if result.failed else 0

    return run_command(work, "per_image.csv has the finished images")


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))
