"""`flowsr rescale` in a clone."""

import sys

from flowsr_jax.commands.rescale import main

if __name__ == "__main__":
    sys.exit(main())
