"""Train a model.

    python launch/train.py --config=configs/x.py[:variant] [--workdir=runs/x]
        [--config.train.batch_size=4] [--config.train.phases.NAME.steps=100]

Run the same command again to resume.  SIGTERM and SIGINT save and leave with status 143
and 130.
"""

import os
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from flowsr_jax.config import ConfigError
from flowsr_jax.io.images import ImageError
from flowsr_jax.train.checkpoint import CheckpointError
from flowsr_jax.train.config import resolve
from flowsr_jax.train.loop import Interrupted, TrainingDiverged, train_and_evaluate
from flowsr_jax.train.mesh import initialize_distributed
from flowsr_jax.train.overrides import split_overrides

_CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration file, perhaps :variant.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; default runs/<config name>.")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Join the other processes of a cluster.")


def main(argv: list[str], overrides: dict) -> None:
    if len(argv) > 1:
        raise ConfigError(f"unknown argument {argv[1]!r}")
    if _CONFIG.value is None:
        raise ConfigError("--config=configs/x.py is missing")
    logging.set_verbosity(logging.FATAL)  # of orbax; what matters is reported by the loop
    if _DISTRIBUTED.value:
        initialize_distributed()
    config = resolve(_CONFIG.value, overrides)
    train_and_evaluate(config, _WORKDIR.value or os.path.join("runs", config.name))


def run(argv: list[str]) -> None:
    """Call main; a user's mistake becomes one line on stderr."""
    rest, overrides = split_overrides(argv)
    sys.argv = rest  # config_flags looks there for overrides of its own
    named = [a.partition("=")[2].partition(":")[0] for a in rest if a.startswith("--config=")]
    if named and not os.path.isfile(named[0]):
        sys.exit(f"error: --config={named[0]}: no such file")
    try:
        app.run(lambda args: main(args, overrides), argv=rest)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        raise
    except (ConfigError, CheckpointError, ImageError, TrainingDiverged) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    run(sys.argv)
