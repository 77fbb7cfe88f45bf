"""Compile a run's programs for TPUs without having one; print what they need and cost.

python launch/compile.py --config=configs/x.py[:variant] --topology=v5e:4x4[,v6e:2x4]
    [--global_batch=64] [--what=step,sampler] [--phase=NAME] [--largest_batch]
    [--config.model...=...] [--output=FOLDER]

Needs libtpu (pip install libtpu), but no TPU.  With --output every program becomes a JSON
file in that folder and a row of its table.md; a program that is there is not compiled again.
"""

import os
import sys

# Read by libtpu when it is loaded: no look-up of the machine it is on, several at once.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")

from absl import flags  # noqa: E402
from ml_collections import config_flags  # noqa: E402

from flowsr_jax.aot.run import compile_run  # noqa: E402
from flowsr_jax.config import ConfigError  # noqa: E402
from flowsr_jax.train.command import run_command  # noqa: E402
from flowsr_jax.train.config import resolve  # noqa: E402

_CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration file, perhaps :variant.")
_TOPOLOGY = flags.DEFINE_list("topology", None, "Chips, e.g. v5e:4x4, separated by commas.")
_BATCH = flags.DEFINE_integer("global_batch", None, "Examples of a step; default: the config's.")
_WHAT = flags.DEFINE_list("what", ["step", "sampler"], "Programs: step, sampler or both.")
_PHASE = flags.DEFINE_string("phase", None, "Phase of the step; default: the last.")
_LARGEST = flags.DEFINE_bool("largest_batch", False, "Search the largest batch that fits too.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder of rows and their table.", short_name="o")
flags.mark_flags_as_required(["config", "topology"])


def main(argv: list[str], overrides: dict) -> None:
    if len(argv) > 1:
        raise ConfigError(f"unknown argument {argv[1]!r}")
    if _BATCH.value is not None:
        overrides |= {"train.batch_size": _BATCH.value}
    config = resolve(_CONFIG.value, overrides)
    compile_run(
        config,
        _TOPOLOGY.value,
        _WHAT.value,
        phase=_PHASE.value,
        largest=_LARGEST.value,
        output=_OUTPUT.value,
    )


if __name__ == "__main__":
    run_command(main, sys.argv)
