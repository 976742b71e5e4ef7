# SPDX-License-Identifier: Apache-2.0
"""Names that several rooms share: of QPUs, of steps, and of the tags that tasks carry at the service.

`qpu_option` reads the value of `--qpu`. The plugin in C holds to the same rules (plugin/names.h,
plugin/step.h, plugin/session.c).
"""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias

QPU_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
"""What a QPU may be called: it becomes part of a variable's name, a gres type and a log line. A hyphen would
be lost on the way: dash, which is /bin/sh on Debian, drops variables that have one in their name."""

MAX_QPUS: Final = 16
"""How many QPUs one option may name."""

SessionOption: TypeAlias = Literal["job", "task"]
"""The values of `--qpu-session`: how long a session is open."""

STEP: Final = re.compile("batch|interactive|0|[1-9][0-9]{0,9}")
"""Slurm's id of a step."""

STEP_MARK: Final = re.compile(r"[0-9]{1,10}\.[0-9]{1,10}\.[0-9a-f]{16}")
"""What tells a step from all others, also of other clusters: made up by the plugin (plugin/remote.c)."""

STEP_NAME: Final = re.compile("[A-Za-z0-9._+-]{1,64}")
"""What a step is called."""

JOB_TAG: Final = "slurm-job:"
"""How the tag begins that a job's tasks have at the quantum service; see `Lease.tag` for what follows."""

STEP_TAG: Final = "slurm-step:"
"""What a task is tagged with that ends with its step; the step's mark follows."""

TASK_TAG: Final = "qpu-slurm-task:"
"""What the tag that is a task's own begins with."""


def why_no_tag(text: str) -> str | None:
    """Say why a user may not tag a task with a text, if so.

    Args:
        text: What the user wrote.

    Returns:
        What is wrong with it, to follow the quoted text in a sentence; None if it may be a tag.
    """
    if not text or not text.isprintable() or text.strip() != text:
        return "is not a line of text"
    if text.startswith((JOB_TAG, STEP_TAG, TASK_TAG)):
        return "begins as the tags that qpu_slurm makes itself"
    return None
