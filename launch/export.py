"""`flowsr export` in a clone."""

import sys

from flowsr_jax.commands.export import main

if __name__ == "__main__":
    sys.exit(main())
