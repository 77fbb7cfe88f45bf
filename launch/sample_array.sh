#!/usr/bin/env bash
# Upscale a folder by a Slurm array of 16 tasks: sbatch launch/sample_array.sh IN OUT MODEL
#SBATCH --job-name=upscale --array=0-15 --gres=gpu:1 --cpus-per-task=4 --time=08:00:00
set -euo pipefail
python launch/sample.py -i "$1" -o "$2" -n "$3" \
    --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
