"""Any bijector as a Flax module."""

from __future__ import annotations

from typing import Any

import flax.linen as nn

from flowsr_jax.bijectors.base import Array, Bijector, PyTree, Shape
from flowsr_jax.nets.layers import Tree


class Flow(nn.Module):
    """A bijector whose parameters are this module's, {"params": {"flow": ...}}.

    It stands inside other modules, and works with `init`, `apply`, `bind` and `tabulate`:

        flow = Flow(bijector, (8, 8, 3))
        variables = flow.init(key, x, cond)
        y, logdet = flow.apply(variables, x, cond)
        x, logdet = flow.apply(variables, y, cond, method="inverse")

    Networks of a bijector that is built in a method of a module need parent=None.

    Attributes:
      bijector: any.
      shape: of one example of x, without the batch.
    """

    bijector: Bijector
    shape: Shape

    def setup(self) -> None:
        self.flow = Tree(lambda key: self.bijector.init(key, tuple(self.shape)))

    def __call__(self, x: Any, cond: PyTree = None) -> tuple[Any, Array]:
        """Return the bijector's forward of x [B, *shape]: (y, logdet[B])."""
        return self.bijector.forward(self.flow(), x, cond)

    def inverse(self, y: Any, cond: PyTree = None) -> tuple[Any, Array]:
        """Return the bijector's inverse of y: (x, logdet[B] of the inverse)."""
        return self.bijector.inverse(self.flow(), y, cond)

    def init_from_data(self, x: Any, cond: PyTree = None) -> tuple[Any, Array]:
        """Return forward of x by parameters initialised from x.

        With `apply(..., method="init_from_data", mutable=["params"])` these are the new ones.
        """
        params, y, logdet = self.bijector.init_from_data(self.flow(), x, cond)
        self.put_variable("params", "flow", params)
        return y, logdet
