# SPDX-License-Identifier: Apache-2.0
"""Running Slurm's own commands."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from qpu_slurm.errors import SlurmAwayError, SlurmError
from qpu_slurm.slurm.no_answer import NO_ANSWER

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    from qpu_slurm.config import SlurmConfig


_CONFIGLESS = "/run/slurm/conf"
"""Where slurmd keeps the configuration of a node that has none of its own (`slurmd --conf-server`)."""


class UnknownJobError(SlurmError):
    """Slurm knows no job of that id (any more)."""


class Commands:
    """Slurm's commands of one cluster: squeue, scontrol.

    They retry by themselves while slurmctld is away or busy (for about MessageTimeout), so we do not.

    Args:
        config: Where they are, which cluster to ask, and how long to wait for an answer.
    """

    def __init__(self, config: SlurmConfig) -> None:
        self._config = config
        # Nothing of ours: a hook has no PATH, and SQUEUE_* or SCONTROL_* would change what they answer.
        # Times come as seconds since the epoch, which no time zone and no change of clocks makes ambiguous.
        self._environ = {
            "LC_ALL": "C",
            "TZ": "UTC",
            "SLURM_TIME_FORMAT": "%s",
        }

    def run(self, program: str, *arguments: str, into: BinaryIO | None = None) -> bytes:
        """Run one command and return what it printed.

        Args:
            program: Its name.
            arguments: Its arguments.
            into: The file to print into, for a long output. Nothing is returned then.

        Raises:
            UnknownJobError: It says that there is no such job.
            SlurmAwayError: It says that Slurm does not answer, or took too long.
            SlurmError: It is not there, or it failed: the message is what it said.
        """
        environ, looked = self._environ, ""
        if _is_there(self._config.conf):
            environ = environ | {"SLURM_CONF": str(self._config.conf)}
        else:
            # Where SLURM_CONF names no file they fail; without it, they find what a configless node has.
            looked = (
                f" There is no {self._config.conf} (`conf` in [slurm]), so it searched Slurm's own places,"
                f" such as {_CONFIGLESS}."
            )
        try:
            answer = subprocess.run(
                [self._config.bin / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if into is None else into,
                stderr=subprocess.PIPE,
                env=environ,
                timeout=self._config.timeout,
                check=False,
            )
        except OSError as error:
            raise SlurmError(f"{error.filename}: {error.strerror}; see `bin` in [slurm].") from error
        except subprocess.TimeoutExpired as error:
            raise SlurmAwayError(
                f"{program} had no answer within {self._config.timeout} s.{looked}"
            ) from error
        if answer.returncode:
            said = " ".join(answer.stderr.decode(errors="replace").split())
            raise _kind(said)(
                f"{program} failed: {said or f'exit code {answer.returncode}'}{looked and '.'}{looked}"
            )
        return answer.stdout or b""


def _kind(said: str) -> type[SlurmError]:
    """Tell what kind of failure it is by what a command said."""
    if "Invalid job id" in said:
        return UnknownJobError
    return SlurmAwayError if NO_ANSWER.search(said) else SlurmError


def _is_there(conf: Path) -> bool:
    try:
        return conf.is_file()
    except OSError:  # we may not look: what Slurm says about it is better than what we guess
        return True
