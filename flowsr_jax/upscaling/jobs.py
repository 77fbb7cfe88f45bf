"""What is to be done: the input files of a batch and the outputs of each."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from flowsr_jax.files.images import list_images


class UsageError(ValueError):
    """A request that cannot be carried out at all; one line."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One input file.

    Attributes:
      source: the file.
      name: its name relative to the input folder.
      outputs: the files of its samples, in order.
      heat: the file of the standard deviation over the samples, if it is wanted.
      problem: why it cannot be done, or None.
    """

    source: Path
    name: str
    outputs: tuple[Path, ...]
    heat: Path | None = None
    problem: str | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All that the job writes."""
        return self.outputs if self.heat is None else (*self.outputs, self.heat)


def plan(source: Path, out: Path, num_samples: int = 1, uncertainty: bool = False) -> list[Job]:
    """Return one job per image of `source`; see `upscale_files` for the output names.

    Inputs that would be written to one file, or over an input, get a `problem`.

    Raises:
      ImageError: there is no such file or folder.
      UsageError: no images, or every one has a problem.
    """
    files = list_images(source)
    root = source if source.is_dir() else source.parent
    if source.is_dir():
        if out.resolve() == source.resolve():
            raise UsageError(f"{out}: the output folder must not be the input folder")
        # Results of an earlier run inside the input folder are no inputs.
        files = [f for f in files if not f.resolve().is_relative_to(out.resolve())]
    if not files:
        raise UsageError(f"{source}: no images found")
    tails = [".png"] if num_samples == 1 else [f"_{i}.png" for i in range(num_samples)]
    jobs, owners = [], {}
    for file in files:
        name = file.relative_to(root)
        base = out / name.parent / name.stem
        outputs = tuple(base.with_name(base.name + tail) for tail in tails)
        heat = base.with_name(f"{base.name}_std.png") if uncertainty else None
        jobs.append(Job(file, name.as_posix(), outputs, heat))
        for path in jobs[-1].files:
            owners.setdefault(path, []).append(name.as_posix())
    inputs = {file.resolve() for file in files}
    jobs = [dataclasses.replace(job, problem=_problem(job, owners, inputs)) for job in jobs]
    if all(job.problem for job in jobs):
        raise UsageError(jobs[0].problem)
    return jobs


def _problem(job: Job, owners: dict[Path, list[str]], inputs: set[Path]) -> str | None:
    for path in job.files:
        if len(owners[path]) > 1:
            return f"{' and '.join(owners[path])} would all be written to {path}"
        if path.resolve() in inputs:
            return f"{path}: the output would overwrite an input"
    return None
