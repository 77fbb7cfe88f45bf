"""Photographs inside installed packages: nothing to download."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from flowsr_jax.config import ConfigError, choice
from flowsr_jax.data.sources import FileSource
from flowsr_jax.extras import require

SPLITS = ("train", "valid")

# Photographs inside the wheels of scikit-image and scikit-learn.  Microscopy and other
# medical pictures there are left out: they are no help to photographs.
SKIMAGE, SKLEARN = ("skimage", "data"), ("sklearn", "datasets", "images")
PHOTOGRAPHS = {
    "valid": ((SKIMAGE, "coffee.png"), (SKIMAGE, "chelsea.png"), (SKLEARN, "flower.jpg")),
    "train": (
        (SKIMAGE, "astronaut.png"),
        (SKIMAGE, "rocket.jpg"),
        (SKIMAGE, "hubble_deep_field.jpg"),
        (SKLEARN, "china.jpg"),
        (SKIMAGE, "motorcycle_left.png"),
        (SKIMAGE, "motorcycle_right.png"),
    ),
}
TEXTURES = tuple(
    (SKIMAGE, f"{name}.png") for name in ("brick", "grass", "gravel", "camera", "moon", "coins")
)


class EmbeddedSource(FileSource):
    """Photographs that come with scikit-image and scikit-learn, with a fixed split.

    Args:
      split: "train" (6 photographs) or "valid" (coffee, chelsea, flower).
      min_size: as in `FileSource`.
      textures: add 6 grey pictures to the training split.

    Raises:
      ConfigError: another split, a package that is not installed, or no image so large.
    """

    def __init__(self, split: str, min_size: int = 1, *, textures: bool = False):
        entries = PHOTOGRAPHS[choice("split", split, SPLITS)]
        if textures and split == "train":
            entries += TEXTURES
        files = [packaged(*entry) for entry in entries]
        names = [file.stem for file in files]
        super().__init__(files, names, min_size=min_size, where=f"the embedded {split} images")


def packaged(package: Sequence[str], name: str) -> Path:
    """Return the path of a file inside an installed package.

    Raises:
      ConfigError: it is not there.
    """
    require(package[0])
    # Found without importing the package, which would take seconds.
    spec = importlib.util.find_spec(package[0])
    file = Path(spec.origin).parent.joinpath(*package[1:], name) if spec and spec.origin else None
    if file is None or not file.is_file():
        raise ConfigError(
            f"{name} comes with {package[0]}, which does not hold it here; "
            "pip install scikit-image scikit-learn"
        )
    return file
