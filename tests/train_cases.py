"""A tiny model family, a folder of pictures and short runs, for the trainer's tests.

Run as a script it trains in its own process: `python train_cases.py WORKDIR CONFIG_JSON`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from flowsr_jax.models.base import FAMILIES, Family, Params, View


@dataclasses.dataclass(frozen=True)
class TinyConfig:
    """Nearest upsampling, one convolution (group "a"), one scale and shift (group "b")."""

    scale: int = 2
    width: int = 3
    multiple: int = 1

    family = "tiny"


def init(config: TinyConfig, key) -> Params:
    w = jax.random.normal(key, (3, 3, 3, config.width)) / 5
    b = {"scale": jnp.ones(config.width), "shift": jnp.zeros(config.width)}
    return Params({"a": {"w": w, "bias": jnp.zeros(config.width)}, "b": b}, config)


def features(params, lr):
    s = params.config.scale
    up = jnp.repeat(jnp.repeat(lr, s, axis=1), s, axis=2)
    dims = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(up, params["a"]["w"], (1, 1), "SAME", dimension_numbers=dims)
    return y + params["a"]["bias"]


def apply(params, lr):
    y = features(params, lr) * params["b"]["scale"] + params["b"]["shift"]
    return y[..., :3]


def mse(params, state, batch, key, *, noise=0.0):
    """Mean squared error against HR with noise; counts its calls in the state."""
    hr = batch["hr"] + noise * jax.random.normal(key, batch["hr"].shape)
    error = apply(params, batch["lr"]) - hr
    loss = jnp.mean(jnp.square(error))
    return loss, ({"calls": state["calls"] + 1}, {"l1": jnp.mean(jnp.abs(error))})


def rival(params, state, batch, key, *, weight=1.0):
    """The opposite of `mse`, for groups with opposed losses."""
    loss, (state, metrics) = mse(params, state, batch, key)
    return -weight * loss, (state, metrics)


def broken(params, state, batch, key, *, after=0, chance=0.0):
    """`mse` that turns NaN after so many applied steps, or by chance."""
    loss, (state, metrics) = mse(params, state, batch, key)
    bad = (state["calls"] > after) if after else jax.random.uniform(key) < chance
    # Through a product, so that the gradient is NaN as well.
    return loss * jnp.where(bad, jnp.nan, 1.0), (state, metrics)


def init_from_data(params, batch, key, **options):
    """ActNorm-like: features of the batch get mean 0 and deviation 1."""
    x = features(params, batch["lr"])
    mean, std = x.mean((0, 1, 2)), x.std((0, 1, 2)) + 1e-6
    return params.replace(b={"scale": 1 / std, "shift": -mean / std})


def encode(params, hr, lr):
    z = hr - apply(params, lr)
    log_prob = -0.5 * jnp.sum(z**2 + math.log(2 * math.pi), axis=(1, 2, 3))
    return [z], log_prob


def noisy(params, lr, key):
    image = apply(params, lr)
    return image + 0.05 * jax.random.normal(key, image.shape)


FAMILY = Family(
    name="tiny",
    config_class=TinyConfig,
    init=init,
    losses={"mse": mse, "rival": rival, "broken": broken},
    sample=noisy,
    encode=encode,
    init_from_data=init_from_data,
    init_state=lambda config: {"calls": jnp.zeros([], jnp.int32)},
    views=lambda config, loss: (
        View("mean", lambda params, lr, key: apply(params, lr)),
        View("draw", noisy, stochastic=True),
    ),
    multiple=lambda config: config.multiple,
)


def registered():
    """Have the family in the registry for a while: other tests loop over all families."""
    return FAMILIES.using("tiny", FAMILY)


def make_pictures(folder: Path, count: int, size: int = 24, seed: int = 0) -> Path:
    """Write smooth random PNGs."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((size, size), Image.BICUBIC).save(folder / f"{i:03d}.png")
    return folder


def run_values(root: Path, **train) -> dict:
    """Return the plain config of a short run over the pictures in `root`."""
    group = {"name": "a", "lr": 1e-2}
    phase = {"name": "fit", "loss": "mse", "steps": 8, "groups": [group, {**group, "name": "b"}]}
    defaults = {
        "batch_size": 8,
        "phases": [phase],
        "log_every": 2,
        "checkpoint_every": 4,
        "valid_images": 2,
        "valid_draws": 2,
        "mesh_data": 1,
        "compilation_cache": None,
    }
    return {
        "model": {"family": "tiny"},
        "data": {
            "source": "folder",
            "train_dir": str(root / "train"),
            "valid_dir": str(root / "valid"),
            "scale": 2,
            "patch_size": 12,
            "workers": 0,
        },
        "train": {**defaults, **train},
        "seed": 3,
        "name": "tiny",
    }


def same(a, b) -> bool:
    """Whether two trees are equal bit for bit."""
    a, b = (jax.device_get(jax.tree.leaves(t)) for t in (a, b))
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


if __name__ == "__main__":
    from flowsr_jax.train import mesh
    from flowsr_jax.train.config import resolve
    from flowsr_jax.train.loop import train_and_evaluate

    mesh.MIN_SPLIT_SIZE = 1  # so that fsdp splits even these arrays
    with registered():
        train_and_evaluate(resolve(json.loads(sys.argv[2])), sys.argv[1])
