"""`flowsr prepare-data` in a clone."""

import sys

from flowsr_jax.commands.prepare_data import main

if __name__ == "__main__":
    sys.exit(main())
