"""Config files by name: those of the package, which the clone has in configs/, and one's own."""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from pathlib import Path
from typing import Any

from flowsr_jax.config import ConfigError, nearest
from flowsr_jax.extras import EXTRAS, require

PACKAGE = Path(__file__).parents[1]


def folder() -> Path:
    """Return the folder of the package's configs: inside an installation, beside it in a clone."""
    installed = PACKAGE / "configs"
    return installed if installed.is_dir() else PACKAGE.parent / "configs"


def names() -> list[str]:
    """Return the names of the package's configs."""
    return sorted(file.stem for file in folder().glob("*.py") if file.stem != "common")


def read_config(text: str) -> Any:
    """Return the values of a config.

    Args:
      text: NAME[:VARIANT]; NAME is a file with a function get_config, or one of `names()`.

    Raises:
      ConfigError: there is no such config, or it cannot be read.
    """
    name, colon, variant = text.partition(":")
    file = Path(name)
    if not os.path.isfile(name):
        if name not in names():
            known = names()
            raise ConfigError(
                f"--config={name}: no such file, and no config of that name"
                f"{nearest(name, known)} (configs: {', '.join(known)})"
            )
        file = folder() / f"{name}.py"
    # Config files import from `configs`, wherever that lies.
    configs = types.ModuleType("configs")
    configs.__path__ = [str(folder())]
    sys.modules.setdefault("configs", configs)
    try:
        spec = importlib.util.spec_from_file_location("config", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        values = module.get_config(*[variant] * bool(colon))
        if not hasattr(values, "items"):
            raise TypeError(f"get_config returned {values!r}, no ConfigDict")
        return values
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
            require(error.name)
        reason = (str(error).strip().splitlines() or [""])[-1].strip()
        raise ConfigError(f"--config={text}: {type(error).__name__}: {reason}") from None
