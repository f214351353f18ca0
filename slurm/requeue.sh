
# 75: stopped with a checkpoint; 138: asked to stop before training had begun. Back into the queue, unless a person
# stopped the run (`longformer stop` leaves a file, scancel another state than RUNNING). In an array, this task alone.
if [[ $code == 75 || $code == 138 ]] && [[ ! -e $run/stop ]]; then
  job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
  job=${job:-$SLURM_JOB_ID}
  for _ in {1..12}; do  # the controller may be away for a moment
    state=$(squeue --noheader --jobs="$job" --format=%T) && break
    sleep 5
  done
  if [[ $state == RUNNING ]]; then
    echo "back into the queue"
    scontrol requeue "$job"
    sleep 60  # until Slurm ends this start
  else
    echo "left to Slurm, which calls the job ${state:-nothing: its controller does not answer}"
  fi
fi
