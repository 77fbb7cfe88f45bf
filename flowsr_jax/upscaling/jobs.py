"""What is to be done: the input files of a batch and the outputs of each."""

from __future__ import annotations

import dataclasses
import functools
import glob
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from flowsr_jax.console import UsageError
from flowsr_jax.files.listing import Listing, list_images
from flowsr_jax.files.writers import KINDS


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


@dataclasses.dataclass(frozen=True)
class Plan(Sequence[Job]):
    """The jobs of a batch, made when they are asked for: a plan holds names only.

    Attributes:
      entries: ((index into roots, name below it), ...).
      roots: the input folders.
      out: the output folder.
      tails: what the samples' files end with; heat: what the deviation's does, or "".
      file: the stem of the only output, where it was named, or "".
      problems: {index: why it cannot be done}.
      notes: lines on files that are left out.
    """

    entries: tuple[tuple[int, str], ...]
    roots: tuple[Path, ...]
    out: Path
    tails: tuple[str, ...]
    heat: str
    file: str = ""
    problems: dict[int, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Job:
        root, name = self.entries[index]
        stem = self.out / self.stem(name)
        outputs = tuple(stem.with_name(stem.name + tail) for tail in self.tails)
        heat = stem.with_name(stem.name + self.heat) if self.heat else None
        return Job(self.roots[root] / name, name, outputs, heat, self.problems.get(index))

    def __iter__(self) -> Iterator[Job]:
        return (self[i] for i in range(len(self)))

    @property
    def kind(self) -> str:
        """The kind of the samples' files."""
        return KINDS["." + self.tails[0].rpartition(".")[2].lower()]

    def stem(self, name: str) -> str:
        """Return what the outputs of an input are called, before their tails."""
        return self.file or os.path.splitext(name)[0]

    def folders(self) -> set[Path]:
        """The folders that are written to."""
        return {self.out / os.path.dirname(self.stem(name)) for _, name in self.entries}


def plan(
    sources: str | os.PathLike | Sequence[str | os.PathLike],
    out: Path,
    num_samples: int = 1,
    uncertainty: bool = False,
    *,
    ending: str = ".png",
    suffix: str = "",
    shard: tuple[int, int] = (0, 1),
) -> Plan:
    """Plan one job per image; see `upscale_files` for the output names.

    Inputs that would be written to one file, or over an input, get a `problem`.

    Args:
      sources: files, folders or patterns such as "frames/*.png", one or several.
      out: output folder; or for a single input file the output file, by its ending.
      num_samples, uncertainty: as in `upscale_files`.
      ending: of the outputs, with a dot.
      suffix: what output names have after those of the inputs.
      shard: (I, N): the part I of N, from 0.  A file's part depends on its name alone.

    Raises:
      ImageError: there is no such file or folder.
      UsageError: no images, every one has a problem, or `out` does not fit the inputs.
    """
    listings = [list_images(path) for path in _expanded(sources)]
    named = _named_file(out, listings)
    if named:
        out, file, ending = out.parent, out.stem, out.suffix
    for listing in listings:
        # Only a folder is listed under itself; a file's root is where it lies.
        if listing.folder and out.resolve() == listing.root.resolve():
            raise UsageError(f"{out}: the output folder must not be the input folder")
    entries = []
    for i, listing in enumerate(listings):
        inside = _inside(listing, out)
        # Results of an earlier run inside the input folder are no inputs.
        entries += [(i, name) for name in listing.names if not inside(os.path.dirname(name))]
    notes = tuple(note for listing in listings if (note := listing.note()))
    if not entries:
        because = f" ({'; '.join(notes)})" if notes else ""
        what = ", ".join(str(listing.path) for listing in listings)
        raise UsageError(f"{what}: no images found{because}")
    tails = [suffix + ending]
    if num_samples > 1:
        tails = [f"{suffix}_{i}{ending}" for i in range(num_samples)]
    heat = f"{suffix}_std.png" if uncertainty else ""
    roots = tuple(listing.root for listing in listings)
    found = Plan(tuple(entries), roots, out, tuple(tails), heat, file if named else "", {}, notes)
    problems = _problems(found)
    if len(problems) == len(found):
        raise UsageError(problems[0])
    index, count = shard
    if count > 1:
        chosen = [i for i, (_, name) in enumerate(entries) if _part(name, count) == index]
        problems = {new: problems[old] for new, old in enumerate(chosen) if old in problems}
        entries = [entries[i] for i in chosen]
        notes += (f"shard {index} of {count}: {len(entries)} of {len(found)} images",)
    return dataclasses.replace(found, entries=tuple(entries), problems=problems, notes=notes)


def parse_shard(text: str) -> tuple[int, int]:
    """Read "I/N".

    Raises:
      UsageError: another form, or I not in 0..N-1.
    """
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise UsageError(f"shard = {text!r} must be I/N with I from 0 to N - 1, such as 0/4")
    return int(index), int(count)


def _part(name: str, count: int) -> int:
    digest = hashlib.sha256(os.fsencode(name)).digest()
    return int.from_bytes(digest[4:12], "little") % count


def _expanded(sources) -> list[Path]:
    """Return the paths; patterns that no shell has replaced are replaced here."""
    if isinstance(sources, (str, os.PathLike)):
        sources = [sources]
    paths = []
    for source in sources:
        text = os.fspath(source)
        found = [] if os.path.lexists(text) else sorted(glob.glob(text, recursive=True))
        paths += [Path(path) for path in found or [text]]
    return list(dict.fromkeys(paths))


def _named_file(out: Path, listings: Sequence[Listing]) -> bool:
    """Whether `out` names the output file of a single input file."""
    if out.suffix.lower() not in KINDS or out.is_dir():
        return False
    if len(listings) == 1 and not listings[0].folder:
        return True
    raise UsageError(
        f"{out}: is named like a file, which is for a single input file; several images need a "
        "folder"
    )


def _inside(listing: Listing, out: Path):
    """Return a function that says whether a folder below the listing's root lies in `out`."""
    if not listing.folder:
        return lambda folder: False
    target = out.resolve()

    @functools.cache
    def inside(folder: str) -> bool:
        return (listing.root / folder).resolve().is_relative_to(target)

    return inside


def _problems(planned: Plan) -> dict[int, str]:
    """Return {index: problem} of jobs whose outputs collide, or are inputs."""
    owners: dict[str, list[int]] = {}
    for i, (_, name) in enumerate(planned.entries):
        owners.setdefault(planned.stem(name), []).append(i)
    problems = {}
    for stem, group in owners.items():
        if len(group) > 1:
            names = " and ".join(planned.entries[i][1] for i in group)
            path = planned.out / f"{stem}{planned.tails[0]}"
            problems |= dict.fromkeys(group, f"{names} would all be written to {path}")
    problems |= _crossing(planned, owners)

    @functools.cache
    def real(folder: str) -> str:
        return os.path.realpath(folder)

    inputs = set()
    for root, name in planned.entries:
        path = os.path.join(planned.roots[root], name)
        inputs.add(os.path.join(real(os.path.dirname(path)), os.path.basename(path)))
        if os.path.islink(path):
            inputs.add(os.path.realpath(path))
    for i, (_, name) in enumerate(planned.entries):
        stem = os.path.join(planned.out, planned.stem(name))
        place = os.path.join(real(os.path.dirname(stem)), os.path.basename(stem))
        for tail in (*planned.tails, *filter(None, [planned.heat])):
            if place + tail in inputs:
                problems.setdefault(i, f"{stem}{tail}: the output would overwrite an input")
    return problems


def _crossing(planned: Plan, owners: dict[str, list[int]]) -> dict[int, str]:
    """Return the problems of inputs such as a.png and a_0.png, whose samples share a name."""
    if len(planned.tails) == 1 and not planned.heat:
        return {}
    tails = [*planned.tails, *filter(None, [planned.heat])]
    written: dict[str, str] = {}
    problems = {}
    for stem, group in owners.items():
        for tail in tails:
            other = written.setdefault(stem + tail, stem)
            if other != stem:
                pair = [owners[other][0], group[0]]
                names = " and ".join(planned.entries[i][1] for i in pair)
                path = planned.out / (stem + tail)
                problems |= dict.fromkeys(pair, f"{names} would all be written to {path}")
    return problems
