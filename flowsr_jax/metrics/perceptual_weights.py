"""Weights of LPIPS and DISTS: read from files, checked, never invented.

The linear weights of LPIPS 0.1 (10 kB, BSD 2-clause: data/LICENSE-lpips.txt) are part of
this package.  The backbones are torchvision's ImageNet weights, which the user provides.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from flowsr_jax.io.torch_file import WeightsFileError, read_weights
from flowsr_jax.metrics.backbones import get_backbone

LINEAR_FILE = Path(__file__).with_name("data") / "lpips_linear_v0.1.safetensors"
URL = "https://download.pytorch.org/models/"
# The image itself, then VGG16's taps.
DISTS_CHANNELS = (3, 64, 128, 256, 512, 512)


def linear_names() -> tuple[str, ...]:
    """Return the names of the five linear weights [1,C,1,1] in the lpips package's files."""
    return tuple(f"lin{k}.model.1.weight" for k in range(5))


def load_lpips_weights(path_or_paths=None, net: str = "alex") -> dict:
    """Read the weights that `lpips` takes.

    Args:
      path_or_paths: one or several of: torchvision's backbone file, a whole LPIPS state
        dict, a file of linear weights; each .pth, .npz, .safetensors or a mapping.  A
        backbone that is in none of them is looked for where torch.hub keeps its downloads;
        linear weights that are in none of them are those of version 0.1 in this package.
      net: "alex" or "vgg".

    Returns:
      {official name: float32 array}: features.*.weight [O,I,kh,kw], features.*.bias [O],
      lin*.model.1.weight [1,C,1,1].

    Raises:
      FileNotFoundError: there is no such file, or no backbone anywhere; the message names
        what is needed.  Random weights are never used instead.
      WeightsFileError: a damaged file, or the tensors of another network.
    """
    found = {**_shipped(net), **_backbone(path_or_paths, net)}
    return _to_jax(select_weights(found, net, linear=True))


def load_dists_weights(weights, backbone=None) -> dict:
    """Read the weights that `dists` takes.

    Args:
      weights: alpha and beta: weights.pt of DISTS_pytorch (MIT), or .npz, .safetensors, a
        mapping.
      backbone: torchvision's VGG16, as for `load_lpips_weights`; None looks for it where
        torch.hub keeps its downloads.

    Returns:
      {name: float32 array}: features.*.weight, features.*.bias, alpha [1475], beta [1475].

    Raises:
      FileNotFoundError, WeightsFileError: as `load_lpips_weights`.
    """
    own = {k: np.reshape(v, -1) for k, v in read_weights(weights).items() if k in ("alpha", "beta")}
    return _to_jax(select_weights({**_backbone(backbone, "vgg"), **own}, "vgg", dists=True))


def select_weights(params: Mapping, net: str, *, linear: bool = False, dists: bool = False) -> dict:
    """Return the tensors that a metric needs, after a look at their names and shapes.

    Raises:
      WeightsFileError: a tensor is missing or has another shape.
    """
    backbone = get_backbone(net)
    wanted = backbone.shapes()
    if linear:
        channels = zip(linear_names(), backbone.channels, strict=True)
        wanted |= {name: (1, c, 1, 1) for name, c in channels}
    if dists:
        wanted |= dict.fromkeys(("alpha", "beta"), (sum(DISTS_CHANNELS),))
    if not isinstance(params, Mapping):
        raise WeightsFileError(
            f"params must be a dict of weights (load_lpips_weights, load_dists_weights), "
            f"got {type(params).__name__}"
        )
    missing = [name for name in wanted if name not in params]
    if missing:
        raise WeightsFileError(
            f"the weights lack {len(missing)} tensors of {backbone.title} (net={net!r}): "
            + ", ".join(missing[:3])
        )
    for name, shape in wanted.items():
        if tuple(np.shape(params[name])) != shape:
            raise WeightsFileError(
                f"{name} has the shape {tuple(np.shape(params[name]))}, {backbone.title} "
                f"(net={net!r}) has {shape}: weights of another network"
            )
    return {name: params[name] for name in wanted}


def _backbone(sources, net: str) -> dict[str, np.ndarray]:
    """Read the sources under official names, and the backbone from torch.hub if need be."""
    backbone, found = get_backbone(net), {}
    if sources is None:
        sources = []
    elif isinstance(sources, (str, os.PathLike, Mapping)) or not isinstance(sources, Iterable):
        sources = [sources]
    for source in sources:
        found |= _rename(read_weights(source))
    if not any(name.startswith("features.") for name in found):
        file = _hub_folder() / backbone.file
        if not file.is_file():
            where = f"{len(sources)} given" if sources else "none was given"
            raise FileNotFoundError(
                f"{backbone.title} trained on ImageNet (net={net!r}) is needed: no file with its "
                f"features.* ({where}), and no {file}; download {URL}{backbone.file} and pass "
                "its path (random weights are never used instead)"
            )
        found |= _rename(read_weights(file))
    return found


def _rename(weights: Mapping) -> dict[str, np.ndarray]:
    """Return a whole LPIPS state dict under the names of the backbone's own file."""
    names = {name: re.sub(r"^net\.slice\d+\.(\d+)\.", r"features.\1.", name) for name in weights}
    return {names[name]: value for name, value in weights.items()}


def _shipped(net: str) -> dict[str, np.ndarray]:
    get_backbone(net)
    prefix = f"{net}/"
    shipped = read_weights(LINEAR_FILE).items()
    return {k.removeprefix(prefix): v for k, v in shipped if k.startswith(prefix)}


def _hub_folder() -> Path:
    """Return the folder of torch.hub.load_state_dict_from_url, without torch."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"))
    return Path(os.environ.get("TORCH_HOME", cache / "torch")).expanduser() / "hub" / "checkpoints"


def _to_jax(weights: Mapping) -> dict:
    for name, value in weights.items():
        if not np.isfinite(np.asarray(value, np.float32)).all():
            raise WeightsFileError(f"{name} holds values that are not finite")
    return {name: jnp.asarray(value, jnp.float32) for name, value in weights.items()}
