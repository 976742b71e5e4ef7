# SPDX-License-Identifier: Apache-2.0
"""A shell on a throw-away cluster, for who wants to try it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from qpu_slurm_devkit.lab import Lab


def run(lab: Lab, console: Console) -> None:
    """Let somebody be a user of the cluster until he leaves.

    Args:
        lab: The cluster, which is up.
        console: Where he is told what there is.
    """
    config = lab.gateway_config if lab.gateway else lab.config
    console.print(f"You are its user {lab.cluster.users[0]}; the example jobs are in your home.")
    console.print(
        "`exit` takes everything down. What its admin sees, in another terminal, as you are here:",
        soft_wrap=True,
    )
    console.print(f"  {lab.bin / 'qpu-slurm'} --config {config} report", soft_wrap=True)
    # Without a terminal, it reads what to do from a pipe.
    interactive = ["-i"] if sys.stdin.isatty() else []
    environ = {
        **lab.environ,
        "PS1": r"lab:\w\$ ",
        "QPU_SLURM_CONFIG": str(lab.config),
        "TERM": os.environ.get("TERM", "dumb"),
    }
    lab.cluster.call(["bash", "--noprofile", "--norc", *interactive], env=environ)
