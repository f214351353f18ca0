#!/usr/bin/env bash
# Stops what `testbed_up.sh DIRECTORY` started: the processes in its own pid files and its own network namespaces.
set -uo pipefail
R=$1
[ -f "$R/bin/testbed-library.sh" ] || exit 0
. "$R/bin/testbed-library.sh"
spaces=$(ls /run/netns 2>/dev/null | grep "^$(nsname '')"); nodes=$(echo "$spaces" | sed -n 's/.*-\(n[0-9]*\)$/\1/p')
for n in $nodes; do stop_box "$n" TERM 1 & done; wait
stop_box ctl TERM 5
stop_pid "$R/pid/munged.pid" TERM 3
# belt and braces: what still runs in a node's namespace (made by testbed_up.sh, so ours) goes too; clients of the
# caller may still be in the ctl namespace: there only a left-over slurmctld
for n in $nodes; do for p in $(ip netns pids "$(nsname "$n")" 2>/dev/null); do kill -KILL "$p" 2>/dev/null; done; done
for p in $(ip netns pids "$(nsname ctl)" 2>/dev/null); do [ "$(cat "/proc/$p/comm" 2>/dev/null)" = slurmctld ] && kill -KILL "$p"; done
left=$(ls "$R"/pid/*.pid 2>/dev/null)
for n in $spaces; do ip netns del "$n"; done
[ -z "$left" ] || { echo "testbed: still there: $left" >&2; exit 1; }
rm -rf "$R"
