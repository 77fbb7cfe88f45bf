"""Shrink images so that the same model can restore them (invertible rescaling).

    flowsr rescale down -i photos -o small -n MODEL
    flowsr rescale up -i small -o restored -n MODEL

MODEL is a rescaling model (IRN): a folder written by flowsr_jax.save, a run's work
directory, or an official weight file (.pth, .npz, .safetensors).  `up` restores what `down`
of the same model made; it is not super-resolution.  See docs/rescaling.md.  Exit status:
0 all done, 1 an image failed, 2 nothing could be done.
"""

from __future__ import annotations

from flowsr_jax.commands.parser import Parser


def parser() -> Parser:
    flags = Parser(__doc__)
    verbs = flags.add_subparsers(dest="verb", required=True)
    for name, text in (
        ("down", "HR images to LR files (8-bit PNG)"),
        ("up", "LR files of `down` back to HR images; not super-resolution"),
    ):
        verb = verbs.add_parser(name, help=text, description=text)
        verb.add_argument("-i", "--input", nargs="+", required=True, help="images, folders")
        verb.add_argument("-o", "--output", required=True, help="output folder")
        verb.add_argument("-n", "--model", required=True, help="model folder or weight file")
        verb.add_tile()
        verb.add_argument("--overwrite", action="store_true", help="make existing outputs again")
        if name == "down":
            verb.add_argument(
                "--keep-profile",
                action="store_true",
                help="keep colours and profile as they are; default: convert to sRGB",
            )
    verb.add_argument("--seed", type=int, help="draw z; 0 to 2**32 - 1 (default: z is 0)")
    verb.add_argument(
        "--temperature", type=float, help="draw z with this standard deviation (default: z is 0)"
    )
    return flags


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    # After the flags: --help and mistakes in them answer at once.
    from flowsr_jax.api import read_model
    from flowsr_jax.console import run_command
    from flowsr_jax.io.compilation_cache import use_compilation_cache
    from flowsr_jax.upscaling import downscale_files, restore_files

    if argv is None:  # as a command
        use_compilation_cache()

    options = {"tile": args.tile, "overwrite": args.overwrite}
    if args.verb == "down":
        options |= {"keep_profile": args.keep_profile}
    else:
        options |= {"seed": args.seed, "temperature": args.temperature}
    run = downscale_files if args.verb == "down" else restore_files

    def work():
        return run(read_model(args.model), args.input, args.output, **options)

    return run_command(work, "finished images are kept")
