"""Model families; one line registers each, and nothing else knows their names."""

import importlib

from flowsr_jax.models.base import (
    Family,
    Params,
    View,
    families,
    family_of,
    get_family,
    register,
    verb,
)


def _lazy(name: str):
    """Import a family's record on first use, so that one family costs no other's imports."""
    return lambda: importlib.import_module(f"flowsr_jax.models.{name}").FAMILY


for _name in ("srflow", "rrdb", "sr3", "irn", "glow", "realnvp", "nice"):
    register(_name, _lazy(_name))

__all__ = [
    "Family",
    "Params",
    "View",
    "families",
    "family_of",
    "get_family",
    "register",
    "verb",
]
