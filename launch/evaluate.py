"""`flowsr evaluate` in a clone."""

import sys

from flowsr_jax.commands.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
