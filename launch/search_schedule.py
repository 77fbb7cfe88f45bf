"""`flowsr search-schedule` in a clone."""

import sys

from flowsr_jax.commands.search_schedule import main

if __name__ == "__main__":
    sys.exit(main())
