"""`flowsr cascade` in a clone."""

import sys

from flowsr_jax.commands.cascade import main

if __name__ == "__main__":
    sys.exit(main())
