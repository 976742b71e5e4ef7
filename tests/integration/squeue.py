# SPDX-License-Identifier: Apache-2.0
"""A squeue that knows the jobs that it was told of, in whatever fields it is asked for."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_PROGRAM = """#!{python}
import json, sys
[fields] = [argument.partition("=")[2] for argument in sys.argv if argument.startswith("--Format=")]
for job in json.load(open("{jobs}")):
    print("".join(job[name].ljust(int(width)) for name, width in (f.split(":") for f in fields.split(","))))
"""


class Squeue:
    """The program, in the directory that `[slurm] bin` names.

    Args:
        directory: It.
    """

    def __init__(self, directory: Path) -> None:
        self._jobs = directory / "jobs"
        program = directory / "squeue"
        program.write_text(_PROGRAM.format(python=sys.executable, jobs=self._jobs))
        program.chmod(0o755)

    def lists(
        self,
        *jobs: int,
        user_id: int | None = None,
        account: str = "(null)",
        admin_comment: str = "(null)",
    ) -> None:
        """Have these jobs run, and no others."""
        values = {
            "HetJobID": "N/A",
            "ArrayTaskID": "N/A",
            "UserID": str(os.getuid() if user_id is None else user_id),
            "State": "RUNNING",
            "BatchFlag": "1",
            "TimeLeft": "10:00",
            "TimeLimit": "15:00",
            "SubmitTime": "1795563199",
            "Account": account,
            "Partition": "quantum",
            "QOS": "(null)",
            "Reason": "None",
            "Licenses": "(null)",
            "tres-per-node": "N/A",
            "admin_comment": admin_comment,
        }
        self._jobs.write_text(
            json.dumps([values | {"JobID": str(job), "ArrayJobID": str(job)} for job in jobs])
        )
