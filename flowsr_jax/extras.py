"""Packages that only some tasks need: which extra of the installation brings them."""

from __future__ import annotations

import importlib.util

# {module: extra of setup.cfg}.  Loading, sampling, editing, rescaling and converting need none.
EXTRAS = {
    "absl": "train",
    "array_record": "train",
    "grain": "train",
    "ml_collections": "train",
    "optax": "train",
    "orbax": "train",
    "skimage": "evaluate",
    "sklearn": "evaluate",
    "flatbuffers": "export",
    "tensorflow_datasets": "tfds",
    "matplotlib": "plot",
    "tensorboardX": "tensorboard",
}


class MissingPackage(ImportError):
    """A package that the task at hand needs is not installed; one line that says what to do."""

    status = 2  # of a command


def require(*modules: str) -> None:
    """Check, without importing them, that modules of `EXTRAS` are installed.

    Raises:
      MissingPackage: one is not; the error has the command that installs it.
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise MissingPackage(
                f'{module} is not installed: pip install "flowsr_jax[{EXTRAS[module]}]"'
            )
