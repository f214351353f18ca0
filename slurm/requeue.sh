
# 75: stopped with a checkpoint; 138: asked to stop before training had begun. Back into the queue, unless a person
# stopped the run (`longformer stop` leaves a file, scancel another state than RUNNING). In an array, this task alone.
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-$SLURM_JOB_ID}
if [[ $code == 75 || $code == 138 ]] && [[ ! -e $run/stop ]] \
  && [[ $(squeue --noheader --jobs="$job" --format=%T) == RUNNING ]]; then
  echo "back into the queue"
  scontrol requeue "$job"
  sleep 60  # until Slurm ends this start
fi
