kill "$watcher"
# Only what srun started: a KILL for the whole job would cancel it. Ray would take its leave for half a minute.
for step in $(squeue --noheader --steps --jobs="$SLURM_JOB_ID" --format=%i | grep --extended-regexp '[.][0-9]+$'); do
  scancel --signal=KILL "$step"
done
srun --overlap --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --mpi=none \
  rm -rf "/tmp/ray-$SLURM_JOB_ID"
