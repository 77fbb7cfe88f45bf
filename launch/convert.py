"""`flowsr convert` in a clone."""

import sys

from flowsr_jax.commands.convert import main

if __name__ == "__main__":
    sys.exit(main())
