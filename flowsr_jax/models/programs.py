"""What of a model can be exported: pure functions with described inputs.

`Family.programs` gives them; None is `verb_programs`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from flowsr_jax.models.base import Family, Params
from flowsr_jax.models.inputs import check_options
from flowsr_jax.types import Array

KEY = "threefry2x32"
RANDOM = "np.random.default_rng(0).random({shape}, np.float32)"
ZEROS = "np.zeros({shape}, np.float32)"
DRAWN = "super-resolved images, RGB, not clipped"


@dataclasses.dataclass(frozen=True)
class Input:
    """One input of a program.

    Attributes:
      shape: sizes, symbolic where they are open.
      meaning: one line for the reader.
      example: a Python expression (of jax and np) for one; "{shape}" is filled in.
      dtype: number type.
    """

    shape: tuple
    meaning: str
    example: str = RANDOM
    dtype: Any = jnp.float32


@dataclasses.dataclass(frozen=True)
class Program:
    """One function of a model.

    Attributes:
      call: pure function (params, *inputs).
      inputs: by name, in order.
      meaning: what it gives, one line.
      default: exported when no programs are named.
    """

    call: Callable[..., Any]
    inputs: Mapping[str, Input]
    meaning: str
    default: bool = True


def verb_programs(family: Family, config: Any, lr: tuple, options: Mapping) -> dict[str, Program]:
    """Return programs of a family record: "sample"; "encode" and "decode" of flows.

    Args:
      family, config: the record and the model's config.
      lr: LR shape (b, h, w, c); sizes may be symbolic.
      options: static keyword arguments of `Family.sample`.
    """
    check_options(family, options)
    scale, channels = family.scale(config), family.channels(config)
    inputs = {"lr": Input(lr, "LR images in [0,1]")}
    if not family.stochastic:

        def sample(params: Params, lr: Array) -> Array:
            return family.sample(params, lr, None, temperature=None, num_samples=None, **options)

        return {"sample": Program(sample, inputs, DRAWN)}

    def sample(params: Params, lr: Array, key: Array, temperature: Array) -> Array:
        key = jax.random.wrap_key_data(key, impl=KEY)
        return family.sample(params, lr, key, temperature=temperature, num_samples=None, **options)

    programs = {"sample": Program(sample, inputs | _noise(family, config), DRAWN)}
    conditional = family.kind(config) == "super_resolution"
    encode, decode_fn, latent_shapes = family.encode, family.decode, family.latent_shapes
    if not (conditional and encode and decode_fn and latent_shapes):
        return programs
    b, h, w, _ = lr
    hr = Input((b, scale * h, scale * w, channels), "HR images in [0,1]")
    latents = {
        f"latent{i}": Input(tuple(shape), "latent; the first is the finest level's", ZEROS)
        for i, shape in enumerate(latent_shapes(config, lr))
    }

    def decode(params: Params, *arrays: Array) -> Array:
        return decode_fn(params, list(arrays[:-1]), arrays[-1])

    given = "latents, finest level first, and log p(hr | lr) in nats"
    programs["encode"] = Program(encode, {"hr": hr, **inputs}, given, default=False)
    programs["decode"] = Program(decode, latents | inputs, DRAWN, default=False)
    return programs


def _noise(family: Family, config: Any) -> dict[str, Input]:
    usual = family.default_temperature(config)
    usual = 1.0 if usual is None else usual
    return {
        "key": Input(
            (2,),
            f"jax.random.key_data of a key of the default kind ({KEY})",
            "jax.random.key_data(jax.random.key(0))",
            jnp.uint32,
        ),
        "temperature": Input(
            (),
            f"standard deviation of the noise, at least 0; usual: {usual:g}",
            f"np.float32({usual:g})",
        ),
    }
