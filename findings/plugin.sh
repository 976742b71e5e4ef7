#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A job that ran nothing is COMPLETED with exit code 0:0, afterok goes on, and the node is drained.
#
# Slurm 22.05.8 (Debian 12), where a compute node's plugstack.conf says `required` of a SPANK plugin that cannot be
# loaded: one that is missing, or was built for another release of Slurm. spank(7) says that the job is terminated
# when a function of a required plugin fails, so one would guess FAILED, or a requeue. What is seen: slurmstepd ends
# before the script starts; scontrol shows JobState=COMPLETED and ExitCode=0:0; a job that depends on it by afterok
# is free to start; and the node is drained with the reason "batch job complete failure". (24.11.5 and 26.05.5 put
# the job back into the queue, and drain the node as well; seen in Debian 13 and testing, not run here.)
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
PlugStackConfig=$folder/plugstack.conf
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
: >"$folder/plugstack.conf"
# The host that submits has nothing in its plugstack.conf.
sed "s,^PlugStackConfig=.*,PlugStackConfig=/dev/null," "$folder/slurm.conf" >"$folder/submit.conf"

munged --foreground --key-file="$folder/munge/key" --socket="$folder/munge/socket" --pid-file="$folder/munge/pid" \
    --seed-file="$folder/munge/seed" --force >"$folder/munged.log" 2>&1 &
daemons=$!
for _ in $(seq 50); do [ -S "$folder/munge/socket" ] && break; sleep 0.1; done
SLURM_CONF=$folder/slurm.conf slurmctld -D >"$folder/slurmctld.log" 2>&1 &
daemons="$daemons $!"
SLURM_CONF=$folder/slurm.conf slurmd -D -N n1 >"$folder/slurmd.log" 2>&1 &
daemons="$daemons $!"

export SLURM_CONF=$folder/submit.conf
for _ in $(seq 100); do [ "$(timeout 10 sinfo -h -o %T 2>/dev/null)" = idle ] && break; sleep 0.2; done
# As when the line is rolled out before the plugin: slurmd runs already. (One that is started later does not come up.)
echo "required $folder/missing.so" >"$folder/plugstack.conf"
cd "$folder"
job=$(printf '#!/bin/sh\necho ran\ntouch %s/ran\n' "$folder" | timeout 20 sbatch --parsable --output="$folder/output")
next=$(timeout 20 sbatch --parsable --dependency="afterok:$job" --output="$folder/output" --wrap=true)
shown=
for _ in $(seq 150); do
    shown=$(timeout 10 scontrol show job "$job" | grep -oE '(JobState|ExitCode)=[^ ]*' | tr '\n' ' ')
    reason=$(timeout 10 sinfo -h -N -o '%T %E')
    case $shown$reason in *COMPLETED*drain*) break ;; esac
    sleep 0.2
done
waits=
for _ in $(seq 100); do
    # No other node is there to start it on.
    waits=$(timeout 10 squeue -h -j "$next" -o '%T %r')
    case $waits in *Dependency*) sleep 0.2 ;; *) break ;; esac
done
ran=no
[ ! -e "$folder/ran" ] || ran=yes

slurmctld -V
echo "the job: $shown"
echo "its script ran: $ran"
echo "the node: $reason"
echo "the job that waits for its success (afterok): $waits"
case "$shown/$ran/$reason/$waits" in
    *Dependency*) echo 'That has changed.'; exit 1 ;;
    *JobState=COMPLETED*ExitCode=0:0*/no/drain*"batch job complete failure"/PENDING*) ;;
    *) echo 'That has changed.'; tail -n 5 "$folder"/*.log; exit 1 ;;
esac
