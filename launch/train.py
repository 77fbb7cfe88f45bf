"""`flowsr train` in a clone."""

import sys

from flowsr_jax.commands.train import main

if __name__ == "__main__":
    sys.exit(main())
