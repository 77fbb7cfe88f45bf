"""`python -m flowsr_jax COMMAND`: the command `flowsr` where it is not on the path."""

import sys

from flowsr_jax.commands import main

if __name__ == "__main__":
    sys.exit(main())
