#!/usr/bin/env bash
# Train on the GPUs of a Slurm cluster:
#   sbatch [--nodes=N ...] launch/slurm.sh --config=configs/x.py --workdir=/shared/runs/x [...]
# One task per GPU: jax finds coordinator, number and index in Slurm's variables and gives each
# task the GPU of its local index (so no --gpus-per-task, which would hide the others).
# The workdir must be a folder that all nodes see; PYTHON names an interpreter.
#SBATCH --job-name=flowsr
#SBATCH --nodes=1
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# SIGTERM two minutes before the time is over: the run saves and leaves with 143.
#SBATCH --signal=TERM@120
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?this is for sbatch}"
status=0
# A task that dies takes the others with it: they could only wait for it.
srun --kill-on-bad-exit=1 "${PYTHON:-python}" -u launch/train.py --distributed "$@" || status=$?
if [ "$status" = 143 ]; then
  echo "saved before the end of the time limit; queued again to resume"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
