# SPDX-License-Identifier: Apache-2.0
"""The names of a task's objects in the storage.

    qpu_slurm/gate-0c9f…/slurm-job.3A7/task.3A9f0c/input_6e32f594-189e-4bc5-89a2-3c21e1c7e75a.json
    qpu_slurm/gate-0c9f…/results_6e32f594-189e-4bc5-89a2-3c21e1c7e75a.json

The API stores no tags, but it shows with each task where its objects are. So the tags are in the input's
name: each is a folder, with what is special in it written as `.3A` (a colon). All that a name is made of
stands for itself in a URL, so no client on the way writes it otherwise, and none is `..`.

A result is found by the gate that its task went through, and by the task's id: it can be read when the
service has forgotten the task. All that went through a gate is below the gate's folder.
"""

from __future__ import annotations

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


def key_of(part: Part, task_id: str, gate: str | None, tags: Iterable[str] = ()) -> str:
    """Return the name of one of a task's objects.

    Args:
        part: Which.
        task_id: The task.
        gate: The gate that it goes through; None if it goes through none.
        tags: What the name of its input holds; the others hold none.

    Raises:
        RefusedError: The tags are too long for it.
    """
    folders = [_folder_of(tag) for tag in tags] if part == "input" else []
    key = "/".join([_ROOT, *([gate] if gate else []), *folders, f"{part}_{task_id}.json"])
    if len(key) > _LONGEST:
        raise RefusedError(
            f"The task's tags are too long: they may have about {_LONGEST - 100} bytes in all."
        )
    return key


def folder_of(gate: str) -> str:
    """Return what the names of all objects begin with that went through a gate."""
    return f"{_ROOT}/{gate}/"


def tags_of(key: str) -> tuple[str, ...]:
    """Return the tags that an input's name holds, its gate among them; none if it is not one of ours."""
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


def _folder_of(tag: str) -> str:
    quoted = quote(tag, safe="").replace(".", "%2E").replace("~", "%7E")
    return quoted.replace("%", ".")
