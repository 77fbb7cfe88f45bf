"""A batch of jobs: every file is reported, none stops the others."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from flowsr_jax.console import Progress, Summary, UsageError, progress
from flowsr_jax.drawing import SampleError
from flowsr_jax.drawing.windows import Windows
from flowsr_jax.files.atomic import remove_leftovers, require_writable
from flowsr_jax.files.images import ImageError
from flowsr_jax.files.writers import WriteError
from flowsr_jax.upscaling.jobs import Job, Plan, plan
from flowsr_jax.upscaling.mark import MarkError


def begin(
    sources: str | os.PathLike | Sequence[str | os.PathLike],
    out: str | os.PathLike,
    num_samples: int = 1,
    heat: bool = False,
    **options,
) -> Plan:
    """Plan a batch, and see that its results can be written; arguments as `plan`.

    Raises:
      ImageError, UsageError: as `plan`, or a folder that cannot be written to.
    """
    jobs = plan(sources, Path(out), num_samples, heat, **options)
    try:
        require_writable(jobs.out)
    except OSError as error:
        raise UsageError(str(error)) from None
    return jobs


def run_batch(
    jobs: Plan,
    sampler: Windows,
    work: Callable[[Job, Progress], str],
    overwrite: bool = False,
) -> Summary:
    """Do the jobs, in order.

    Args:
      jobs: what `begin` planned.
      sampler: what draws; it makes do with less after memory ran out.
      work: (job, progress) -> what to report; writes the job's files, whole or not at all.
      overwrite: also do jobs whose files exist; otherwise they are skipped.
    """
    for folder in jobs.folders():
        remove_leftovers(folder)
    counts = {"written": 0, "skipped": 0, "failed": 0}
    with progress(len(jobs)) as shown:
        for note in jobs.notes:
            shown.say(note, True)
        for job in jobs:
            if job.problem:
                outcome, text = "failed", job.problem
            elif not overwrite and all(path.exists() for path in job.files):
                outcome, text = "skipped", "the output exists (--overwrite draws it again)"
            else:
                outcome, text = _attempt(job, sampler, work, shown)
            counts[outcome] += 1
            # Messages of readers begin with the path already.
            line = f"{job.name}: {outcome}: {text}"
            shown.finish(line, outcome == "failed", worked=outcome == "written")
    return Summary(**counts)


def _attempt(job: Job, sampler: Windows, work, shown: Progress) -> tuple[str, str]:
    """Do a job; returns (outcome, text)."""
    while True:
        try:
            return "written", work(job, shown)
        except (ImageError, SampleError, MarkError, WriteError) as error:
            return "failed", str(error)
        except OSError as error:
            return "failed", f"{job.outputs[0]}: cannot be written ({error.strerror or error})"
        except Exception as error:  # whatever it is, the batch goes on
            if "RESOURCE_EXHAUSTED" not in str(error) or not sampler.shrink():
                return "failed", f"{type(error).__name__}: {error}"
            shown.say(f"{job.name}: out of memory; trying smaller tiles", True)


def reports(shown: Progress, name: str, sampler: Windows, size: tuple[int, int]) -> dict:
    """Return the arguments of `image_strips` that show how it is getting on.

    A window size that is new is compiled here, which is said and is not counted as drawing.

    Args:
      shown: where.
      name: of the image.
      sampler: what draws it.
      size: (height, width) of the image in LR pixels.
    """
    *window, group = sampler.window(*size)
    shown.once(f"compiling for windows of {window[1]}x{window[0]} LR pixels (a new size)")
    with shown.apart():
        sampler.compiled(tuple(window), group)
    if any(n > side for n, side in zip(size, window, strict=False)):
        shown.once(f"large images are drawn in tiles, here of {window[1]}x{window[0]} LR pixels")
    return {
        "say": lambda text: shown.say(f"{name}: {text}", True),
        "tick": lambda done, total: shown.tick(name, done, total),
    }
