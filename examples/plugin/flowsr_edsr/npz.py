"""A source: images of one size in the array "images", uint8 [N,H,W,3], of an .npz file."""

import numpy as np

from flowsr_jax import SourceKind
from flowsr_jax.config import ConfigError


class NpzSource:
    """The images of a file; `min_size` is the least side that is of use."""

    fields = ("hr",)

    def __init__(self, path: str, min_size: int):
        try:
            self.images = np.load(path)["images"]
        except (OSError, KeyError, ValueError) as error:
            raise ConfigError(f"{path} is no .npz file with the array 'images': {error}") from None
        if self.images.ndim != 4 or min(self.images.shape[1:3]) < min_size:
            raise ConfigError(
                f"{path}: images {self.images.shape} must be [N,H,W,3], at least {min_size} pixels "
                "a side"
            )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {"hr": self.images[index]}

    def name(self, index: int) -> str:
        """Return what logs and tables call the image."""
        return f"{index:06d}"


def open_npz(config, split: str, min_size: int) -> NpzSource | None:
    """Open `train_dir` or `valid_dir`; without one, validation takes the library's images."""
    path = config.train_dir if split == "train" else config.valid_dir
    return None if path is None else NpzSource(path, min_size)


NPZ = SourceKind(open_npz, needs=("train_dir",))
