"""Names of the types that all layers share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

Array = jax.Array
AnyArray = jax.Array | np.ndarray  # what callers hand in
Scalar = float | AnyArray  # a number, or an array of them
PyTree = Any  # nested dicts of arrays, parameters for instance
Shape = tuple[int, ...]
Initializer = Callable[..., Array]  # (key, shape) -> array
Padding = Sequence[tuple[int, int]]  # before and after, of height and width
Precision = jax.lax.Precision
Batch = Mapping[str, Array]
State = Mapping[str, Any]  # arrays that are carried beside the weights
# (bijector, params, x, cond) -> (params, y, logdet), as all parts of a composite learn
Learn = Callable[..., tuple[PyTree, Any, Array]]
LossResult = tuple[Array, tuple[State, dict[str, Array]]]  # scalar, (new state, metrics)
