"""Data: sources of images, pure transforms, and the grain pipeline."""

from flowsr_jax.data.config import DataConfig
from flowsr_jax.data.pipeline import Loader, make_loader, valid_pairs
from flowsr_jax.data.sources import EmbeddedSource, FolderSource, Source, make_source

__all__ = [
    "DataConfig",
    "EmbeddedSource",
    "FolderSource",
    "Loader",
    "Source",
    "make_loader",
    "make_source",
    "valid_pairs",
]
