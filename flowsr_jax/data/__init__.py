"""Data: sources of images, pure transforms, and the grain pipeline."""

from flowsr_jax.data.config import DataConfig
from flowsr_jax.data.pipeline import Loader, make_loader, valid_pairs
from flowsr_jax.data.sources import EmbeddedSource, FolderSource, Source, make_source
from flowsr_jax.data.sources.array_records import ArrayRecordSource
from flowsr_jax.data.sources.mixture import Mixture
from flowsr_jax.data.sources.paired import PairedSource
from flowsr_jax.data.sources.tfds_source import TfdsSource

__all__ = [
    "ArrayRecordSource",
    "DataConfig",
    "EmbeddedSource",
    "FolderSource",
    "Loader",
    "Mixture",
    "PairedSource",
    "Source",
    "TfdsSource",
    "make_loader",
    "make_source",
    "valid_pairs",
]
