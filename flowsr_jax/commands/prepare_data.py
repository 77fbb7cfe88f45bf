"""Prepare training data: records of crops from a folder, or a tensorflow-datasets set.

    flowsr prepare-data data/DIV2K_train_HR -o data/records --crop 480 --step 240
    flowsr prepare-data HR -o OUT --scale 4               # LR images as well
    flowsr prepare-data HR -o OUT --scale 4 --lr-dir LR   # those of another folder
    flowsr prepare-data --tfds div2k/bicubic_x4 --data-dir D [--manual-dir M]
    flowsr prepare-data --tfds div2k/bicubic_x4 --data-dir D -o OUT --split train

Train on OUT with --config.data.source=array_record --config.data.train_dir=OUT; on the set
with --config.data.source=tfds --config.data.tfds_name=... --config.data.tfds_dir=D.
Preparing a set needs TensorFlow, nothing else does.  After an interruption run the same
command again.  Exit status: 0 all done, 1 images were left out, 2 nothing could be done.
"""

from __future__ import annotations

from flowsr_jax.commands.parser import Parser


def parser() -> Parser:
    flags = Parser(__doc__)
    flags.add_argument("input", nargs="?", help="folder of HR images, searched recursively")
    flags.add_argument("-o", "--output", help="folder of the records")
    flags.add_argument("--crop", type=int, default=480, help="side in HR pixels; 0: whole images")
    flags.add_argument("--step", type=int, default=240, help="distance of the crops")
    flags.add_argument("--scale", type=int, help="store LR images too, 1/SCALE as large")
    flags.add_argument("--lr-dir", help="folder of LR images; default: MATLAB's bicubic of HR")
    flags.add_argument("--tfds", metavar="SET/OPTION", help="set of tensorflow-datasets")
    flags.add_argument("--data-dir", help="tfds sets; default $TFDS_DATA_DIR or tfds's own")
    flags.add_argument("--manual-dir", help="archives downloaded by hand, official names")
    flags.add_argument("--split", default="train", help="split of the set, for -o")
    return flags


def main(argv: list[str] | None = None) -> int:
    flags = parser()
    args = flags.parse_args(argv)
    if (args.input is None) == (args.tfds is None):
        flags.error("name an input folder or --tfds, one of the two")
    if args.input and not args.output:
        flags.error("-o OUT is needed")
    if args.lr_dir and (args.tfds or not args.scale):
        flags.error("--lr-dir needs an input folder and --scale")
    from flowsr_jax.console import DONE, SOME_FAILED, run_command
    from flowsr_jax.data.sources.prepare import open_input, prepare_records, prepare_tfds

    def work():
        if args.tfds:
            prepared = prepare_tfds(args.tfds, args.data_dir, args.manual_dir)
            print(f"{args.tfds}: prepared in {prepared}")
        if not args.output:
            return 0
        source = open_input(
            args.input,
            lr_folder=args.lr_dir,
            scale=args.scale,
            tfds=args.tfds,
            split=args.split,
            data_dir=args.data_dir,
        )
        scale = getattr(source, "scale", None) if args.scale is None else args.scale
        summary = prepare_records(source, args.output, crop=args.crop, step=args.step, scale=scale)
        left, images = len(summary.skipped), summary.images
        print(f"{args.output}: {summary.records} records of {images} images, {left} left out")
        return SOME_FAILED if left else DONE

    return run_command(work, "the same command goes on from here")
