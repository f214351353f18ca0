kill "$watcher"
scancel --signal=KILL "$SLURM_JOB_ID"  # only what srun started; Ray would take its leave for half a minute
