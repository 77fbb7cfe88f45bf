"""The configuration of the data: where images come from and how they are cut."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from flowsr_jax.config import ConfigError, Count, Decay, Natural, NotNegative, check_ranges, choice
from flowsr_jax.data.degradations import DegradationConfig
from flowsr_jax.registry import Registry

ANGLES = (0, 90, 180, 270)
CHOSEN = ("train_dir", "train_lr_dir", "tfds_name", "textures")  # fields of some sources


@dataclasses.dataclass(frozen=True)
class SourceKind:
    """A value of `data.source`.

    Attributes:
      open: (config, split, min_size) -> Source of the images of "train" or "valid", none
        smaller than min_size pixels on a side; None for "valid" takes the images of
        `valid_dir`, or the embedded photographs.
      needs, reads: fields among CHOSEN that must be set, and that may be set.
    """

    open: Callable[[DataConfig, str, int], Any]
    needs: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()


SOURCES: Registry[SourceKind] = Registry("data source")
for _name in ("embedded", "folder", "paired", "tfds", "array_record", "digits"):
    SOURCES.register(_name, f"flowsr_jax.data.sources.make:{_name.upper()}")


def register_source(name: str, kind: SourceKind | str) -> None:
    """Add a value of `data.source`, or "module:attribute" of one, imported on first use.

    Raises:
      ValueError: the name is taken.
    """
    SOURCES.register(name, kind)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Sources and patches of a run.

    A folder option may also be a tuple of folders, whose images are then one set (DF2K is
    DIV2K and Flickr2K).  On the command line write the tuple as Python does:
    `--config.data.train_dir="('data/DIV2K_train_HR', 'data/Flickr2K_HR')"`; a comma without
    quotes and brackets is part of a name.

    Attributes:
      source: training images: "embedded" photographs (nothing to download); "folder" of HR
        images; "paired", folders of HR and of LR images; "tfds", a set prepared by
        tensorflow-datasets as array_record; "array_record", a folder written by
        `flowsr prepare-data`; "digits", the 8x8 handwritten digits in scikit-learn, with
        labels; or a name that `register_source` added.
      train_dir: HR images, searched recursively, or records.
      train_lr_dir: LR images of "paired", found by name: 0001.png or 0001x4.png.
      valid_dir: HR validation images, or records; None takes the split of "tfds" or
        "digits", else the embedded photographs.
      valid_lr_dir: LR images of valid_dir; without them they are made from the HR images.
      tfds_name: set and option, for example "div2k/bicubic_x4" or "cifar10".
      tfds_dir: its data_dir; None is $TFDS_DATA_DIR or ~/tensorflow_datasets.
      train_split, valid_split: splits of the tfds set; slices like "train[:90%]" too.
      scale: HR size over LR size, at least 1.
      degradation: how LR images are made where the source brings none; by default MATLAB's
        bicubic, at scale 1 the HR image itself.
      float_lr: training batches hold the bicubic LR image in float32 (in units of [0,1],
        neither rounded nor clipped) instead of its 8-bit version, as IRN is guided by.
      lr_blur: (lowest, highest) deviation in LR pixels of a blur of 3 taps that half of the
        training LR patches get (conditioning augmentation of cascades); (0, 0) is off.
      channels: 3, or 1 for the luminance; at scale 1 only.
      patch_size: side of the training patches in HR pixels, a multiple of `scale`.
      flips: mirror half of the patches left to right.
      rotations: rotate each patch by one of `angles`, drawn uniformly.
      angles: counter-clockwise degrees; SRFlow's released code draws from (0, 90, 270).
      color_permutations: give each patch one of the six orders of its colour channels,
        drawn uniformly; for training sets with few colours.
      shift: move each patch down and to the right by up to this share of its side (either
        sign, between pixels, the edge repeated), as the released Glow does; at scale 1 only.
      crops_per_image: patches cut from an image each time it is read.  They come in the
        same batch, whose size it must divide; more than 1 spares decoding large files.
      workers: processes that prepare batches; 0 uses one thread of this process.  Does not
        change the batches.
      cache_mib: decoded images kept in memory, per process, in MiB.
      textures: add the embedded grey pictures (stone, grass, coins, ...) to training.
    """

    source: str = "embedded"
    train_dir: str | tuple[str, ...] | None = None
    train_lr_dir: str | tuple[str, ...] | None = None
    valid_dir: str | tuple[str, ...] | None = None
    valid_lr_dir: str | tuple[str, ...] | None = None
    tfds_name: str | None = None
    tfds_dir: str | None = None
    train_split: str = "train"
    valid_split: str = "validation"
    scale: Count = 4
    degradation: DegradationConfig = DegradationConfig()
    float_lr: bool = False
    lr_blur: tuple[NotNegative, NotNegative] = (0.0, 0.0)
    channels: int = 3
    patch_size: Count = 96
    flips: bool = True
    rotations: bool = True
    angles: tuple[int, ...] = ANGLES
    color_permutations: bool = False
    shift: Decay = 0.0
    crops_per_image: Count = 1
    workers: Natural = 0
    cache_mib: Natural = 1024
    textures: bool = False

    def __post_init__(self):
        check_ranges(self)
        if self.source not in SOURCES:
            choice("source", self.source, SOURCES.names())
        if self.patch_size % self.scale:
            below = self.patch_size // self.scale * self.scale
            near = " or ".join(str(p) for p in (below, below + self.scale) if p)
            raise ConfigError(
                f"patch_size = {self.patch_size} must be a multiple of scale = {self.scale}; "
                f"take {near}"
            )
        if self.channels not in (1, 3):
            raise ConfigError(f"channels = {self.channels!r} must be 3 or 1")
        for field, used in (("channels", self.channels == 1), ("shift", self.shift > 0)):
            if used and (self.scale > 1 or not self.degradation.deterministic):
                raise ConfigError(
                    f"{field} = {getattr(self, field)!r} needs scale = 1, not {self.scale}, and no "
                    "degradation"
                )
        if self.channels == 1 and self.color_permutations:
            raise ConfigError("color_permutations = True needs channels = 3")
        if not self.angles or any(angle not in ANGLES for angle in self.angles):
            raise ConfigError(f"angles = {self.angles!r} must be some of {ANGLES}")
        if not isinstance(self.degradation, DegradationConfig):
            raise ConfigError(f"degradation = {self.degradation!r} must be a DegradationConfig")
        if self.float_lr and not self.degradation.deterministic:
            raise ConfigError("float_lr = True needs the bicubic degradation")
        if self.float_lr and self.train_lr_dir:
            raise ConfigError("float_lr = True needs LR images made from HR, not those of files")
        if len(self.lr_blur) != 2 or self.lr_blur[0] > self.lr_blur[1]:
            raise ConfigError(f"lr_blur = {self.lr_blur!r} must be (lowest, highest)")
        if self.degradation.kind == "palette" and (self.scale > 1 or self.color_permutations):
            raise ConfigError(
                f"degradation.kind = 'palette' needs scale = 1 (not {self.scale}), and its marks "
                "no color_permutations"
            )
        self._check_source()

    def folders(self, split: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the HR and the LR folders of a split ("train" or "valid"), empty if not set."""
        found = (getattr(self, f"{split}_dir"), getattr(self, f"{split}_lr_dir"))
        return tuple((v,) if isinstance(v, str) else tuple(v or ()) for v in found)

    def _check_source(self) -> None:
        for split in ("train", "valid"):
            hr, lr = self.folders(split)
            if lr and len(lr) != len(hr):
                raise ConfigError(
                    f"{split}_lr_dir names {len(lr)} folders, {split}_dir {len(hr)}: each HR "
                    "folder needs its LR folder"
                )
        kind = SOURCES.get(self.source)
        for field in CHOSEN:
            value = getattr(self, field)
            if field in kind.needs and not value:
                raise ConfigError(f"source = {self.source!r} needs {field}")
            if value and field not in (*kind.needs, *kind.reads):
                kinds = {name: SOURCES.get(name) for name in SOURCES.names()}
                readers = [name for name, k in kinds.items() if field in (*k.needs, *k.reads)]
                raise ConfigError(
                    f"{field} = {value!r} is not read by source = {self.source!r}, but by "
                    f"{', '.join(map(repr, readers))}"
                )
