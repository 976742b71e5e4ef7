#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The second time that one slurmctld takes over, every PrologSlurmctld is killed as it starts, and the job runs.
#
# Slurm 22.05.8 (Debian 12), with two SlurmctldHost. The second controller takes over (scontrol takeover), the first
# comes back and has control again, and the second takes over once more, all without a failure. One would guess that
# each takeover is like the first, after which the hooks run. What is seen after the second one: slurmctld logs
# "killing PrologSlurmctld operation on shutdown" for each job, the prolog writes nothing, and the job is COMPLETED with
# exit code 0:0 all the same. slurm.conf(5) says of PrologSlurmctld that a failing program requeues the job.
#
# It installs the packages below in a temporary folder, and starts munged, two slurmctld and one slurmd from there on
# the loopback interface. Needs Debian 12 and root (each controller has a host name of its own), and takes about a
# minute.
set -eu

packages='slurmctld=22.05.8-4+deb12u3 slurmd=22.05.8-4+deb12u3 slurm-client=22.05.8-4+deb12u3
    slurm-wlm-basic-plugins=22.05.8-4+deb12u3 libslurm38=22.05.8-4+deb12u3
    munge=0.5.15-2+deb12u1 libmunge2=0.5.15-2+deb12u1'

folder=$(mktemp -d)
chmod 755 "$folder"
daemons=
end() {
    # The second controller stays when it is told to end.
    # shellcheck disable=SC2086 # process ids
    [ -z "$daemons" ] || kill -KILL $daemons 2>/dev/null || true
    wait 2>/dev/null
    rm -rf "$folder"
}
trap end EXIT

mkdir "$folder/packages" "$folder/root" "$folder/munge" "$folder/state" "$folder/spool" "$folder/run"
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
printf '127.0.0.1 localhost one %s\n127.0.0.2 two\n' "$host" >"$folder/hosts"
dd if=/dev/urandom of="$folder/munge/key" bs=1024 count=1 status=none
chmod 600 "$folder/munge/key"
printf '#!/bin/sh\nsleep 1\necho "$SLURM_JOB_ID" >>%s/prologs\n' "$folder" >"$folder/prolog"
chmod 755 "$folder/prolog"
cat >"$folder/slurm.conf" <<CONF
ClusterName=finding
SlurmctldHost=one(127.0.0.1)
SlurmctldHost=two(127.0.0.2)
SlurmctldPort=${ports% *}
CommunicationParameters=NoCtldInAddrAny
SlurmctldTimeout=10
SlurmdTimeout=15
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
CredType=cred/munge
PluginDir=$libraries/slurm-wlm
PlugStackConfig=/dev/null
PrologSlurmctld=$folder/prolog
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/run/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=${ports#* } CPUs=2 RealMemory=500
PartitionName=all Nodes=n1 Default=YES
CONF
export SLURM_CONF=$folder/slurm.conf

# A controller with a host name, and a place for its process id, of its own.
controller() {
    unshare --uts --mount --propagation=private /bin/sh -c '
        mount --bind "$1/hosts" /etc/hosts && mount -t tmpfs tmpfs "$1/run" && hostname "$2" &&
        exec slurmctld -D -L "$1/$2.log"' controller "$folder" "$1" >"$folder/$1.out" 2>&1 &
    daemons="$daemons $!"
}
ping() { timeout 20 scontrol ping 2>/dev/null | tr '\n' ' '; }
pings() { for _ in $(seq 100); do case $(ping) in $1) return ;; esac; sleep 0.2; done; ping; echo "never $1"; exit 1; }
prologs() {
    job=$(timeout 60 sbatch --parsable --output=/dev/null --wrap=true)
    for _ in $(seq 150); do
        state=$(timeout 10 scontrol show job "$job" | grep -oE "(JobState|ExitCode)=[^ ]*" | tr "\n" " ")
        case $state in *COMPLETED*) break ;; esac
        sleep 0.2
    done
    ran=$(grep -cx "$job" "$folder/prologs" 2>/dev/null || true)
    echo "$1: $state, its prolog ran ${ran:-0} times"
}

munged --foreground --key-file="$folder/munge/key" --socket="$folder/munge/socket" --pid-file="$folder/munge/pid" \
    --seed-file="$folder/munge/seed" --force >"$folder/munged.log" 2>&1 &
daemons="$daemons $!"
for _ in $(seq 50); do [ -S "$folder/munge/socket" ] && break; sleep 0.1; done
controller one
controller two
pings '*one is UP*two is UP*'
slurmd -D -N n1 >"$folder/slurmd.log" 2>&1 &
daemons="$daemons $!"
for _ in $(seq 100); do [ "$(timeout 10 sinfo -h -o %T 2>/dev/null)" = idle ] && break; sleep 0.2; done
cd "$folder"

slurmctld -V
timeout 30 scontrol takeover
pings '*one is DOWN*two is UP*'
first=$(prologs 'after the first takeover')
controller one
pings '*one is UP*two is UP*'
timeout 30 scontrol takeover
pings '*one is DOWN*two is UP*'
second=$(prologs 'after the second takeover')
echo "$first"
echo "$second"
grep -o 'killing PrologSlurmctld operation on shutdown' "$folder/two.log" || true
case "$first/$second" in
    *COMPLETED*0:0*"ran 1 times"/*COMPLETED*0:0*"ran 0 times") ;;
    *) echo 'That has changed.'; tail -n 5 "$folder"/*.log; exit 1 ;;
esac
