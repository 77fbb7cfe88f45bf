"""Variables of TensorFlow checkpoints (PREFIX.index, PREFIX.data-00000-of-00001).

TensorFlow reads them where it is installed.  Elsewhere an .npz of the variables does.
"""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

import numpy as np

from flowsr_jax.io.torch_pickle import WeightsFileError

AVERAGE = "/ExponentialMovingAverage"
# What OpenAI's optimisers keep beside the weights; docs/papers/glow.md section 5.
SLOT = re.compile(r"Variable(_\d+)?")
DATA = r"data-\d{5}-of-\d{5}"


def checkpoint_prefix(path: str | os.PathLike) -> str | None:
    """Return the prefix of the checkpoint that a path means, or None."""
    path = os.fspath(path)
    if os.path.isfile(path):
        found = re.fullmatch(rf"(.+)\.(index|meta|{DATA})", path, re.DOTALL)
        path = found[1] if found else ""
    return path if os.path.isfile(f"{path}.index") else None


def checkpoint_files(prefix: str) -> list[Path]:
    """Return the files that hold the variables: PREFIX.index, then PREFIX.data-*."""
    index = Path(f"{prefix}.index")
    data = re.compile(rf"{re.escape(Path(prefix).name)}\.{DATA}")
    return [index, *sorted(file for file in index.parent.iterdir() if data.fullmatch(file.name))]


def read_checkpoint(
    path: str | os.PathLike, report=None, *, averages: bool = False
) -> dict[str, np.ndarray]:
    """Read the variables of a TensorFlow checkpoint; needs TensorFlow.

    The optimiser's own variables are left out.

    Args:
      path: the prefix (model_best_loss.ckpt), or one of the files.
      report: receives a line that says what was left out.
      averages: take each variable's moving average in its place, where there is one.
        `flowsr_jax.from_torch(read_checkpoint(path, averages=True), n_bits=5)`.

    Returns:
      {variable: array}, sorted by name, dtypes as stored.

    Raises:
      FileNotFoundError: there is no such checkpoint.
      WeightsFileError: a damaged one, TensorFlow is not installed, or no averages.
    """
    prefix = checkpoint_prefix(path)
    if prefix is None:
        raise FileNotFoundError(f"{path}: no TensorFlow checkpoint ({path}.index is not there)")
    if importlib.util.find_spec("tensorflow") is None:
        raise WeightsFileError(
            f"{path}: is a TensorFlow checkpoint: pip install tensorflow-cpu, or convert the "
            "variables once where TensorFlow is, import numpy as np, tensorflow as tf; "
            f"r = tf.train.load_checkpoint({os.path.basename(prefix)!r}); np.savez('weights.npz', "
            "**{n: r.get_tensor(n) for n in r.get_variable_to_shape_map()}), and take weights.npz"
        )
    import tensorflow as tf

    try:
        reader = tf.train.load_checkpoint(prefix)
        names = sorted(reader.get_variable_to_shape_map())
        averaged = [name for name in names if name.endswith(AVERAGE)]
        slots = [name for name in names if SLOT.fullmatch(name)]
        if averages and not averaged:
            raise WeightsFileError(f"{prefix}: holds no averages (no name ends in {AVERAGE})")
        source = {name: name for name in names if name not in {*averaged, *slots}}
        if averages:
            source |= {name.removesuffix(AVERAGE): name for name in averaged}
        found = {name: np.asarray(reader.get_tensor(stored)) for name, stored in source.items()}
    except WeightsFileError:
        raise
    except Exception as error:  # of damaged files TensorFlow raises nearly anything
        raise WeightsFileError(
            f"{prefix}: damaged TensorFlow checkpoint ({' '.join(str(error).split())[:200]})"
        ) from None
    if report is not None and len(found) < len(names):
        unused = 0 if averages else len(averaged)
        report(f"left out {len(slots)} variables of the optimiser and {unused} averages")
    return found
