"""From the configuration to its sources."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable

from flowsr_jax.config import ConfigError, choice
from flowsr_jax.data.config import SOURCES, DataConfig, SourceKind
from flowsr_jax.data.degradations import DegradationConfig
from flowsr_jax.data.sources import FolderSource, Source
from flowsr_jax.data.sources.array_records import ArrayRecordSource, is_records
from flowsr_jax.data.sources.catalog import missing_folder
from flowsr_jax.data.sources.digits import DigitsSource, GreySource
from flowsr_jax.data.sources.embedded import SPLITS, EmbeddedSource
from flowsr_jax.data.sources.mixture import Mixture
from flowsr_jax.data.sources.paired import PairedSource
from flowsr_jax.data.sources.tfds_source import TfdsSource


def make_source(config: DataConfig, split: str) -> Source:
    """Open the images of a split.

    Training images are those of `config.source`.  Validation images are the first of these
    that is set: `valid_dir` (records, or image files, paired where there is `valid_lr_dir`),
    the split of tfds or of the digits, the embedded photographs.

    Args:
      config: says where the images are; training images must hold a patch, validation
        images one LR pixel.
      split: "train" or "valid".

    Raises:
      ConfigError: another split, a set that is not there (the message says what to download
        and which option to set), or one without a usable image.
    """
    train = choice("split", split, SPLITS) == "train"
    min_size = config.patch_size if train else config.scale
    source = SOURCES.get(config.source).open(config, split, min_size)
    if source is None:
        source = _embedded(config, split, min_size)
    if "lr" in source.fields and config.degradation != DegradationConfig():
        raise ConfigError(
            f"degradation.kind = {config.degradation.kind!r} would not be used: the {split} images "
            "come with LR images of their own; take the default degradation, or HR images alone"
        )
    if config.channels == 1 and "lr" in source.fields:
        raise ConfigError("channels = 1 needs HR images alone; these come with LR images")
    return GreySource(source) if config.channels == 1 else source


def _folders(config: DataConfig, split: str, min_size: int, kind: str = "") -> Source | None:
    """Open the folders of a split: image files, records or pairs; None if there are none."""
    folders, lr_folders = config.folders(split)
    for option, paths in ((f"data.{split}_dir", folders), (f"data.{split}_lr_dir", lr_folders)):
        for path in paths:
            if not os.path.isdir(path):
                raise ConfigError(missing_folder(path, option))
    parts = []
    for folder, lr_folder in itertools.zip_longest(folders, lr_folders):
        cache_mib = config.cache_mib // len(folders)
        if lr_folder:
            parts.append(
                PairedSource(folder, lr_folder, config.scale, min_size, cache_mib=cache_mib)
            )
        elif kind == "array_record" or (not kind and is_records(folder)):
            parts.append(ArrayRecordSource(folder, config.scale, min_size, cache_mib=cache_mib))
        else:
            parts.append(FolderSource(folder, min_size, cache_mib=cache_mib))
    return Mixture(parts) if len(parts) > 1 else next(iter(parts), None)


def _train_folders(kind: str) -> Callable[[DataConfig, str, int], Source | None]:
    def open_source(config, split, min_size):
        return _folders(config, split, min_size, kind) if split == "train" else None

    return open_source


def _embedded(config: DataConfig, split: str, min_size: int) -> Source:
    found = _folders(config, split, min_size)
    return found or EmbeddedSource(split, min_size, textures=config.textures)


def _digits(config: DataConfig, split: str, min_size: int) -> Source:
    return _folders(config, split, min_size) or DigitsSource(split, min_size)


def _tfds(config: DataConfig, split: str, min_size: int) -> Source:
    return _folders(config, split, min_size) or TfdsSource(
        config.tfds_name,
        config.train_split if split == "train" else config.valid_split,
        data_dir=config.tfds_dir,
        scale=config.scale,
        min_size=min_size,
        cache_mib=config.cache_mib,
    )


EMBEDDED = SourceKind(_embedded, reads=("textures",))
FOLDER = SourceKind(_train_folders("folder"), needs=("train_dir",))
PAIRED = SourceKind(_train_folders("paired"), needs=("train_dir", "train_lr_dir"))
ARRAY_RECORD = SourceKind(_train_folders("array_record"), needs=("train_dir",))
TFDS = SourceKind(_tfds, needs=("tfds_name",))
DIGITS = SourceKind(_digits)
