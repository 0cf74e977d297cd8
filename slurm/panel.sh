#!/usr/bin/env bash
# The panel of checkpoints on Slurm. Submit from the repository's root:
#
#   sbatch slurm/panel.sh                                      all checkpoints on one GPU
#   sbatch --array=0-4 slurm/panel.sh                          a job for each checkpoint of benchmarks/panel.yaml
#   sbatch --gpus-per-node=0 slurm/panel.sh --trainer.accelerator cpu --trainer.devices 2 --trainer.strategy ddp
#
# What follows the script is passed to benchmarks/panel.py. To continue, submit the same line again; a job that its time
# limit stops goes back into the queue by itself. `python benchmarks/panel.py --tables` prints the tables in the end.
#
#SBATCH --job-name=cxr-faith-panel
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
#SBATCH --output=slurm-%x-%j.out
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=USR2@120
set -euo pipefail

if [[ ! -f benchmarks/panel.py ]]; then
  echo "panel.sh: no benchmarks/panel.py in $PWD: submit from the repository's root" >&2
  exit 2
fi
if [[ -z ${SLURM_JOB_ID:-} ]]; then
  echo "panel.sh: not in a Slurm job: submit it with sbatch" >&2
  exit 2
fi
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"
export HF_HUB_OFFLINE=1
export PATH="${VENV:-$PWD/.venv}/bin:$PATH"

job=$SLURM_JOB_ID
part=()
if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then
  job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
  part=(--number "$SLURM_ARRAY_TASK_ID")
fi
device=(--trainer.accelerator gpu --trainer.devices 1 --trainer.strategy auto)

status=0
srun --kill-on-bad-exit=1 python benchmarks/panel.py "${part[@]}" "${device[@]}" "$@" || status=$?

# 75: stopped on request with work left. 140: the request came before a task was there to listen.
if [[ $status == 75 || $status == 140 ]]; then
  if ((${SLURM_RESTART_COUNT:-0} >= ${MAX_RESTARTS:-50})); then
    echo "panel.sh: stopped with work left; submit the same line again to continue" >&2
  else
    scontrol requeue "$job" || echo "panel.sh: this job may not be requeued; submit the same line again" >&2
  fi
fi
exit "$status"
