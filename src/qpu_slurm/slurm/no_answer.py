# SPDX-License-Identifier: Apache-2.0
"""What Slurm's commands print when Slurm does not answer them for now.

From Slurm's list of errors (src/common/slurm_errno.c), and from what squeue 22.05 prints while slurmctld or
munged is stopped, or has just been started.
"""

from __future__ import annotations

import re

NO_ANSWER = re.compile(
    "Unable to contact slurm controller|Socket timed out|Zero Bytes were transmitted|Connection refused"
    "|Connection reset|Unexpected message received|Transport endpoint is not connected"
    "|Resource temporarily unavailable|authentication error|Munge encode failed"
)
