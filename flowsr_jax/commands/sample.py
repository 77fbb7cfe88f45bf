"""Super-resolve an image, or a folder of images.

    flowsr sample -i photos -o out -n demo --num-samples 4 --temperature 0.8

MODEL is what flowsr_jax.load takes ("demo", a folder written by flowsr_jax.save, a run's
work directory), or an official weight file (.pth, .npz, .safetensors).  Images of any
size; see docs/upscaling.md.  A rescaling model (IRN) restores only LR images that its own
`flowsr rescale` made.  Exit status: 0 all done, 1 an image failed, 2 nothing could
be done.
"""

from __future__ import annotations

from flowsr_jax.commands.parser import Parser, chain_options


def parser() -> Parser:
    flags = Parser(__doc__)
    flags.add_argument(
        "-i", "--input", nargs="+", required=True, metavar="IN", help="images, folders, patterns"
    )
    flags.add_argument(
        "-o", "--output", required=True, metavar="OUT", help="folder; or a file, for one image"
    )
    flags.add_argument("-n", "--model", required=True, help="model folder or weight file")
    flags.add_argument("--num-samples", type=int, default=1, help="samples per image")
    flags.add_argument("--temperature", type=float, help="default: the model's own")
    flags.add_chain()
    flags.add_argument("--seed", type=int, default=0, help="0 to 2**32 - 1")
    flags.add_argument("--scale", type=int, help="the model's, as a check")
    flags.add_tile()
    flags.add_argument(
        "--back-project", action="store_true", help="make the LR of the results the input"
    )
    flags.add_argument(
        "--uncertainty",
        action="store_true",
        help="also write NAME_std.png, a heat map of the deviation over the samples",
    )
    flags.add_argument("--overwrite", action="store_true", help="draw existing outputs again")
    flags.add_argument("--same-noise", action="store_true", help="one noise for all: film frames")
    flags.add_argument("--shard", default="0/1", metavar="I/N", help="part I of N, from 0")
    files = flags.add_argument_group("files")
    files.add_argument("--ext", help="png, jpg, webp or tiff; default: png")
    files.add_argument("--depth", default="auto", choices=("auto", "8", "16"), help="bits")
    files.add_argument("--quality", type=int, default=95, help="of JPEG and WebP, 1 to 100")
    files.add_argument("--suffix", default="", help="of the outputs' names")
    files.add_argument("--outscale", type=float, help="of the files; at most the model's scale")
    files.add_argument(
        "--keep-profile",
        action="store_true",
        help="keep colours and profile as they are; default: convert to sRGB",
    )
    files.add_argument("--keep-metadata", action="store_true", help="keep EXIF, XMP and DPI")
    files.add_argument("--page", type=int, default=1, help="of TIFF files, from 1")
    files.add_argument(
        "--bands",
        type=lambda text: tuple(int(part) for part in text.split(",")),
        metavar="R,G,B",
        help="of TIFF files, from 1: one or three to be taken as grey or RGB",
    )
    return flags


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    # After the flags: --help and mistakes in them answer at once.
    from flowsr_jax.api import read_model
    from flowsr_jax.console import run_command
    from flowsr_jax.io.compilation_cache import use_compilation_cache
    from flowsr_jax.upscaling import Output, parse_shard, upscale_files

    if argv is None:  # as a command
        use_compilation_cache()

    def work():
        output = Output(
            ext=args.ext,
            depth=args.depth if args.depth == "auto" else int(args.depth),
            quality=args.quality,
            suffix=args.suffix,
            outscale=args.outscale,
            keep_profile=args.keep_profile,
            keep_metadata=args.keep_metadata,
        )
        return upscale_files(
            read_model(args.model),
            args.input,
            args.output,
            num_samples=args.num_samples,
            temperature=args.temperature,
            seed=args.seed,
            scale=args.scale,
            tile=args.tile,
            back_project=args.back_project,
            uncertainty=args.uncertainty,
            overwrite=args.overwrite,
            output=output,
            same_noise=args.same_noise,
            page=args.page,
            bands=args.bands,
            shard=parse_shard(args.shard),
            options=chain_options(args),
        )

    return run_command(work, "finished images are kept")
