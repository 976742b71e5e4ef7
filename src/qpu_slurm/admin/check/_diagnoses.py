# SPDX-License-Identifier: Apache-2.0
"""The table of all that `qpu-slurm check` can find wrong: how bad it is, what it is, and what to do.

tests/unit/test_cli_check.py and tests/integration/test_check.py meet them.
"""

from __future__ import annotations

from typing import NamedTuple

from qpu_slurm.admin.check._finding import Finding, Level

_PLUGSTACK = "Write what `qpu-slurm plugstack` prints into it, on every host."
_INSTALL_HOOKS = "Install the hooks again (`make -C plugin install`)"
_LICENSES = "Write `Licenses={line}` into slurm.conf"


class Diagnosis(NamedTuple):
    """One thing that can be wrong.

    Attributes:
        level: How bad it is.
        text: What is wrong; braces name what is filled in.
        remedy: What to do about it.
    """

    level: Level
    text: str
    remedy: str


def problem(text: str, remedy: str) -> Diagnosis:
    """Return a diagnosis of something that does not work."""
    return Diagnosis(Level.PROBLEM, text, remedy)


def warning(text: str, remedy: str) -> Diagnosis:
    """Return a diagnosis of something that works, and not as well as it could."""
    return Diagnosis(Level.WARNING, text, remedy)


DIAGNOSES = {
    # The configuration.
    "config missing": problem(
        "{path}: is not there.", "Write it (docs/install.md), or name another with --config."
    ),
    "config unreadable": problem(
        "{path}: cannot be read by {me} ({why}).",
        "Everyone may read it, for it holds no credential: write `{command}`.",
    ),
    "config wrong": problem("{why}", "Correct {path}; docs/configuration.md explains each key."),
    "config insecure": warning("{why}", "docs/security.md says what that means."),
    "foreign task_runner": problem(
        "{path}: is qrmi's, which exits with 0 when a task has failed.",
        "Install qpu_slurm once more, after qrmi: `pip install --force-reinstall --no-deps`. "
        "`qpu-task-runner` is ours in any case.",
    ),
    # Key files.
    "key missing": problem("{path}: is not there.", "Write `{command}`, and the API key into it, alone."),
    "key unreadable": problem("{path}: cannot be read by {user}.", "Write `{command}`."),
    "key exposed": problem(
        "{path}: others can read this credential.",
        "Write `chmod 600 {path}`, and replace the key if somebody may have read it.",
    ),
    "key's owner": problem("{path}: belongs to {owner}, and {user} has to read it.", "Write `{command}`."),
    "key wrong": problem("{why}", "Write the API key into {path}, alone on one line."),
    "key elsewhere": problem(
        "{path}: belongs on the gateway's host, and nowhere else.", "Remove it from this host."
    ),
    # The journal and the log.
    "directory missing": problem("{path}: is not there.", "Write `{command}`."),
    "not writable": problem("{path}: cannot be written by {user}.", "Write `{command}`."),
    "owner": problem("{path}: belongs to {owner}, and {user} writes to it.", "Write `{command}`."),
    "not allowed to see": problem("{path}: cannot be seen by {me}.", "Run this as root or {user}."),
    "journal damaged": problem(
        "{why}", "docs/qpu-slurm.md says how to bring a backup back (`qpu-slurm journal restore`)."
    ),
    "session left": warning(
        "Job {job} has ended, and its session on {qpu} has not.", "Write `qpu-slurm release {job}`."
    ),
    "no log": warning(
        "{path}: no log is set, and Slurm drops what its hooks print.", "Set `log` to an absolute path."
    ),
    # Slurm.
    "no answer": problem("{why}", "Check that slurmctld runs (`scontrol ping`)."),
    "no slurm.conf": problem(
        "{conf}: is not there, so Slurm's commands do not know their cluster.",
        "Set `conf` in [slurm] of {path}.",
    ),
    "no commands": problem(
        "{why}", "Set `bin` in [slurm] of {path} to the directory of scontrol and squeue."
    ),
    "no hook": problem(
        "slurm.conf names no {setting}.", "Write `{setting}={script}`, and restart slurmctld."
    ),
    "hook missing": problem(
        "{path}: is not there, so no job with a QPU starts.",
        f"{_INSTALL_HOOKS}, or correct {{setting}} in slurm.conf.",
    ),
    "hook unreadable": problem("{path}: cannot be read by {me} ({why}).", "Write `chmod 755 {path}`."),
    "hook of others": warning(
        "{path}: does not call our {kind}.sh.", "Have it call {kind}.sh (docs/install.md)."
    ),
    "hook not executable": problem("{path}: cannot be executed.", "Write `chmod 755 {path}`."),
    "hook's program": problem(
        "{path}: runs {program}, {why}.",
        f"Mend the installation of {{program}}, or name another: {_INSTALL_HOOKS} with QPU_SLURM=….",
    ),
    "hook's configuration": problem(
        "{path}: reads {config}, not {own}.", f"{_INSTALL_HOOKS} with CONFIG={{own}}."
    ),
    "hook's QPUs": problem(
        "{path}: reads {config}, which has other QPUs than {own}, or another `url` of the gateway.",
        "Write the same QPUs and the same `url` into both files.",
    ),
    "hooks differ": problem("prolog and epilog name different partitions.", f"{_INSTALL_HOOKS}."),
    "keys in accounting": warning(
        "AccountingStoreFlags has job_env: slurmdbd keeps the environment of each batch job, "
        "and with it the API "
        "key of the user, for {qpus}.",
        "Remove job_env, or use a gateway.",
    ),
    "journal of one controller": problem(
        "SlurmctldHost names {hosts}, and without a gateway the journal is on a local disk of one of them. "
        "After a takeover, the hooks do not find what jobs hold.",
        "Use a gateway (docs/gateway.md).",
    ),
    "no gres": warning(
        "GresTypes has no qpu: users can write --qpu, but not --gres=qpu:1.",
        "Write `GresTypes=qpu` into slurm.conf if they should (docs/install.md).",
    ),
    "gres of no node": warning(
        "No partition has nodes with the gres qpu: users can write --qpu, but not --gres=qpu:1.",
        "Write `Gres=qpu:1` into the lines of some nodes in slurm.conf (docs/install.md).",
    ),
    "partition unknown": problem(
        "{partitions}: has the gres qpu, and the hooks do not know: --gres=qpu:1 alone gets no QPU there.",
        f"{_INSTALL_HOOKS} with GRES_PARTITIONS={{names}}, and write what `qpu-slurm plugstack "
        "--gres-partitions {names}` prints into plugstack.conf.",
    ),
    # Licenses.
    "no licenses": warning(
        "No QPU is a Slurm license, so no job waits in the queue for its QPU: it is requeued "
        "as it starts, and srun "
        "and salloc end.",
        f"{_LICENSES}; docs/install.md has the rest.",
    ),
    "license missing": problem(
        "slurm.conf has no license for {qpus}, so sbatch refuses their jobs.", f"{_LICENSES}."
    ),
    "license count": warning(
        "slurm.conf does not have as many licenses for {qpus} as jobs may use at once.", f"{_LICENSES}."
    ),
    "no job_submit": warning(
        "No job requests the licenses.",
        "Write `JobSubmitPlugins=lua` into slurm.conf, and copy contrib/slurm/job_submit.lua beside it.",
    ),
    "no job_submit.lua": problem("{path}: is not there.", "Copy contrib/slurm/job_submit.lua to it."),
    # Who may use a QPU.
    "access user": warning(
        "The rules name a user {name}, whom this host does not know.",
        "Correct `access` in the configuration, or the directory of users of this host.",
    ),
    "budget user": warning(
        "A budget names a user {name}, whom this host does not know: it limits no job.",
        "Correct [[budget]] in the configuration, or the directory of users of this host.",
    ),
    "access group": problem(
        "The rules name a group {name}, which this host does not know: jobs that it decides on are put back.",
        "Correct `access` in the configuration, or the directory of users of this host.",
    ),
    "access directory": problem(
        "{why}", "Mend the directory of users of this host: `getent passwd` shows whether it answers."
    ),
    "access unproven": problem(
        "The rules name a {what}, and Slurm lets users write any {what} into a job.",
        "Write `{value}` into AccountingStorageEnforce in slurm.conf (docs/accounting.md).",
    ),
    "access not compared": warning(
        "Whether each {what} in the rules exists is not known: {why}",
        "Run this where sacctmgr and sinfo work.",
    ),
    "access name": problem(
        "The rules name a {what} {name}, which Slurm does not have.", "Correct `access` in the configuration."
    ),
    "access at submission": warning(
        "{path}: does not have the rules of the configuration: a job that may not use its QPU is not refused "
        "before it starts, or for another reason.",
        "Write `qpu-slurm access --lua` to it, and copy contrib/slurm/job_submit.lua beside it.",
    ),
    "access unreadable": problem("{path}: cannot be read ({why}).", "Write `chmod 644 {path}`."),
    # The plugin.
    "plugstack unreadable": problem("{path}: cannot be read by {me} ({why}).", "Write `chmod 644 {path}`."),
    "plugin not named": problem(
        "{path}: does not name our plugin.",
        "Write what `qpu-slurm plugstack{option}` prints into it.",
    ),
    "plugin twice": problem(
        "{path}: names our plugin {count} times.", "Keep the line that `qpu-slurm plugstack` prints."
    ),
    "plugin required": problem(
        "{path}: says `required`: with a plugin that Slurm cannot load, no job runs here, "
        "and the node drains.",
        "Write `optional`, as `qpu-slurm plugstack` prints it.",
    ),
    "plugin missing": problem(
        "{path}: names {plugin}, which is not in {directories}.",
        "Install slurm-spank-qpu on this host, or run `make -C plugin install`.",
    ),
    "plugin not loaded": problem(
        "{srun} does not know --qpu, though {path} names {plugin}: it was built for another "
        "release of Slurm.",
        "Build it for this one: `make -C plugin clean install` on this host.",
    ),
    "plugin lacks": problem("{path}: {argument} lacks {names}.", _PLUGSTACK),
    "plugin has": problem("{path}: {argument} has {names}, which the configuration has not.", _PLUGSTACK),
    "plugin's partitions": problem("{path}: gres_partitions differs from the hooks' ({names}).", _PLUGSTACK),
    "plugin's patience": problem("{path}: step_patience is not {seconds}, as in [outage].", _PLUGSTACK),
    "plugin's helper": problem(
        "{path}: helper names {helper}, {why}.", f"Mend the installation of {{helper}}. Or: {_PLUGSTACK}"
    ),
    "plugin's configuration": problem("{path}: config names {config}, not {own}.", _PLUGSTACK),
    "plugin's QPUs": problem(
        "{path}: config names {config}, which has other QPUs than {own}, or another `url` of the gateway.",
        "Write the same QPUs and the same `url` into both files.",
    ),
    # MUNGE and the gateway.
    "munge": problem(
        "{why}", "Start munged; if its socket is elsewhere, set `munge_socket` in [slurm] of {path}."
    ),
    "munge's users": problem(
        "MUNGE takes user {me} for user {other}.", "Give all hosts the same users and the same MUNGE key."
    ),
    "gateway's host": problem(
        "{url}: no host has this name.", "Correct `url` in [gateway] of {path}, or the name service."
    ),
    "gateway down": problem(
        "{url}: the connection is refused.",
        "Start it on its host: `systemctl start qpu-slurm-gateway`; `journalctl -u "
        "qpu-slurm-gateway` says why it ended.",
    ),
    "gateway's port": problem(
        "{url}: the connection is refused, and `listen` names {listen}, another port.",
        "Make the ports of `url` and `listen` in [gateway] of {path} the same, on all hosts.",
    ),
    "gateway unreachable": problem(
        "{url}: does not answer ({why}).",
        "Start qpu-slurm-gateway on its host, and let this host through its firewall; "
        "`listen` names what it listens on.",
    ),
    "gateway without TLS": problem(
        "{url}: does not speak TLS ({why}).",
        "Set `certificate` and `certificate_key` in [gateway] and restart it, or correct `url`.",
    ),
    "gateway unwell": problem("{url}: answers that it is not well: {why}.", "Its log has the reason."),
    "not a gateway": problem(
        "{url}: what answers is no gateway ({why}).", "Correct `url` in [gateway] of {path}."
    ),
    "ca unreadable": problem(
        "{why}", "Correct `ca` in [gateway] of {path}, or write `chmod 644` for what it names."
    ),
    "certificate expired": problem(
        "{why}.", "Renew it on the gateway's host, and write `systemctl reload qpu-slurm-gateway` there."
    ),
    "certificate in the future": problem("{why}.", "Set this host's clock (chrony, ntpd)."),
    "certificate of another name": problem(
        "{why}.",
        "Make one whose subjectAltName names {host} (docs/gateway.md), or correct `url` in "
        "[gateway] of {path}.",
    ),
    "authority not trusted": problem(
        "{why}.",
        "Have `ca` in [gateway] of {path} name the file of the authority that signed it (docs/gateway.md).",
    ),
    "certificate's form": problem("{why}.", "Make another; docs/gateway.md has a recipe."),
    "certificate expires soon": warning(
        "The certificate of {server} expires in {days} days.",
        "Renew it on the gateway's host, and write `systemctl reload qpu-slurm-gateway` there.",
    ),
    "certificate expires": problem(
        "The certificate of {server} expires in {days} days.",
        "Renew it now on the gateway's host, and write `systemctl reload qpu-slurm-gateway` there.",
    ),
    "gateway's socket": warning(
        "The gateway holds its port itself: while it restarts, connections are refused.",
        "Install contrib/systemd/qpu-slurm-gateway.socket on its host (docs/gateway.md), then write "
        "`systemctl stop qpu-slurm-gateway` and `systemctl start qpu-slurm-gateway`.",
    ),
    "gateway is older": problem(
        "The gateway does not run with what {path} says.",
        "Write `systemctl reload qpu-slurm-gateway`; if that fails or changes nothing, its log says why. "
        "If the gateway has a file of its own, check with that: `qpu-slurm --config FILE check`.",
    ),
    "differs from the gateway": problem(
        "{path}: has other QPUs than the gateway, or reaches them in another way.",
        "Copy the file of the gateway's host to this one.",
    ),
    # The quantum services.
    "service unreachable": problem(
        "{endpoint} cannot be reached: {why}",
        "Let this host reach it (firewall, HTTPS_PROXY), or correct `endpoint` in {path}.",
    ),
    "key refused": problem("{why}", "The key is in {key}: replace it there."),
    "user's key refused": problem("{why}", "Export another key as QISKIT_IBM_TOKEN."),
    "service refuses": problem(
        "{why}",
        "Compare `instance`, `endpoint` and the QPU's `backend` in {path} with the service's own list.",
    ),
    "not available": warning(
        "The service gives no task to it now: {why}", "Wait; `qpu-slurm qpus` shows it."
    ),
    "more leases than slots": warning(
        "The QPU takes {slots} tasks at once, but more jobs than that may have it: a task may wait for long.",
        "Set `max_leases` to {slots} or less.",
    ),
    # A whole partition.
    "no node": problem(
        "{partition}: Slurm names no such partition, or it has no node.", "Write `sinfo --summarize`."
    ),
    "node not checked": warning("The node is {state}.", "Check it when it takes jobs again."),
    "node silent": problem(
        "{program} printed nothing there{why}.",
        "Install the commands on the node (docs/install.md), in the same place.",
    ),
    "srun failed": problem(
        "{why}", "Set what your cluster asks of srun, such as SLURM_ACCOUNT, and try again."
    ),
}


def found(diagnosis: str, about: str, **values: object) -> Finding:
    """Return a finding of the table.

    Args:
        diagnosis: Its name.
        about: What was looked at.
        values: What is filled in.
    """
    level, text, remedy = DIAGNOSES[diagnosis]
    return Finding(level, about, text.format(**values), remedy.format(**values), diagnosis)
