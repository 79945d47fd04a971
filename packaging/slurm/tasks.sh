#!/bin/sh
# A job array that trains the tasks of a list, a part of them in each array task:
#
#   sbatch --array=0-7 packaging/slurm/tasks.sh tasks.txt
#   PARTS=8 sbatch --array=3 packaging/slurm/tasks.sh tasks.txt     # part 3 of 8 again
#
# An array starts at 0. Finished tasks stay as they are, so a job can be submitted again at any time.
# Shortly before the time is up, and after `scancel --signal=USR1 JOB`, ptune saves its state and ends
# with exit code 75; then this script puts the array task back into the queue, at most RESTARTS times.
# Exit code 65 means that tasks are wrong; they are named in the job's output.
#SBATCH --job-name=ptune
#SBATCH --cpus-per-task=4
#SBATCH --mem=4G
#SBATCH --time=04:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -u
list=${1:?usage: sbatch --array=0-7 tasks.sh LIST [flags of ptune train]}
shift
code=0
srun ptune train --tasks "$list" --shards "${PARTS:-$SLURM_ARRAY_TASK_COUNT}" \
  --threads "${SLURM_CPUS_PER_TASK:-0}" "$@" || code=$?
if [ "$code" = 75 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt "${RESTARTS:-10}" ]; then
  exec scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
fi
exit "$code"
