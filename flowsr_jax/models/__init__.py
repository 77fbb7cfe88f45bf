"""Model families; one line registers each, and nothing outside this folder knows their names."""

from typing import Any

from flowsr_jax.models.base import (
    FAMILIES,
    Family,
    Params,
    View,
    families,
    family_of,
    get_family,
    kind_of,
    module,
    register_family,
    scale_of,
    verb,
)

# {family: its Flax module, an attribute of this package}
MODULES = {
    "srflow": "SRFlow",
    "rrdb": "RRDB",
    "sr3": "SR3",
    "irn": "IRN",
    "glow": "Glow",
    "realnvp": "RealNVP",
    "nice": "NICE",
}

for _name in MODULES:
    # Imported on first use, so that one family costs no other's imports.
    register_family(_name, f"flowsr_jax.models.{_name}:FAMILY")


def __getattr__(name: str) -> Any:
    for family, module_name in MODULES.items():
        if name == module_name:
            return get_family(family).module
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "FAMILIES",
    "Family",
    "Params",
    "View",
    "families",
    "family_of",
    "get_family",
    "kind_of",
    "module",
    "register_family",
    "scale_of",
    "verb",
]
