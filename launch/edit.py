"""`flowsr edit` in a clone."""

import sys

from flowsr_jax.commands.edit import main

if __name__ == "__main__":
    sys.exit(main())
