#!/usr/bin/env bash
# Set up an environment and pass the tests.
#   bash launch/test.sh                 # lint, and the tests of a few minutes
#   bash launch/test.sh --runlong       # all but the slow ones, as CI
#   bash launch/test.sh --runslow       # everything
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/env.sh
make_env "${REQUIREMENTS:-requirements-dev.txt}"
export JAX_PLATFORMS=cpu
ruff check .
ty check
python -m pytest -n "${TEST_PROCESSES:-2}" --dist loadfile "$@"
