"""`flowsr sample` in a clone."""

import sys

from flowsr_jax.commands.sample import main

if __name__ == "__main__":
    sys.exit(main())
