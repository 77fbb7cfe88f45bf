"""Draw images by a cascade: a model that draws them from nothing, and ones that enlarge them.

    flowsr cascade -n runs/base runs/stage1 runs/stage2 -o out --num-samples 8
    flowsr cascade -n runs/base runs/stage -o out --label 207 --set 0.guidance=2
        --set 0.steps=250 --set 1.sampler=dpmpp2m --set 1.steps=20

MODELs are what flowsr_jax.load takes.  --set I.NAME=VALUE gives stage I (from 0) an option of
its sampler.  Writes OUT/0000.png, 0001.png, ...; with --all also 0000_stage0.png, ...
Existing files are skipped, so the same command completes what was stopped.  Exit status: 0
done, 2 nothing could be done.
"""

from __future__ import annotations

from pathlib import Path

from flowsr_jax.commands.parser import Parser


def parser() -> Parser:
    flags = Parser(__doc__)
    flags.add_argument("-n", "--models", nargs="+", required=True, metavar="MODEL")
    flags.add_argument("-o", "--output", required=True, help="output folder")
    flags.add_argument("--num-samples", type=int, default=4, help="number of images")
    flags.add_argument("--batch", type=int, default=4, help="images drawn at a time")
    flags.add_argument("--label", type=int, help="class, for every stage that has classes")
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument(
        "--set", action="append", default=[], metavar="I.NAME=VALUE", help="option of stage I"
    )
    flags.add_argument("--all", action="store_true", help="write the images of every stage")
    return flags


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    import jax  # after the flags: --help and mistakes in them answer at once

    import flowsr_jax
    from flowsr_jax.cascade import sample_cascade
    from flowsr_jax.console import check_seed, run_command
    from flowsr_jax.files.atomic import require_writable
    from flowsr_jax.files.images import write_png
    from flowsr_jax.io.compilation_cache import use_compilation_cache
    from flowsr_jax.metrics import to_uint8
    from flowsr_jax.models import family_of
    from flowsr_jax.train.overrides import split_overrides

    if argv is None:  # as a command
        use_compilation_cache()

    def work():
        if min(args.num_samples, args.batch) < 1:
            raise ValueError(
                f"--num-samples {args.num_samples} and --batch {args.batch} must be at least 1"
            )
        check_seed(args.seed)
        models = [flowsr_jax.load(path) for path in args.models]
        options = [{} for _ in models]
        if args.label is not None:
            for params, given in zip(models, options, strict=True):
                if family_of(params).classes(params.config):
                    given["label"] = args.label
        for path, value in split_overrides([f"--config.{text}" for text in args.set])[1].items():
            stage, _, name = path.partition(".")
            if not stage.isdecimal() or int(stage) >= len(models) or not name:
                raise ValueError(f"--set {path}: give I.NAME with I of 0 to {len(models) - 1}")
            options[int(stage)][name] = value
        out = Path(args.output)
        require_writable(out)
        key = jax.random.key(args.seed)
        for first in range(0, args.num_samples, args.batch):
            numbers = range(first, min(first + args.batch, args.num_samples))
            if all((out / f"{n:04d}.png").exists() for n in numbers):
                continue

            def show(stage, images, numbers=numbers):
                size = "x".join(map(str, images.shape[1:3]))
                print(
                    f"[{numbers.start + 1}-{numbers.stop} of {args.num_samples}] stage {stage + 1} "
                    f"of {len(models)}: {size}",
                    flush=True,
                )
                last = stage == len(models) - 1
                for n, image in zip(numbers, images, strict=True):
                    if last or args.all:
                        name = f"{n:04d}.png" if last else f"{n:04d}_stage{stage}.png"
                        write_png(out / name, to_uint8(image))

            sample_cascade(
                models,
                jax.random.fold_in(key, first),
                num_samples=len(numbers),
                options=options,
                show=show,
            )

    return run_command(work, "finished images are kept")
