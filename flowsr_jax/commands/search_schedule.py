"""Search the schedule of a short chain for a trained diffusion model, on held-out images.

    flowsr search-schedule -n runs/sr3_ffhq -i HR_FOLDER -o OUT --steps 100 --save MODEL

Tries linear schedules of --steps steps, writes OUT/search.csv as it goes and prints the best;
--save writes the model with that schedule as its default.  HR_FOLDER may be `embedded`.  Exit
status: 0 done, 2 nothing could be done.
"""

from __future__ import annotations

from pathlib import Path

from flowsr_jax.commands.parser import Parser


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def parser() -> Parser:
    flags = Parser(__doc__)
    flags.add_argument("-n", "--model", required=True, help="model folder or run")
    flags.add_argument("-i", "--input", required=True, help="HR folder, or `embedded`")
    flags.add_argument("-o", "--output", required=True, help="output folder")
    flags.add_argument("--steps", type=int, default=100, help="of the chain")
    flags.add_argument("--starts", type=_numbers, help="first betas, such as 1e-6,1e-4")
    flags.add_argument("--ends", type=_numbers, help="last betas")
    flags.add_argument("--sampler", default="ancestral")
    flags.add_argument("--score", default="patch_fid", help="patch_fid or psnr")
    flags.add_argument("--crop", type=int, default=128, help="centre crop in HR pixels")
    flags.add_argument("--limit", type=int, default=16, help="number of images")
    flags.add_argument("--batch", type=int, default=4, help="images drawn at a time")
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--save", metavar="MODEL", help="folder for the model with the schedule")
    return flags


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    import jax  # after the flags: --help and mistakes in them answer at once

    import flowsr_jax
    from flowsr_jax import schedule_search as search
    from flowsr_jax.console import check_seed, run_command
    from flowsr_jax.data import DataConfig, make_source, valid_pairs
    from flowsr_jax.files.atomic import require_writable
    from flowsr_jax.models import scale_of, verb

    def work():
        check_seed(args.seed)
        if min(args.limit, args.batch) < 1:
            raise ValueError(f"--limit {args.limit} and --batch {args.batch} must be at least 1")
        params = flowsr_jax.load(args.model)
        verb(params, "predict_noise")  # or one error
        folder = None if args.input == "embedded" else args.input
        data = DataConfig(scale=scale_of(params), patch_size=args.crop, valid_dir=folder)
        pairs = valid_pairs(make_source(data, "valid"), data, count=args.limit, crop=args.crop)
        schedules = search.candidates(args.steps, args.starts or search.STARTS, args.ends or ())
        out = Path(args.output)
        require_writable(out)
        with open(out / "search.csv", "w") as table:
            print("steps,start,end,patch_fid,psnr", file=table, flush=True)

            def show(number, result):
                s, v = result.schedule, result.scores
                row = f"{s.steps},{s.start:.6g},{s.end:.6g},{v['patch_fid']:.6g},{v['psnr']:.4f}"
                print(row, file=table, flush=True)
                print(
                    f"[{number + 1}/{len(schedules)}] start {s.start:g} end {s.end:.4g}  patch FID "
                    f"{v['patch_fid']:.4g}  PSNR {v['psnr']:.2f}",
                    flush=True,
                )

            found = search.search_schedule(
                params,
                pairs,
                schedules,
                jax.random.key(args.seed),
                score=args.score,
                batch=args.batch,
                show=show,
                sampler=args.sampler,
            )
        best = found[0].schedule
        print(f"best: ScheduleConfig('linear', {best.steps}, {best.start:g}, {best.end:.6g})")
        if args.save:
            flowsr_jax.save(search.with_schedule(params, best), args.save)

    return run_command(work, "OUT/search.csv has the finished rows")
