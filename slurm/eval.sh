#!/usr/bin/env bash
# Evaluate on Slurm, one task per GPU. Submit from the repository's root:
#
#   sbatch slurm/eval.sh configs/mimic.yaml --run_dir runs/mimic
#   sbatch --nodes=2 --ntasks-per-node=4 --gpus-per-node=4 slurm/eval.sh configs/mimic.yaml
#   sbatch --array=0-7 slurm/eval.sh configs/mimic.yaml     eight independent jobs, one run directory
#
# Options of sbatch go before the script and override the lines below; everything after the config is passed to
# `cxr-faith evaluate`. To continue a run, submit the same line again; a requeued job continues by itself.
# CONTAINER=cxr_faith.sif runs in an Apptainer image built from slurm/cxr_faith.def instead of VENV (default .venv).
# slurm/README.md has sizes, variables and exit statuses.
#
#SBATCH --job-name=cxr-faith
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --output=slurm-%x-%j.out
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=USR2@120
set -euo pipefail

if [[ $# -lt 1 || $1 == -* ]]; then
  echo "usage: sbatch [sbatch options] slurm/eval.sh CONFIG [options of cxr-faith evaluate]" >&2
  exit 2
fi
if [[ ! -f $1 ]]; then
  echo "eval.sh: no config $1 in $PWD: submit from the repository's root" >&2
  exit 2
fi
if [[ -z ${SLURM_JOB_ID:-} ]]; then
  echo "eval.sh: not in a Slurm job: submit it with sbatch" >&2
  exit 2
fi
config=$1
shift

job=$SLURM_JOB_ID
shard=()
if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then
  if [[ $SLURM_ARRAY_TASK_MIN != 0 || $SLURM_ARRAY_TASK_COUNT != $((SLURM_ARRAY_TASK_MAX + 1)) ]]; then
    echo "eval.sh: the array must be 0-N; submit all of it again, finished tasks end at once" >&2
    exit 2
  fi
  # A task's SLURM_JOB_ID may be the array's, and requeueing that one requeues every task.
  job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
  shard=(--shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT")
fi

# Download the model before the job: compute nodes often have no network, and many ranks must not ask the hub at once.
export HF_HUB_OFFLINE=1
# Since Slurm 22.05 srun does not inherit --cpus-per-task from the job.
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"
export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"

launcher=()
if [[ -n ${CONTAINER:-} ]]; then
  launcher=(apptainer exec --nv "$CONTAINER")
else
  export PATH="${VENV:-$PWD/.venv}/bin:$PATH"
fi

# --kill-on-bad-exit: without it, the other ranks would wait at the end for one that died.
status=0
srun --kill-on-bad-exit=1 "${launcher[@]}" cxr-faith evaluate \
  --config "$config" --config configs/trainer/slurm.yaml \
  --trainer.num_nodes="$SLURM_JOB_NUM_NODES" --trainer.devices="${SLURM_NTASKS_PER_NODE:?give sbatch --ntasks-per-node}" \
  "${shard[@]}" "$@" || status=$?

# 75: stopped on request (the time limit is near, or scancel --signal=USR2), with work left.
# 140: the request (128 + USR2) came before a task was there to listen.
if [[ $status == 75 || $status == 140 ]]; then
  restarts=${SLURM_RESTART_COUNT:-0}
  if ((restarts >= ${MAX_RESTARTS:-50})); then
    echo "eval.sh: stopped with work left after $restarts restarts; submit the same line again to continue" >&2
  else
    echo "eval.sh: stopped with work left, back into the queue (restart $((restarts + 1)))" >&2
    scontrol requeue "$job" ||
      echo "eval.sh: this job may not be requeued; submit the same line again to continue" >&2
  fi
fi
exit "$status"
