"""Model families; one line registers each, and nothing else knows their names."""

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


def _srflow():
    from flowsr_jax.models.srflow import FAMILY

    return FAMILY


def _rrdb():
    from flowsr_jax.models.rrdb import FAMILY

    return FAMILY


def _sr3():
    from flowsr_jax.models.sr3 import FAMILY

    return FAMILY


register("srflow", _srflow)
register("rrdb", _rrdb)
register("sr3", _sr3)

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
