kill "$watcher"
scancel --signal=KILL "$SLURM_JOB_ID"  # only what srun started; Ray would take its leave for half a minute
srun --overlap --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --mpi=none \
  rm -rf "/tmp/ray-$SLURM_JOB_ID"
