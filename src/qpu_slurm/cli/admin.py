# SPDX-License-Identifier: Apache-2.0
"""What an admin runs, as far as it has no room of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from qpu_slurm.cli.common import config_of, job_id, log_as_told, logged

if TYPE_CHECKING:
    import argparse

    from qpu_slurm.config import Config

PLUGIN = "qpu_slurm.so"

HELPER = Path("/usr/libexec/qpu_slurm/helper")
"""What `make -C plugin install` installs for the plugin to run."""

"""What plugstack.conf names; Slurm looks in its PluginDir."""

GRES_PARTITIONS = "quantum"
"""The partitions that the hooks look at if nobody says otherwise (plugin/Makefile)."""


def configure_check(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Check the configuration, the key files, the journal, Slurm's configuration and the quantum "
        "services, and print what is wrong and how to fix it. Run it as root or SlurmUser, on the controller "
        "and on the gateway's host. Export QISKIT_IBM_TOKEN to include QPUs that are used with users' own "
        "keys. It exits with 1 if there is a problem."
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--node",
        action="store_true",
        help="check this compute node, quickly and without asking slurmctld; print nothing if all is well",
    )
    where.add_argument("--submit", action="store_true", help="check this submit host in the same way")
    where.add_argument("--partition", metavar="NAME", help="check all nodes of a partition, with one srun")
    parser.add_argument("--json", action="store_true", help="print a JSON list")


def run_check(arguments: argparse.Namespace) -> int:
    from qpu_slurm.admin import check
    from qpu_slurm.system import logs

    logs.configure("error")
    host = check.Host.NODE if arguments.node else check.Host.SUBMIT if arguments.submit else check.Host.OTHER
    return check.run(arguments.config, host=host, partition=arguments.partition, as_json=arguments.json)


def configure_support(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Collect what a maintainer needs to know of this installation into one JSON file: versions, the "
        "configuration, what `check` finds, how much is in the journal, and the newest warnings and errors "
        "of the logs. It contains no credentials. It contains names of hosts, users and QPUs: read it before "
        "you send it. Run it as root or SlurmUser, on the gateway's host or the controller."
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="the file, which must not exist yet (default: qpu-slurm-support-HOST-TIME.json)",
    )


def run_support(arguments: argparse.Namespace) -> int:
    from qpu_slurm.admin import support
    from qpu_slurm.system import logs

    logs.configure("error")
    return support.run(arguments.config, arguments.output)


def configure_leases(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "List which job holds which QPU, in which session, and since when and until when. It also asks the "
        "services whether each session is used, for 5 s at most. Run it as root or SlurmUser, where the "
        "journal is."
    )
    parser.add_argument(
        "job_id",
        type=job_id,
        nargs="?",
        metavar="JOBID",
        help="only this job's leases, with those that are over or were refused",
    )
    parser.add_argument("--all", action="store_true", help="include the leases of all jobs that are over")
    parser.add_argument("--offline", action="store_true", help="do not ask the services")
    parser.add_argument("--json", action="store_true", help="print a JSON list")


def run_leases(arguments: argparse.Namespace) -> int:
    from qpu_slurm.admin import tables
    from qpu_slurm.leases.broker import Broker
    from qpu_slurm.leases.idle import uses
    from qpu_slurm.reach.local import open_journal
    from qpu_slurm.system import logs

    config = config_of(arguments)
    logs.configure("error")
    with open_journal(config) as journal:
        leases = journal.leases(job_id=arguments.job_id, over=arguments.all or arguments.job_id is not None)
        leases = journal.with_choices(leases)
        used = {} if arguments.offline else uses(Broker(config, journal), leases)
        show = tables.as_json if arguments.json else tables.as_table
        print(show(leases, journal, used))
    return 0


def configure_release(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "End a job's sessions, with all tasks that run or wait in them, as the end of the job would. Use it "
        "for a job whose release failed, or whose end was missed. Run it as root or SlurmUser."
    )
    parser.add_argument(
        "job_id", type=job_id, metavar="JOBID", help="the job; of a heterogeneous job, the leader"
    )
    parser.add_argument(
        "--reason",
        metavar="TEXT",
        help="the reason for the journal (default: your name)",
    )


def run_release(arguments: argparse.Namespace) -> int:
    from qpu_slurm import reach
    from qpu_slurm.admin import tables
    from qpu_slurm.journal.model import LeaseState
    from qpu_slurm.system.users import operator, user_name

    config = config_of(arguments)
    with logged(config):
        reason = arguments.reason or f"Released by hand, by {user_name(operator())}."
        with reach.broker(config, make=False) as broker:
            leases = broker.release(arguments.job_id, reason)
        if not leases:
            print(f"Job {arguments.job_id} holds no QPU.")
        for lease in leases:
            why = "" if lease.state.final else tables.why_not_released(config.journal, lease)
            print(f"{lease.qpu}: {lease.state}{why}")
        return 0 if all(lease.state is LeaseState.RELEASED for lease in leases) else 1


def configure_reap(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Compare the journal with Slurm, and end the sessions of jobs that are over, as well as those that "
        "could not be ended before. Run it as root or SlurmUser, where the journal is. The gateway does this "
        "by itself. Without a gateway, install qpu-slurm-reap.timer (contrib/systemd)."
    )
    other = parser.add_mutually_exclusive_group()
    other.add_argument(
        "--sessions",
        action="store_true",
        help="only list the account's open sessions that belong to no lease",
    )
    other.add_argument(
        "--end", action="append", metavar="SESSION", help="only end one of those; repeat it for more"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run_reap(arguments: argparse.Namespace) -> int:
    from qpu_slurm.admin import tables
    from qpu_slurm.leases.accountant import Accountant
    from qpu_slurm.leases.availability import Availability
    from qpu_slurm.leases.broker import Broker
    from qpu_slurm.leases.reaper import Reaper
    from qpu_slurm.reach.local import open_journal
    from qpu_slurm.slurm.control import Control
    from qpu_slurm.slurm.licenses import Licenses
    from qpu_slurm.slurm.query import connect

    config = config_of(arguments)
    if arguments.sessions or arguments.end:
        from qpu_slurm.admin import sessions
        from qpu_slurm.system import logs

        logs.configure("error")
        if arguments.end:
            return sessions.end(config, arguments.end)
        return sessions.show(config, as_json=arguments.json)
    log_as_told(config)
    with open_journal(config) as journal:
        reaper = Reaper(config, Broker(config, journal), journal, connect(config.slurm))
        report = reaper.run()
        print(tables.report_as_json(report) if arguments.json else tables.report_as_text(report))
        if config.gateway is None:  # which does it by itself
            Accountant(config, journal).run()
        Availability(config, journal, Control(config.slurm), Licenses(config.slurm)).keep(reaper.jobs)
    return 0 if report.complete else 1


def configure_plugstack(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Print the line for plugstack.conf that fits the configuration. It is for compute nodes, or with "
        "--submit for submit hosts. If both share one file, use the line for compute nodes."
    )
    parser.add_argument(
        "--submit",
        action="store_true",
        help="print the line for submit hosts: `required`, so that no job is submitted without the plugin. "
        "Do not use it on a compute node: if the plugin is missing there or was built for another release of "
        "Slurm, all jobs fail and the node is drained",
    )
    parser.add_argument(
        "--plugin", default=PLUGIN, metavar="PATH", help="the path of the plugin (default: %(default)s)"
    )
    parser.add_argument(
        "--helper",
        metavar="PATH",
        help=f"what the plugin runs as steps start and end (default: {HELPER} where a gateway is configured "
        "and that file exists, otherwise this command)",
    )
    parser.add_argument(
        "--gres-partitions",
        default=GRES_PARTITIONS,
        metavar="NAME[,NAME]",
        help="the partitions in which a gres alone requests a QPU; the same as when you installed the hooks "
        "(default: %(default)s)",
    )


def run_plugstack(arguments: argparse.Namespace) -> int:
    kind = "required" if arguments.submit else "optional"
    config = config_of(arguments)
    # Not resolved: what is linked to may lie elsewhere on other nodes.
    helper = arguments.helper or str(HELPER if _has_client(config) else Path(sys.argv[0]).absolute())
    print(plugstack_line(config, kind, arguments.plugin, arguments.gres_partitions, helper))
    return 0


def _has_client(config: Config) -> bool:
    return config.gateway is not None and HELPER.exists()


def plugstack_line(config: Config, kind: str, plugin: str, gres_partitions: str, helper: str) -> str:
    """Return the line of plugstack.conf that fits a configuration.

    Args:
        config: What the admin wrote.
        kind: What Slurm makes of a plugin that it cannot load: `optional` passes over it, `required` fails.
        plugin: The plugin's file.
        gres_partitions: Where a gres alone asks for a QPU.
        helper: What the plugin runs.

    Raises:
        ConfigError: The QPUs are not known on this host.
    """
    config.require_qpus()
    own = [name for name, qpu in config.qpus.items() if qpu.needs_user_key]
    parts = {
        "qpus": ",".join(config.qpus),
        "user_credentials": ",".join(own),
        "gres_partitions": gres_partitions,
        "step_patience": str(config.step_patience),
        "helper": helper,
        "config": str(config.path),
    }
    return " ".join([kind, plugin, *(f"{name}={value}" for name, value in parts.items() if value)])


def configure_rekey(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make a new secret for the gateway's job keys. Running jobs keep their access: keys made with the "
        "previous secret stay valid until the next rotation. Run it on the gateway's host, as root or as the "
        "gateway's user. Then reload the gateway: `systemctl reload qpu-slurm-gateway`."
    )
    parser.add_argument(
        "--forget-old",
        action="store_true",
        help="drop all earlier secrets, for a secret that leaked. Running steps lose their access to the "
        "QPU; steps that start later get new keys",
    )


def run_rekey(arguments: argparse.Namespace) -> int:
    from qpu_slurm.errors import ConfigError
    from qpu_slurm.gateway.keys import JobKeys
    from qpu_slurm.journal.journal import Journal
    from qpu_slurm.reach.local import is_here
    from qpu_slurm.system import logs
    from qpu_slurm.system.plurals import counted
    from qpu_slurm.system.users import operator, user_name

    config = config_of(arguments)
    if config.gateway is None:
        raise ConfigError(
            "The configuration names no gateway, so there are no job keys and no secret of them."
        )
    if not is_here(config):
        raise ConfigError("The secret of job keys is on the gateway's host. Run this there.")
    with logged(config):
        with Journal(config.journal) as journal:
            since = JobKeys.kept_since(config.journal)
            older = {lease.job_id for lease in journal.leases() if since and lease.created_at < since}
        if older and not arguments.forget_old:
            raise ConfigError(
                f"{counted(len(older), 'job')}, such as {min(older)}, started before the last rotation. "
                "Steps may have keys that would become invalid. Wait for those jobs, or add --forget-old."
            )
        JobKeys.rotate(config.journal, forget=arguments.forget_old)
        logs.audit("secret rotated", forget_old=arguments.forget_old, by=user_name(operator()))
        print("There is a new secret. Have the gateway use it: systemctl reload qpu-slurm-gateway")
        return 0


def configure_gateway(parser: argparse.ArgumentParser) -> None:
    from qpu_slurm.gateway import command

    command.add_arguments(parser)


def run_gateway(arguments: argparse.Namespace) -> int:
    from qpu_slurm.gateway import command

    config = config_of(arguments)
    log_as_told(config, config.gateway.log if config.gateway else None)
    return command.serve(config, arguments)
