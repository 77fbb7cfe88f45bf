"""Networks chosen by name in a config, so that saved folders remember them.

    flowsr_jax.register_network("mine", MyNet)  # a flax.linen class
    SRFlowConfig(network=NetworkConfig("mine", {"width": 32}))

Which networks a coupling can hold says flowsr_jax/bijectors/networks.py.  For an nnx class
register `functools.partial(FromNNX, MyNNXNet)`.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn

from flowsr_jax.config import ConfigError, Frozen
from flowsr_jax.registry import Registry

NETWORKS: Registry[Callable[..., nn.Module]] = Registry("network")


def register_network(name: str, network: Callable[..., nn.Module] | str) -> None:
    """Add a network of couplings.

    Args:
      name: by which a config chooses it.
      network: called as network(**options, parent=None), and with `cond_channels=` and
        `compute=` if it takes them: a flax.linen class, or "module:attribute" of one,
        imported on first use.

    Raises:
      ValueError: the name is taken.
    """
    NETWORKS.register(name, network)


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """A network by its name.

    Attributes:
      name: of `register_network`.
      options: arguments of the network.
    """

    name: str
    options: Mapping[str, Any] = Frozen()

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", Frozen(self.options))
        try:
            NETWORKS.get(self.name)
            build_network(self)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"network: {error}") from None


def build_network(config: NetworkConfig, **given: Any) -> nn.Module:
    """Return the network of a config, unbound.

    Args:
      config: its name and options.
      **given: what the family says (cond_channels, compute), handed on where it is taken.
    """
    make = NETWORKS.get(config.name)
    taken = inspect.signature(make).parameters
    given = {name: value for name, value in given.items() if name in taken}
    return make(**{**given, **config.options}, parent=None)
