"""What `flowsr prepare-data` does: tfds sets from archives, records from images."""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from flowsr_jax.config import ConfigError
from flowsr_jax.console import Bar
from flowsr_jax.data.sources import FolderSource, Source
from flowsr_jax.data.sources.catalog import advice, missing_folder
from flowsr_jax.data.sources.paired import PairedSource
from flowsr_jax.data.sources.record_writer import Summary, write_records
from flowsr_jax.data.sources.tfds_source import INFO, TfdsSource, data_folder, find_prepared
from flowsr_jax.extras import require


def prepare_tfds(name: str, data_dir: str | None = None, manual_dir: str | None = None) -> Path:
    """Run the builder of a set, unless it is prepared already; needs TensorFlow.

    Files in the manual folder under their official names are taken instead of a download.

    Args:
      name: set and option, for example "div2k/bicubic_x4".
      data_dir: where sets are; None is $TFDS_DATA_DIR or ~/tensorflow_datasets.
      manual_dir: archives that were downloaded by hand; None is data_dir/downloads/manual.

    Returns:
      the folder of the prepared set.

    Raises:
      ConfigError: no such set, TensorFlow is not installed, the set is there in another
        format, or the builder failed.
    """
    root = data_folder(data_dir)
    if any((root / name.partition(":")[0]).glob(f"*/{INFO}")):
        return find_prepared(name, str(root))
    if manual_dir and not os.path.isdir(manual_dir):
        raise ConfigError(f"manual_dir = {manual_dir!r} is not a folder")
    if importlib.util.find_spec("tensorflow") is None:
        raise ConfigError(
            "preparing a tfds set needs TensorFlow (reading it does not): pip install "
            "tensorflow-cpu, here or on another machine, and copy the prepared folder"
        )
    require("tensorflow_datasets")
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=root, file_format="array_record")
        if builder.builder_configs and "/" not in name:
            raise ValueError(f"it has the options {', '.join(builder.builder_configs)}; name one")
        config = tfds.download.DownloadConfig(manual_dir=manual_dir, try_download_gcs=False)
        builder.download_and_prepare(download_config=config)
    except (Exception, SystemExit) as error:  # registry, network, checksums, archives, builders
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(
            f"{name!r} could not be prepared in {root}: {reason}. {advice(name)}".rstrip()
        ) from error
    return find_prepared(name, str(root))


def open_input(
    folder: str | None = None,
    *,
    lr_folder: str | None = None,
    scale: int | None = None,
    tfds: str | None = None,
    split: str = "train",
    data_dir: str | None = None,
) -> Source:
    """Open what records are to be made of: a folder, a pair of folders, or a tfds split.

    Files are not decoded here; the writer checks each as it comes.

    Raises:
      ConfigError: it is not there, or it cannot be opened.
    """
    if tfds:
        return TfdsSource(tfds, split, data_dir=data_dir, scale=scale, cache_mib=0)
    for path, option in ((folder, "INPUT"), (lr_folder, "--lr-dir")):
        if path is not None and not os.path.isdir(path):
            raise ConfigError(missing_folder(path, option))
    if lr_folder:
        return PairedSource(folder, lr_folder, scale, cache_mib=0, check=False)
    return FolderSource(folder, cache_mib=0, check=False)


def prepare_records(source: Source, folder: str | os.PathLike, **options: Any) -> Summary:
    """Run `write_records` with a progress bar (on a terminal) and a line per image left out.

    Args:
      source, folder, options: as in `write_records`.
    """
    bar = Bar(None) if sys.stdout.isatty() else None
    try:
        return write_records(
            source,
            folder,
            message=bar.print if bar else functools.partial(print, flush=True),
            advance=bar.advance if bar else lambda done, total: None,
            **options,
        )
    finally:
        if bar:
            bar.stop()
