"""A batch of jobs: every file is reported, none stops the others."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from flowsr_jax.files.atomic import remove_leftovers, require_writable
from flowsr_jax.files.images import ImageError
from flowsr_jax.files.writers import WriteError
from flowsr_jax.upscaling.image import SampleError
from flowsr_jax.upscaling.jobs import Job, Plan, UsageError, plan
from flowsr_jax.upscaling.mark import MarkError
from flowsr_jax.upscaling.progress import Progress, progress
from flowsr_jax.upscaling.windows import Windows


@dataclasses.dataclass(frozen=True)
class Summary:
    """What became of the input files (counts)."""

    written: int
    skipped: int
    failed: int


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
            shown.finish(job.name, outcome, text)
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
