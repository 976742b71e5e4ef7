#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A cancelled job's program goes on, on a node that Slurm calls idle, because its name has a blank.
#
# Slurm 22.05.8 (Debian 12) with ProctrackType=proctrack/linuxproc. slurm.conf(5) says that linuxproc finds a job's
# processes by their parents' numbers, and can miss one that has become a child of init. So one would guess that it
# finds a child of the batch script, whatever it is called. What is seen: scancel ends a job whose script runs `sleep`, and
# the sleep with it. Where the same program is called `my sleep`, the job is CANCELLED as well, its node is idle at
# once, and the program runs on. (A program names itself in this way, too: prctl(2), PR_SET_NAME.)
#
# It installs the packages below in a temporary folder, and starts munged, slurmctld and one slurmd from there on
# ports of the loopback interface. Needs Debian 12 and root (slurmctld starts as the user that owns its jobs), and
# takes about half a minute.
set -eu

packages='slurmctld=22.05.8-4+deb12u3 slurmd=22.05.8-4+deb12u3 slurm-client=22.05.8-4+deb12u3
    slurm-wlm-basic-plugins=22.05.8-4+deb12u3 libslurm38=22.05.8-4+deb12u3
    munge=0.5.15-2+deb12u1 libmunge2=0.5.15-2+deb12u1'

folder=$(mktemp -d)
chmod 755 "$folder"
daemons=
end() {
    # shellcheck disable=SC2086 # process ids
    [ -z "$daemons" ] || kill $daemons 2>/dev/null || true
    wait
    rm -rf "$folder"
}
trap end EXIT

mkdir "$folder/packages" "$folder/root" "$folder/munge" "$folder/state" "$folder/spool"
# shellcheck disable=SC2086 # a list
(cd "$folder/packages" && apt-get -q -o APT::Sandbox::User=root download $packages >/dev/null)
for package in "$folder"/packages/*.deb; do dpkg-deb -x "$package" "$folder/root"; done
libraries=$folder/root/usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || echo x86_64-linux-gnu)
export LD_LIBRARY_PATH=$libraries:$libraries/slurm-wlm
export PATH=$folder/root/usr/bin:$folder/root/usr/sbin:$PATH

# Two ports that nobody listens on.
ports=$(python3 -c 'import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(one.getsockname()[1] for one in held))')
host=$(hostname -s)
dd if=/dev/urandom of="$folder/munge/key" bs=1024 count=1 status=none
chmod 600 "$folder/munge/key"
cat >"$folder/slurm.conf" <<CONF
ClusterName=finding
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${ports% *}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
CredType=cred/munge
PluginDir=$libraries/slurm-wlm
PlugStackConfig=/dev/null
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SchedulerParameters=sched_interval=1,batch_sched_delay=0
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=${ports#* } CPUs=2 RealMemory=500
PartitionName=all Nodes=n1 Default=YES
CONF

munged --foreground --key-file="$folder/munge/key" --socket="$folder/munge/socket" --pid-file="$folder/munge/pid" \
    --seed-file="$folder/munge/seed" --force >"$folder/munged.log" 2>&1 &
daemons=$!
for _ in $(seq 50); do [ -S "$folder/munge/socket" ] && break; sleep 0.1; done
SLURM_CONF=$folder/slurm.conf slurmctld -D >"$folder/slurmctld.log" 2>&1 &
daemons="$daemons $!"
SLURM_CONF=$folder/slurm.conf slurmd -D -N n1 >"$folder/slurmd.log" 2>&1 &
daemons="$daemons $!"

export SLURM_CONF=$folder/slurm.conf
for _ in $(seq 100); do [ "$(timeout 10 sinfo -h -o %T 2>/dev/null)" = idle ] && break; sleep 0.2; done
cd "$folder"
cp /bin/sleep "$folder/my sleep"

# What becomes of a job, its node and the program that its script runs, when the job is cancelled.
cancelled() {
    rm -f "$folder/pid"
    printf '#!/bin/sh\n"%s" 100 &\necho $! >%s/pid\nwait\n' "$1" "$folder" >"$folder/script"
    job=$(timeout 20 sbatch --parsable --output=/dev/null "$folder/script")
    for _ in $(seq 100); do [ -s "$folder/pid" ] && break; sleep 0.2; done
    pid=$(cat "$folder/pid")
    timeout 20 scancel "$job"
    for _ in $(seq 100); do
        state=$(timeout 10 squeue -h --states=all -j "$job" -o %T)
        node=$(timeout 10 sinfo -h -o %T)
        [ "$state/$node" = CANCELLED/idle ] && break
        sleep 0.2
    done
    # A moment for a signal that is on its way.
    sleep 2
    program=ended
    ! grep -qs '^State:.[RSD]' "/proc/$pid/status" || program='runs on'
    kill "$pid" 2>/dev/null || true
    echo "$state, node $node, program $program"
}

plain=$(cancelled /bin/sleep)
blank=$(cancelled "$folder/my sleep")
slurmctld -V
echo "sleep: $plain"
echo "my sleep: $blank"
case "$plain/$blank" in
    'CANCELLED, node idle, program ended/CANCELLED, node idle, program runs on') ;;
    *) echo 'That has changed.'; tail -n 5 "$folder"/*.log; exit 1 ;;
esac
