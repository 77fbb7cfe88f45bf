"""How much memory is there, and whether a request fits into it."""

from __future__ import annotations

from pathlib import Path

import jax

FALLBACK = 4 << 30
CGROUPS = (  # versions 2 and 1, as a container sees its own
    (Path("/sys/fs/cgroup"), ("memory.max", "memory.current")),
    (Path("/sys/fs/cgroup/memory"), ("memory.limit_in_bytes", "memory.usage_in_bytes")),
)
MEMINFO = Path("/proc/meminfo")


def device_memory() -> int:
    """Free memory in bytes of the first device; on a CPU, the computer's."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return host_memory()


def require(name: str, value: object, size: int, *, count: int = 1, host: bool = False) -> None:
    """Raise ValueError if a request needs more memory than there is, before anything is made.

    Args:
      name, value: the argument that asks for it.
      size: bytes that are needed at the least, whatever the program: of the results.
      count: the number of equal things among them; the message says how many would fit.
      host: they are kept in the computer's memory, else in that of all devices.
    """
    free = host_memory() if host else device_memory()
    if not host and jax.default_backend() != "cpu":  # CPU devices share their memory
        free *= jax.device_count()
    if size > free:
        fit = f", enough for {free * count // size} of {count}" if count > 1 else ""
        raise ValueError(
            f"{name} = {value} needs at least {size / 2**30:.1f} GiB of memory, and "
            f"{free / 2**30:.1f} GiB are free{fit}"
        )


def host_memory() -> int:
    """Memory in bytes that this process may still take, within a container's limit."""
    free = _fields(MEMINFO).get("MemAvailable:")
    found = [FALLBACK if free is None else free << 10]
    for folder, names in CGROUPS:
        limit, used = (_number(folder / name) for name in names)
        if limit is not None and used is not None:
            cache = _fields(folder / "memory.stat").get("inactive_file", 0)  # given back on demand
            found.append(max(0, limit - used + cache))
    return min(found)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdigit() else None  # "max" is no limit


def _fields(path: Path) -> dict[str, int]:
    words = (line.split() for line in _read(path).splitlines())
    return {w[0]: int(w[1]) for w in words if len(w) > 1 and w[1].isdigit()}
