"""What may differ between the configuration of a checkpoint and that of its resumption."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from flowsr_jax.config import ConfigError, from_dict, upgraded
from flowsr_jax.train.config import Config, PhaseConfig, resolve, steps_of
from flowsr_jax.train.schedules import learning_rate

# Fields that change what is logged, kept, shown or where things lie, but not the numbers
# of the training (a differently sharded or recomputed step agrees up to rounding; so does an
# accumulated one, if its loss draws no random numbers).
HARMLESS = re.compile(
    r"name|train\.(log_every|valid_\w+|sheet_images|metrics|checkpoint_every|keep|best|max_skipped\w*"
    r"|mesh_\w+|accumulate|compilation_cache|tensorboard|phases\[\d+\]\.(name|init_from))"
    r"|data\.(\w+_dir|valid_split|workers|cache_mib)|model\.(\w+\.)*compute\.memory"
)


def check_resumable(saved: Mapping[str, Any], config: Config, phase: int, step: int) -> list[str]:
    """Compare a checkpoint's configuration with the one to go on with.

    Phases that have not begun may change freely, and a begun one may get another number
    of steps if it has not passed it.

    Args:
      saved: `config.to_dict()` of the checkpoint.
      config: the present configuration.
      phase, step: where the checkpoint stands.

    Returns:
      One line per harmless difference.

    Raises:
      ConfigError: differences that would make the rest of the run another run; all of
        them are named.
    """
    saved = upgraded(saved)
    with contextlib.suppress(ConfigError):
        saved = resolve(saved).to_dict()  # fields newer than the checkpoint take their defaults
    notes, blocking = [], []
    for path, old, new in differences(saved, config.to_dict()):
        line = f"{path}: {old!r} -> {new!r}"
        begun = re.match(r"train\.phases\[(\d+)\](\.steps$)?", path)
        later = begun and int(begun[1]) > phase
        longer = (
            begun and begun[2] and int(begun[1]) == phase and isinstance(new, int) and new >= step
        )
        allowed = HARMLESS.fullmatch(path) or later or longer
        (notes if allowed else blocking).append(line)
        if longer and not blocking:
            notes += _moved(saved["train"]["phases"][phase], config.train.phases[phase], step)
    if blocking:
        raise ConfigError(
            "the checkpoint was made with another configuration: "
            + "; ".join(blocking)
            + ". Take the old values, or another workdir (a phase's init_from takes over weights)"
        )
    return notes


def _moved(saved: Mapping[str, Any], phase: PhaseConfig, step: int) -> Iterator[str]:
    """Yield what another number of steps does to the rates and groups of a phase under way.

    Fractions of a phase (periods, milestones, first steps) are of its new length.
    """
    with contextlib.suppress(ConfigError):
        old = from_dict(PhaseConfig, saved)
        for before, now in zip(old.groups, phase.groups, strict=False):
            first = steps_of(now.from_step, phase.steps)
            if steps_of(before.from_step, old.steps) <= step < first:
                yield f"the group {now.name!r}, under training, rests until step {first}"
            rates = [
                float(learning_rate(group, steps)(step + 1))
                for group, steps in ((before, old.steps), (now, phase.steps))
            ]
            if rates[0] != rates[1]:
                was, goes = rates
                yield f"the rate of {now.name!r} goes on at {goes:.3g} instead of {was:.3g}"


def differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (path, old, new) of all leaves that differ; an absent one is None."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            below = f"{path}.{key}" if path else str(key)
            yield from differences(old.get(key), new.get(key), below)
    elif _has_entries(old) and _has_entries(new):
        for i in range(max(len(old), len(new))):
            a, b = (seq[i] if i < len(seq) else None for seq in (old, new))
            yield from differences(a, b, f"{path}[{i}]")
    elif old != new:
        yield path, old, new


def _has_entries(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(v, Mapping) for v in value)
