"""Model families; one line registers each, and nothing outside this folder knows their names."""

from flowsr_jax.models.base import (
    FAMILIES,
    Family,
    Params,
    View,
    families,
    family_of,
    get_family,
    kind_of,
    register_family,
    scale_of,
    verb,
)

for _name in ("srflow", "rrdb", "sr3", "irn", "glow", "realnvp", "nice"):
    # Imported on first use, so that one family costs no other's imports.
    register_family(_name, f"flowsr_jax.models.{_name}:FAMILY")

__all__ = [
    "FAMILIES",
    "Family",
    "Params",
    "View",
    "families",
    "family_of",
    "get_family",
    "kind_of",
    "register_family",
    "scale_of",
    "verb",
]
