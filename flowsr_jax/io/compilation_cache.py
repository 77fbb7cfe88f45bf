"""Compiled programs kept on disk, so that a second run need not compile again."""

from __future__ import annotations

import hashlib
import os
import warnings
from pathlib import Path

import jax

MIN_SECONDS = 0.5  # programs that compile faster are not kept


def use_compilation_cache(folder: str | os.PathLike | None = None) -> None:
    """Keep compiled programs in a folder: a setting of the process.

    A folder that is set already (JAX_COMPILATION_CACHE_DIR, an earlier call) stays.  A program
    that cannot be read or written (a full disk) is compiled again silently.  With several CPU
    devices jax keeps and reads nothing.

    Args:
      folder: where; None is `$XDG_CACHE_HOME/flowsr_jax/<kind of machine>`, by default
        under `~/.cache`.  If it cannot be made, nothing is kept.
    """
    if jax.default_backend() == "cpu" and jax.device_count() > 1:
        # A bug of jaxlib 0.10.2 (we know of no issue that reports it): a multi-device CPU
        # program restored from the cache no longer orders its collectives, so the devices
        # wait for each other forever, or the process is aborted.  So keep nothing there.
        jax.config.update("jax_enable_compilation_cache", False)
        return
    if jax.config.jax_compilation_cache_dir:
        return
    if folder is None:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        folder = os.path.join(base, "flowsr_jax", _machine())
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError:
        return
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
    jax.config.update("jax_compilation_cache_dir", os.path.abspath(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_SECONDS)


def _machine() -> str:
    """Return a name of the processor's kind: programs for one may not run on another."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = list(os.uname()[4:])
    kinds = {x for x in lines if x.startswith(("model name", "flags", "Features")) or ":" not in x}
    return hashlib.sha256("\n".join(sorted(kinds)).encode()).hexdigest()[:12]
