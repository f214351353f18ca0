#!/usr/bin/env bash
# Starts a real Slurm of several virtual nodes on this machine; needs root, Slurm, munge, iproute2 and util-linux.
#
# Every node is a box: network, host name, process table, IPC and mounts of its own; the file system is shared, as on a
# cluster. No box has a way out of the machine. The controller is a box too; clients reach it through wrappers.
#
#   testbed_up.sh DIRECTORY       DIRECTORY/bin holds sbatch, squeue, ..., and the commands testbed-kill NAME (a power cut),
#                                 testbed-start NAME, testbed-network NAME up|down, testbed-enter NAME COMMAND...
#   testbed_down.sh DIRECTORY     stops exactly what this started, and removes the directory
#
# The name of the directory names everything, so several testbeds may run at once; it must be readable by all users.
# When the process that called this ends, however it ends, the testbed is taken down.
set -euo pipefail
R=$1; NODES=3; CPUS=8; MEMORY=16000; NETWORK=10.78.0
C=$R/slurm.conf
export PATH=$PATH:/usr/sbin:/sbin
die() { echo "testbed: $*" >&2; exit 1; }
setsid bash -c 'tail --pid="$0" --follow /dev/null; exec bash "$@"' "$PPID" "$(dirname "$0")/testbed_down.sh" "$R" \
  </dev/null >/dev/null 2>&1 &

# directories and configuration
umask 022
mkdir -p "$R"/{bin,bin-box,log,pid,state,spool,etc}; chmod 755 "$R" "$R"/*
install -d -m 700 "$R/munge-key"; install -d -m 755 "$R/munge"
[ -s "$R/munge-key/munge.key" ] || { (umask 077; head -c 1024 /dev/urandom >"$R/munge-key/munge.key"); chmod 400 "$R/munge-key/munge.key"; }

nodes=(); for i in $(seq 1 "$NODES"); do nodes+=("n$i"); done
addr() { case $1 in ctl) echo "$NETWORK.1";; n*) echo "$NETWORK.$((10 + ${1#n}))";; esac; }

{ echo "127.0.0.1 localhost"; echo "$(addr ctl) ctl"; for n in "${nodes[@]}"; do echo "$(addr "$n") $n"; done; } >"$R/etc/hosts"
: >"$R/etc/resolv.conf"

cat >"$C.new" <<EOC
ClusterName=testbed
SlurmctldHost=ctl($(addr ctl))
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$R/munge/munge.socket
CredType=cred/munge
SlurmctldPort=6817
SlurmdPort=6818
StateSaveLocation=$R/state
SlurmdSpoolDir=$R/spool/%n
SlurmctldPidFile=$R/pid/slurmctld.inner
SlurmdPidFile=$R/pid/slurmd.%n.inner
SlurmctldLogFile=$R/log/slurmctld.log
SlurmdLogFile=$R/log/slurmd.%n.log
SlurmctldDebug=info
SlurmdDebug=info
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
MailProg=/bin/true
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=100
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$R/log/jobcomp.txt
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,bf_interval=5,sched_interval=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PriorityType=priority/basic
JobRequeue=1
EnforcePartLimits=ALL
ReturnToService=2
SlurmdTimeout=10
SlurmctldTimeout=20
InactiveLimit=0
KillWait=20
MinJobAge=3600
Waittime=0
EOC
for n in "${nodes[@]}"; do
  echo "NodeName=$n NodeAddr=$(addr "$n") CPUs=$CPUS RealMemory=$MEMORY State=UNKNOWN" >>"$C.new"
done
cat >>"$C.new" <<EOC
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=10 State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=spot Nodes=ALL MaxTime=60 DefaultTime=10 State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=30
PartitionName=closed Nodes=ALL MaxTime=60 State=UP AllowAccounts=physics
EOC
mv "$C.new" "$C"
printf 'CgroupAutomount=no\n' >"$R/cgroup.conf"

# network namespaces
ns() { echo "$(basename "$R")-$1"; }
if ! [ -e "/run/netns/$(ns ctl)" ]; then
  ip netns add "$(ns ctl)"; ip -n "$(ns ctl)" link set lo up
  ip -n "$(ns ctl)" link add br0 type bridge; ip -n "$(ns ctl)" addr add "$(addr ctl)/24" dev br0; ip -n "$(ns ctl)" link set br0 up
fi
for n in "${nodes[@]}"; do
  [ -e "/run/netns/$(ns "$n")" ] && continue
  ip netns add "$(ns "$n")"; ip -n "$(ns "$n")" link set lo up
  ip link add "p-$n" netns "$(ns ctl)" type veth peer name eth0 netns "$(ns "$n")"
  ip -n "$(ns ctl)" link set "p-$n" master br0; ip -n "$(ns ctl)" link set "p-$n" up
  ip -n "$(ns "$n")" addr add "$(addr "$n")/24" dev eth0; ip -n "$(ns "$n")" link set eth0 up
done

# helper commands
cat >"$R/bin/testbed-library.sh" <<EOC
R=$R; export SLURM_CONF=$C
nsname() { echo "$(basename "$R")-\$1"; }
# a pid file holds "pid starttime": a recycled pid is never taken for ours
starttime() { sed 's/.*) //' "/proc/\$1/stat" 2>/dev/null | cut -d' ' -f20; }
record() { echo "\$1 \$(starttime "\$1")" >"\$2"; }
alive() { local p s; [ -s "\$1" ] && read -r p s <"\$1" && [ -n "\$s" ] && [ "\$(starttime "\$p")" = "\$s" ] && [ "\$(sed 's/.*) //' /proc/\$p/stat 2>/dev/null | cut -c1)" != Z ]; }
pid_of() { local p s; read -r p s <"\$1"; echo "\$p"; }
# a box's pid file names its "unshare" process; pid 1 of the box is unshare's only child
box_init() { local p; alive "\$R/pid/\$1.pid" && p=\$(pid_of "\$R/pid/\$1.pid") && [ "\$(cat /proc/\$p/comm)" = unshare ] && tr -d ' ' <"/proc/\$p/task/\$p/children" | grep .; }
stop_box() { # name, signal for pid 1 of the box, seconds to wait before KILL (unshare --kill-child: nothing of the box survives)
  local i c; c=\$(box_init "\$1") && kill -"\$2" "\$c" 2>/dev/null
  for i in \$(seq 1 \$((\$3 * 10))); do alive "\$R/pid/\$1.pid" || break; sleep 0.1; done
  stop_pid "\$R/pid/\$1.pid" KILL 1
  return 0; }
stop_pid() { # file, signal, seconds to wait before KILL
  local f=\$1 p i; [ -s "\$f" ] || return 0
  if alive "\$f"; then p=\$(pid_of "\$f"); kill -"\$2" "\$p" 2>/dev/null || :
    for i in \$(seq 1 \$((\$3 * 10))); do alive "\$f" || break; sleep 0.1; done
    alive "\$f" && kill -KILL "\$p" 2>/dev/null; for i in \$(seq 1 50); do alive "\$f" || break; sleep 0.1; done; fi
  rm -f "\$f"; }
EOC
cat >"$R/bin/testbed-box" <<'EOC'
#!/bin/bash
# pid 1 of a box: private /etc/hosts; runs one daemon and reaps orphans. (inside: net+mnt+uts+ipc+pid namespaces)
name=$1; shift; . "$(dirname "$0")/testbed-library.sh"
hostname "$name"
mount --bind "$R/etc/hosts" /etc/hosts; mount --bind "$R/etc/resolv.conf" /etc/resolv.conf
mount --bind "$R/bin-box" "$R/bin"   # jobs inherit PATH from the submitter: inside a box the wrappers are the plain clients
cover() { # directory, mode: gives the box a directory of its own, with the directories inside that are there now
  cd "$1"; mount -t tmpfs -o mode="$2" tmpfs "$1"
  for entry in * .[!.]*; do [ -d "$entry" ] && mkdir "$1/$entry" && mount --no-canonicalize --bind "$entry" "$1/$entry"; done
  cd /
}
cover /root 755   # the interpreter may lie in root's home, and jobs of other users must be able to pass through it
cover /tmp 1777   # what a node puts there later, another does not see
"$@" & d=$!
trap 'kill -TERM $d 2>/dev/null' TERM INT
while kill -0 $d 2>/dev/null; do wait $d; done
EOC
cat >"$R/bin/testbed-start" <<'EOC'
#!/bin/bash
# testbed-start NAME: starts the box of ctl or of a node unless it runs
. "$(dirname "$0")/testbed-library.sh"; n=$1; f=$R/pid/$n.pid
alive "$f" && exit 0
case $n in ctl) cmd=(slurmctld -D -f "$SLURM_CONF");; *) mkdir -p "$R/spool/$n"; cmd=(slurmd -D -f "$SLURM_CONF" -N "$n");; esac
ns=/run/netns/$(nsname "$n")    # not inside the background command: a $(...) there is a passing child of $p
setsid nsenter --net="$ns" unshare --mount --uts --ipc --pid --fork --kill-child --mount-proc \
  bash "$R/bin/testbed-box" "$n" "${cmd[@]}" </dev/null >>"$R/log/box.$n.log" 2>&1 &
p=$!; record "$p" "$f"
for i in $(seq 1 100); do box_init "$n" >/dev/null && exit 0; sleep 0.05; done
echo "testbed-start: box $n did not start" >&2; tail -3 "$R/log/box.$n.log" >&2; exit 1
EOC
cat >"$R/bin/testbed-kill" <<'EOC'
#!/bin/bash
# testbed-kill NAME: a power cut: every process of the box of ctl or of a node gets SIGKILL at once, and nobody is told
. "$(dirname "$0")/testbed-library.sh"; stop_box "$1" KILL 2
EOC
cat >"$R/bin/testbed-network" <<'EOC'
#!/bin/bash
# testbed-network NAME up|down: plugs a node's cable in or out
. "$(dirname "$0")/testbed-library.sh"; ip -n "$(nsname ctl)" link set "p-$1" "$2"
EOC
cat >"$R/bin/testbed-enter" <<'EOC'
#!/bin/bash
# testbed-enter NAME COMMAND...: runs a command on a node, as if by ssh
. "$(dirname "$0")/testbed-library.sh"; p=$(box_init "$1"); shift; exec nsenter --target "$p" --mount --uts --ipc --net --pid --wdns="$PWD" -- "$@"
EOC
cat >"$R/bin/testbed-client" <<'EOC'
#!/bin/bash
# sbatch, srun, ... : the real client, in the controller's network namespace
here=$(dirname "$(readlink -f "$0")"); . "$here/testbed-library.sh"
exec nsenter --net="/run/netns/$(nsname ctl)" -- /usr/bin/"$(basename "$0")" "$@"
EOC
for c in sbatch srun salloc scancel squeue sinfo scontrol sacct sdiag sprio sstat sattach sbcast strigger sacctmgr; do
  ln -sfn testbed-client "$R/bin/$c"; ln -sfn "/usr/bin/$c" "$R/bin-box/$c"
done
chmod 755 "$R"/bin/*

# daemons
. "$R/bin/testbed-library.sh"; export PATH=$R/bin:$PATH
if ! alive "$R/pid/munged.pid"; then
  rm -f "$R"/munge/munge.socket*
  setsid munged --foreground --force --num-threads=2 --socket="$R/munge/munge.socket" --key-file="$R/munge-key/munge.key" \
    --pid-file="$R/pid/munged.inner" --seed-file="$R/munge-key/munge.seed" --log-file="$R/log/munged.log" </dev/null >>"$R/log/munged.out" 2>&1 &
  p=$!; for i in $(seq 1 100); do [ -S "$R/munge/munge.socket" ] && break; sleep 0.05; done
  [ -S "$R/munge/munge.socket" ] || { cat "$R/log/munged.out"; die "munged did not start"; }
  record "$p" "$R/pid/munged.pid"
fi
testbed-start ctl
for n in "${nodes[@]}"; do testbed-start "$n"; done

# ready?
ok=
for i in $(seq 1 120); do
  up=$(sinfo -h -N -p main -o '%N %T' 2>/dev/null | awk '$2 ~ /^(idle|mixed|allocated)$/' | wc -l)
  [ "$up" = "$NODES" ] && { ok=1; break; }
  sleep 0.5
done
[ -n "$ok" ] || { sinfo -N -l || true; tail -5 "$R"/log/*.log; die "nodes not up in 60 s"; }
