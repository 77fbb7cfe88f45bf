"""`flowsr ablate` in a clone."""

import sys

from flowsr_jax.commands.ablate import main

if __name__ == "__main__":
    sys.exit(main())
