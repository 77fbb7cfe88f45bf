"""The configuration of the data: where images come from and how they are cut."""

from __future__ import annotations

import dataclasses

from flowsr_jax.config import ConfigError, choice

SOURCES = ("embedded", "folder")
ANGLES = (0, 90, 180, 270)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Sources and patches of a run.

    Attributes:
      source: training images: "embedded" photographs (nothing to download) or "folder".
      train_dir: folder of HR images, searched recursively; needed by "folder".
      valid_dir: folder of HR validation images; None takes the embedded ones.
      scale: HR size over LR size, at least 1.
      patch_size: side of the training patches in HR pixels, a multiple of `scale`.
      flips: mirror half of the patches left to right.
      rotations: rotate each patch by one of `angles`, drawn uniformly.
      angles: counter-clockwise degrees; SRFlow's released code draws from (0, 90, 270).
      color_permutations: give each patch one of the six orders of its colour channels,
        drawn uniformly; for training sets with few colours.
      crops_per_image: patches cut from an image each time it is read.  They come in the
        same batch, whose size it must divide; more than 1 spares decoding large files.
      workers: processes that prepare batches; 0 uses one thread of this process.  Does not
        change the batches.
      cache_mib: decoded images kept in memory, per process, in MiB.
      textures: add the embedded grey pictures (stone, grass, coins, ...) to training.
    """

    source: str = "embedded"
    train_dir: str | None = None
    valid_dir: str | None = None
    scale: int = 4
    patch_size: int = 96
    flips: bool = True
    rotations: bool = True
    angles: tuple[int, ...] = ANGLES
    color_permutations: bool = False
    crops_per_image: int = 1
    workers: int = 0
    cache_mib: int = 1024
    textures: bool = False

    def __post_init__(self):
        choice("source", self.source, SOURCES)
        for field, least in (
            ("scale", 1),
            ("patch_size", 1),
            ("crops_per_image", 1),
            ("workers", 0),
            ("cache_mib", 0),
        ):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"{field} = {value!r} must be an integer of at least {least}")
        if self.patch_size % self.scale:
            below = self.patch_size // self.scale * self.scale
            near = " or ".join(str(p) for p in (below, below + self.scale) if p)
            raise ConfigError(
                f"patch_size = {self.patch_size} must be a multiple of scale = {self.scale}; "
                f"take {near}"
            )
        if not self.angles or any(angle not in ANGLES for angle in self.angles):
            raise ConfigError(f"angles = {self.angles!r} must be some of {ANGLES}")
        if self.source == "folder" and not self.train_dir:
            raise ConfigError("source = 'folder' needs train_dir, a folder of images")
        if self.source == "embedded" and self.train_dir:
            raise ConfigError(f"train_dir = {self.train_dir!r} needs source = 'folder'")
        if self.textures and self.source != "embedded":
            raise ConfigError("textures = True needs source = 'embedded'")
