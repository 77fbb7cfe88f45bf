#!/usr/bin/env bash
# Set up an environment and train a small SRFlow 4x on the photographs embedded in
# installed packages.  Two cores and under ten minutes; nothing else is downloaded.
#   bash launch/quickstart.sh [more flags of launch/train.py]
set -euo pipefail
cd "$(dirname "$0")/.."
start=$SECONDS
source launch/env.sh
make_env requirements.txt
export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}
python launch/train.py --config=configs/srflow_quickstart.py --workdir=runs/quickstart "$@"
echo
cat runs/quickstart/result.md
echo
echo "picture sheet: $(ls -t runs/quickstart/sheets/*.png | head -n 1)"
echo "checkpoint:    runs/quickstart   (flowsr_jax.load takes it)"
echo "upscale files: python launch/sample.py -i FILE_OR_FOLDER -o OUT -n runs/quickstart"
echo "total time:    $(((SECONDS - start) / 60)) min $(((SECONDS - start) % 60)) s"
