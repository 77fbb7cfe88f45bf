"""A tiny family (nearest-neighbour upscaling by 2) for tests of what surrounds a model."""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp

from flowsr_jax.config import ConfigError
from flowsr_jax.models.base import Family, Params


@dataclasses.dataclass(frozen=True)
class FakeConfig:
    family: ClassVar[str] = "fake"
    width: int = 3
    blocks: tuple[int, ...] = (1, 2)
    broken: float = 0.0  # part of the draws that have a non-finite pixel
    scale: ClassVar[int] = 2

    def __post_init__(self):
        if self.width < 1:
            raise ConfigError(f"width = {self.width} must be at least 1")


def init(config, key):
    nets = {f"block{i}": {"kernel": jnp.full((n, config.width), 0.5)}
            for i, n in enumerate(config.blocks)}  # fmt: skip
    gain = jnp.ones(3) + 0 * jax.random.normal(key, (3,))
    return Params({"net": nets, "out": {"gain": gain, "steps": jnp.int32(7)}}, config)


@functools.partial(jax.jit, static_argnames="num_samples")
def sample(params, lr, key, *, temperature=None, num_samples=None):
    key = jax.random.key(0) if key is None else key
    count = num_samples or 1
    temperature = 0.0 if temperature is None else temperature
    up = jnp.repeat(jnp.repeat(lr * params["out"]["gain"], 2, axis=1), 2, axis=2)
    noise = jax.random.normal(key, (count, *up.shape))
    out = up + temperature * noise
    lost = jax.random.uniform(jax.random.fold_in(key, 1), (count,)) < params.config.broken
    out = out.at[:, 0, 0, 0, 0].set(jnp.where(lost, jnp.nan, out[:, 0, 0, 0, 0]))
    return out if num_samples else out[0]


FAMILY = Family(
    name="fake",
    config_class=FakeConfig,
    init=init,
    losses={},
    sample=sample,
    multiple=lambda config: 4,
)
