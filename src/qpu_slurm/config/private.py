# SPDX-License-Identifier: Apache-2.0
"""Files that hold credentials: they are read only if no other user can read them."""

from __future__ import annotations

import os
import re
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from qpu_slurm.errors import ConfigError
from qpu_slurm.system.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_KEY_BYTES = 4096

_KEY = re.compile(rb"[\x21-\x7e]+")
"""The characters of an API key, which becomes a form field and an environment variable."""


def read_private(path: Path, limit: int) -> bytes:
    """Read a file that holds a credential.

    Args:
        path: The file. A symbolic link is followed: the checks apply to its target.
        limit: The largest size, in bytes.

    Raises:
        ConfigError: The file cannot be read, is too large or not a regular file, belongs to another user, or
            can be read by others. The message names the remedy, and quotes nothing from the file.
    """
    with _opened(path) as descriptor:
        content = os.read(descriptor, limit + 1)
    if len(content) > limit:
        raise ConfigError(f"{path}: is larger than {limit} bytes.")
    return content


def read_key(path: Path) -> Secret:
    """Read an API key from a file of its own.

    Raises:
        ConfigError: See `read_private`; or the file does not contain a key.
    """
    content = read_private(path, _KEY_BYTES).strip()
    if not content:
        raise ConfigError(f"{path}: is empty. Write the API key into it, and nothing else.")
    if not _KEY.fullmatch(content):
        raise ConfigError(f"{path}: holds more than an API key. Write only the key into it, on one line.")
    return Secret(content.decode("ascii"))


def refuse_exposed(path: Path) -> None:
    """Check that no other user can read a file that a library reads, such as a TLS key.

    Raises:
        ConfigError: See `read_private`.
    """
    with _opened(path):
        pass


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open a file with a credential. The checks apply to the open file, which is then read."""
    descriptor = -1
    try:
        # O_NONBLOCK: a FIFO in its place must not block a hook.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        _refuse_exposed(path, os.fstat(descriptor))
        yield descriptor
    except (OSError, ValueError) as error:  # ValueError: not a path
        reason = getattr(error, "strerror", None) or "not a path"
        raise ConfigError(f"{path}: cannot be read ({reason}).") from None
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _refuse_exposed(path: Path, status: os.stat_result) -> None:
    """Raise unless only root and this process's user can read the file. Access lists count as group."""
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{path}: is not a regular file.")
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"{path}: others can read this credential. Run `chmod 600 {path}`.")
    user = os.geteuid()
    if user != 0 and status.st_uid not in {0, user}:
        raise ConfigError(
            f"{path}: belongs to user {status.st_uid}. It must belong to root or to user {user}."
        )
