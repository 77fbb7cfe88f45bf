"""`flowsr compile` in a clone."""

import sys

from flowsr_jax.commands.compile import main

if __name__ == "__main__":
    sys.exit(main())
