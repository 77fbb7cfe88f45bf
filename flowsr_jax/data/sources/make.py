"""From the configuration to its sources."""

from __future__ import annotations

import itertools
import os

from flowsr_jax.config import ConfigError, choice
from flowsr_jax.data.config import DataConfig
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
    folders, lr_folders = config.folders(split)
    if config.source == "tfds" and not folders:
        source = TfdsSource(
            config.tfds_name,
            config.train_split if train else config.valid_split,
            data_dir=config.tfds_dir,
            scale=config.scale,
            min_size=min_size,
            cache_mib=config.cache_mib,
        )
    elif config.source == "digits" and not folders:
        source = DigitsSource(split, min_size)
    elif not folders:
        source = EmbeddedSource(split, min_size, textures=config.textures)
    else:
        for option, paths in ((f"data.{split}_dir", folders), (f"data.{split}_lr_dir", lr_folders)):
            for path in paths:
                if not os.path.isdir(path):
                    raise ConfigError(missing_folder(path, option))
        cache_mib = config.cache_mib // len(folders)
        parts = [
            _open(config, split, folder, lr_folder, min_size, cache_mib)
            for folder, lr_folder in itertools.zip_longest(folders, lr_folders)
        ]
        source = parts[0] if len(parts) == 1 else Mixture(parts)
    if "lr" in source.fields and config.degradation != DegradationConfig():
        raise ConfigError(
            f"degradation.kind = {config.degradation.kind!r} would not be used: the {split} images "
            "come with LR images of their own; take the default degradation, or HR images alone"
        )
    if config.channels == 1 and "lr" in source.fields:
        raise ConfigError("channels = 1 needs HR images alone; these come with LR images")
    return GreySource(source) if config.channels == 1 else source


def _open(
    config: DataConfig,
    split: str,
    folder: str,
    lr_folder: str | None,
    min_size: int,
    cache_mib: int,
) -> Source:
    records = config.source == "array_record" if split == "train" else is_records(folder)
    if records and not lr_folder:
        return ArrayRecordSource(folder, config.scale, min_size, cache_mib=cache_mib)
    if lr_folder:
        return PairedSource(folder, lr_folder, config.scale, min_size, cache_mib=cache_mib)
    return FolderSource(folder, min_size, cache_mib=cache_mib)
