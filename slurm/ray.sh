# A Ray cluster of this job alone: a token and ports of its own, and a short directory, as its sockets need.
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
export RAY_AUTH_TOKEN=$(head --bytes=32 /dev/urandom | od --address-radix=n --format=x1 | tr --delete ' \n')
address=$(hostname --all-ip-addresses | cut --delimiter=' ' --fields=1)
port=$({{in_container}}{{python}} -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')
processors=$((SLURM_CPUS_ON_NODE > {{ranks_per_node}} ? SLURM_CPUS_ON_NODE : {{ranks_per_node}}))
ray_start="{{python}} -m ray.scripts.scripts start --block --num-cpus=$processors --num-gpus={{gpus_per_node}} \
  --object-store-memory=500000000 --min-worker-port=0 --max-worker-port=0 --dashboard-agent-listen-port=0"

srun --overlap --nodes=1 --ntasks=1 --nodelist="$SLURMD_NODENAME" --mpi=none {{in_step}}$ray_start \
  --head --node-ip-address="$address" --port="$port" --include-dashboard=false \
  --temp-dir="/tmp/ray-$SLURM_JOB_ID" >>"$run/logs/ray-head.log" 2>&1 &
head=$!
others=$((SLURM_JOB_NUM_NODES - 1))
if ((others > 0)); then
  srun --overlap --nodes="$others" --ntasks="$others" --ntasks-per-node=1 --exclude="$SLURMD_NODENAME" --mpi=none \
    {{in_step}}$ray_start --address="$address:$port" >>"$run/logs/ray-others.log" 2>&1 &
fi
{{in_container}}{{python}} -m launcher.backends.ray.cluster "$address:$port" "$SLURM_JOB_NUM_NODES" &
if ! wait -n; then  # for what ends first: the look whether all nodes are there, or a part of the cluster, too early
  echo "error: Ray did not start on all nodes; $run/logs/ray-*.log may say why"
  kill $(jobs -p)
  exit 1
fi

{{in_container}}{{python}} -m launcher.cli train "$run/submission/run.yaml" --run-directory "$run" \
  --backend ray --address "$address:$port" --ranks "$((SLURM_JOB_NUM_NODES * {{ranks_per_node}}))" &
driver=$!
{ tail --pid="$head" --follow /dev/null; echo "error: the head of the Ray cluster has died"; kill -KILL "$driver"; } &
watcher=$!
