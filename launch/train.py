"""Train a model; run the same command again to resume.

python launch/train.py --config=configs/x.py[:variant] [--workdir=runs/x]
    [--config.train.batch_size=4] [--config.train.phases.NAME.steps=100]
    [--init_encoder=RRDB.pth]

Exit status: 0 all done; 1 the steps diverged, or something could not be written; 2 nothing
could be done; 130 or 143 interrupted: saved, the same command goes on.
"""

import os
import sys

from absl import flags, logging
from ml_collections import config_flags

from flowsr_jax.config import ConfigError
from flowsr_jax.train.command import run_command
from flowsr_jax.train.config import resolve
from flowsr_jax.train.loop import train_and_evaluate
from flowsr_jax.train.mesh import initialize_distributed

_CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration file, perhaps :variant.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; default runs/<config name>.")
_INIT_ENCODER = flags.DEFINE_string(
    "init_encoder", None, "RRDB weights (run, model folder or official file) of the first phase."
)
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Join the other processes of a cluster.")
flags.mark_flag_as_required("config")


def main(argv: list[str], overrides: dict) -> None:
    if len(argv) > 1:
        raise ConfigError(f"unknown argument {argv[1]!r}")
    logging.set_verbosity(logging.FATAL)  # of orbax; what matters is reported by the loop
    if _DISTRIBUTED.value:
        initialize_distributed()
    if _INIT_ENCODER.value:
        first = {"init_from": _INIT_ENCODER.value, "init_groups": ("encoder",)}
        overrides |= {f"train.phases[0].{k}": v for k, v in first.items()}
    config = resolve(_CONFIG.value, overrides)
    train_and_evaluate(config, _WORKDIR.value or os.path.join("runs", config.name))


if __name__ == "__main__":
    run_command(main, sys.argv)
