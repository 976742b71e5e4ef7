# SPDX-License-Identifier: Apache-2.0
"""The names of a task's objects in the storage.

    qpu_slurm/slurm-job.3A7/task.3A9f0c/input_6e32f594-189e-4bc5-89a2-3c21e1c7e75a.json

The API stores no tags, but it shows with each task where its objects are. So the tags are in these names:
each is a folder, with what is special in it written as `.3A` (a colon). All that a name is made of stands for
itself in a URL, so no client on the way writes it otherwise, and none is `..`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import quote, unquote, urlsplit

from qpu_slurm.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable

Part = Literal["input", "results", "logs"]

PARTS: Final[tuple[Part, ...]] = ("input", "results", "logs")

_ROOT: Final = "qpu_slurm"
_LONGEST: Final = 1024
"""Bytes that S3 lets a name have."""

_OBJECT = re.compile(r"(?P<folder>.*/|)(?P<part>input|results|logs)_(?P<rest>[^/]+)")


def key_of(part: Part, task_id: str, tags: Iterable[str]) -> str:
    """Return the name of one of a new task's objects.

    Raises:
        RefusedError: The tags are too long for it.
    """
    folders = [_folder_of(tag) for tag in tags]
    key = "/".join([_ROOT, *folders, f"{part}_{task_id}.json"])
    if len(key) > _LONGEST:
        raise RefusedError(
            f"The task's tags are too long: they may have about {_LONGEST - 100} bytes in all."
        )
    return key


def tags_of(key: str) -> tuple[str, ...]:
    """Return the tags that an object's name holds; none if it is not one of ours."""
    root, *folders, _ = key.split("/") if "/" in key else ("", "")
    return tuple(unquote(folder.replace(".", "%")) for folder in folders) if root == _ROOT else ()


def key_in(url: str, bucket: str) -> str | None:
    """Return the object's name in a presigned URL; None if it is in another bucket.

    Args:
        url: A path-style URL, as we and qrmi presign: `…/bucket/name?…`.
        bucket: The bucket's name.
    """
    try:
        path = unquote(urlsplit(url).path)
    except ValueError:
        return None
    _, found, key = path.partition(f"/{bucket}/")
    return key if found and key else None


def beside(key: str, part: Part) -> str | None:
    """Return the name of another object of the same task; None if a name is not made as ours are."""
    match = _OBJECT.fullmatch(key)
    return f"{match['folder']}{part}_{match['rest']}" if match else None


def _folder_of(tag: str) -> str:
    quoted = quote(tag, safe="").replace(".", "%2E").replace("~", "%7E")
    return quoted.replace("%", ".")
