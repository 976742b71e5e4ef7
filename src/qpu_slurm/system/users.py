# SPDX-License-Identifier: Apache-2.0
"""The machine's users: their names, and which of them is at the keyboard."""

from __future__ import annotations

import os
import pwd
from functools import lru_cache


@lru_cache(maxsize=4096)
def user_name(user_id: int) -> str:
    """Return a user's name; the number if this machine does not know the user.

    The directory may be asked over the network: it may take a while, once for each user.
    """
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return str(user_id)


def operator() -> int:
    """Return the user id of the person who runs this command: of the one who wrote sudo, where it was used.

    Only a record: whoever may run a command as root or SlurmUser could say anything.
    """
    text = os.environ.get("SUDO_UID", "")
    if text.isascii() and text.isdigit() and int(text[:11]) < 1 << 32:
        return int(text)
    try:
        return pwd.getpwnam(os.environ["SUDO_USER"]).pw_uid
    except KeyError:  # there is no such variable, or no such user
        return os.getuid()
