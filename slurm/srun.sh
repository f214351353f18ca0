# In the background, so that bash hears signals while it runs. The same command goes on where an earlier start stopped.
{{python}} -m launcher.cli train "$run/submission/run.yaml" --run-directory "$run" \
  --backend slurm --ranks "$((SLURM_JOB_NUM_NODES * {{ranks_per_node}}))" &
driver=$!
