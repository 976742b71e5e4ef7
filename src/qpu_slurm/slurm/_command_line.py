# SPDX-License-Identifier: Apache-2.0
"""Asking Slurm with squeue(1): any release, no library needed."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from datetime import UTC, datetime
from io import BytesIO
from struct import Struct
from typing import TYPE_CHECKING

from qpu_slurm.errors import SlurmError
from qpu_slurm.slurm._commands import Commands, UnknownJobError
from qpu_slurm.slurm.job import MAX_ADMIN_COMMENT, ArrayElement, JobRecord, parse_gres, parse_licenses
from qpu_slurm.system.pace import paced

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import BinaryIO

    from qpu_slurm.config import SlurmConfig

# squeue pads or cuts a value to its field's width in bytes, and puts nothing in between. So each job takes
# the same number of bytes and one line end, and no value, whatever a user wrote into it, can look like the
# end of its field, of its line or like another job. (squeue has JSON too, but up to 22.05 gives all jobs
# whichever was asked for; other formats have separators that a value may contain.)
FIELDS = {
    "JobID": 12,
    "HetJobID": 12,
    "ArrayJobID": 12,
    "ArrayTaskID": 24,
    "UserID": 12,
    "State": 20,
    "BatchFlag": 4,
    "TimeLeft": 20,
    "TimeLimit": 20,
    "SubmitTime": 20,
    "Account": 100,
    "Partition": 100,
    "QOS": 100,
    "Reason": 40,
    "Licenses": 1000,
    "tres-per-node": 1000,
    "admin_comment": MAX_ADMIN_COMMENT,
}
"""What we ask for, and each field's width in bytes."""

ALL = ("--noheader", "--all", "--states=all", "--sort=i")
"""Jobs in every state and partition, in the order of their numbers."""

_MAY_BE_NULL = ("Account", "Licenses", "QOS", "admin_comment")

_NO_TABLE = "squeue printed something that is not the table that it was asked for."

_ELEMENTS = {"JobID": 12, "ArrayTaskID": 24}
"""What we ask for once more where a line stands for several elements."""

_AT_ONCE = 5000
"""How many jobs one call of squeue names: an argument has room for ten thousand."""

_BLOCK = 32
"""How many lines are read at once."""

_INDEX = re.compile(r"(\d{1,10})(?:%\d+)?")
"""The index of one element of an array; `3-5%2` are several, that have not started yet."""

_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?:(?P<hours>\d+):)?(?P<minutes>\d+):(?P<seconds>\d+)")


class CommandLine:
    """What Slurm knows, as squeue tells it.

    Args:
        config: Where Slurm's commands are, which cluster to ask, and how long to wait for an answer.
    """

    def __init__(self, config: SlurmConfig) -> None:
        self._commands = Commands(config)

    def job(self, job_id: int) -> JobRecord | None:
        """Look up a job, or a component of a heterogeneous job; see `Query`."""
        return next((job for job in self._related(job_id) if job.job_id == job_id), None)

    def components(self, job_id: int) -> list[JobRecord]:
        """Look up a heterogeneous job; see `Query`."""
        return self.many([job_id])[job_id]

    def many(self, job_ids: Iterable[int]) -> dict[int, list[JobRecord]]:
        """Look up several jobs; see `Query`."""
        wanted = list(dict.fromkeys(job_ids))
        found = self._components(wanted)
        leaders = {job_id: found[job_id].leader for job_id in wanted if job_id in found}
        # A component is found by its own number, and all of them by the leader's.
        missing = set(leaders.values()) - set(wanted)
        found |= self._components(sorted(missing)) if missing else {}
        of_leader: dict[int, list[JobRecord]] = {}
        for job in sorted(found.values(), key=lambda job: job.job_id):
            of_leader.setdefault(job.leader, []).append(job)
        return {job_id: of_leader[leaders[job_id]] if job_id in leaders else [] for job_id in wanted}

    def _components(self, job_ids: Sequence[int]) -> dict[int, JobRecord]:
        """Look up jobs, with all components of those that are leaders."""
        rows = (
            row
            for start in range(0, len(job_ids), _AT_ONCE)
            for row in self._named(map(str, job_ids[start : start + _AT_ONCE]))
        )
        return {job.job_id: job for job in map(_job, rows)}

    def jobs(self) -> list[JobRecord]:
        """List all jobs; see `Query`."""
        fields = {name: width for name, width in FIELDS.items() if name != "tres-per-node"}
        # In memory that is not the process's own: a table of 10,000 jobs has 53 MB, most of it padding.
        with os.fdopen(os.memfd_create("squeue"), "r+b") as table:
            self._commands.run("squeue", *ALL, _format(fields), into=table)
            table.seek(0)
            rows = list(paced(records(table, fields)))
        arrays = {row["ArrayJobID"] for row in rows if _several(row["ArrayTaskID"])}
        if arrays:
            rows += self._hidden(rows, arrays, fields)
        # A job that waits for one of several partitions may be listed once for each.
        return list({job.job_id: job for job in map(_job, paced(rows))}.values())

    def _hidden(
        self, rows: list[dict[str, str]], arrays: Iterable[str], fields: Mapping[str, int]
    ) -> Iterator[dict[str, str]]:
        """Look up what squeue hides: elements that wait after a requeue, behind the line of their array.

        That line shows the number and the rest of one job: those elements that have not started yet, or the
        last one. Where it is the last one, it is given its own index.
        """
        elements: dict[str, set[str]] = {}
        for row in self._named(arrays, "--array", fields=_ELEMENTS):
            elements.setdefault(row["JobID"], set()).add(row["ArrayTaskID"])
        for row in rows:
            own = elements.pop(row["JobID"], set())
            if len(own) == 1:
                row["ArrayTaskID"] = own.pop()
        hidden = list(elements)
        for start in range(0, len(hidden), _AT_ONCE):
            yield from self._named(hidden[start : start + _AT_ONCE], fields=fields)

    def _related(self, job_id: int) -> list[JobRecord]:
        """Look up a job, all tasks of an array by its id, and all components by the leader's."""
        return [_job(row) for row in self._named([str(job_id)])]

    def _named(
        self, job_ids: Iterable[str], *arguments: str, fields: Mapping[str, int] = FIELDS
    ) -> Iterator[dict[str, str]]:
        """Look up some jobs, of which Slurm may know none any more."""
        with suppress(UnknownJobError):
            yield from self._squeue(f"--jobs={','.join(job_ids)}", *arguments, fields=fields)

    def _squeue(self, *arguments: str, fields: Mapping[str, int] = FIELDS) -> Iterator[dict[str, str]]:
        printed = self._commands.run("squeue", *ALL, _format(fields), *arguments)
        return records(BytesIO(printed), fields)


def _format(fields: Mapping[str, int]) -> str:
    return "--Format=" + ",".join(f"{name}:{width}" for name, width in fields.items())


def parse(output: bytes, fields: Mapping[str, int] = FIELDS) -> Iterator[JobRecord]:
    """Read what squeue prints for `fields`; those that may be missing are `tres-per-node`.

    Raises:
        SlurmError: It is not that; for instance because this squeue lacks a field.
    """
    return map(_job, records(BytesIO(output), fields))


def records(output: BinaryIO, fields: Mapping[str, int]) -> Iterator[dict[str, str]]:
    """Read the values of each line that squeue prints for some fields.

    Args:
        output: What it printed. It is read in blocks.
        fields: Each field that it was asked for, with its width in bytes.

    Raises:
        SlurmError: It is not that.
    """
    line = Struct("".join(f"{width}s" for width in fields.values()) + "c")
    while block := output.read(line.size * _BLOCK):
        if len(block) % line.size:
            raise SlurmError(_NO_TABLE)
        for *values, end in line.iter_unpack(block):
            if end != b"\n":
                raise SlurmError(_NO_TABLE)
            # Without its padding first: most of what squeue prints is padding.
            texts = (value.rstrip().decode(errors="replace").rstrip() for value in values)
            yield dict(zip(fields, texts, strict=True))


def _job(values: dict[str, str]) -> JobRecord:
    for name in ("tres-per-node", "Licenses"):
        if len(values.get(name, "").encode()) >= FIELDS[name]:
            # It was cut: what is left of its last part may mean something else than the whole did.
            values[name] = values[name].rpartition(",")[0]
    given = {name: "" if values[name] == "(null)" else values[name] for name in _MAY_BE_NULL}
    return JobRecord(
        job_id=_number(values["JobID"]),
        # N/A for a job that is no component.
        het_job_id=_number(values["HetJobID"]) or None if values["HetJobID"][:1].isdigit() else None,
        element=_element(values["ArrayJobID"], values["ArrayTaskID"]),
        user_id=_number(values["UserID"]),
        state=values["State"],
        batch=values["BatchFlag"] == "1",
        gres=parse_gres(values.get("tres-per-node", "")),
        licenses=parse_licenses(given["Licenses"]),
        time_left=parse_time_left(values["TimeLeft"], values["TimeLimit"]),
        submitted_at=_time(values["SubmitTime"]),
        account=given["Account"],
        partition=values["Partition"],
        qos=given["QOS"],
        reason=values["Reason"],
        admin_comment=given["admin_comment"],
    )


def _element(array: str, index: str) -> ArrayElement | None:
    """Read which element of an array a job is, N/A for one that is none."""
    one = _INDEX.fullmatch(index)
    return ArrayElement(_number(array), int(one[1])) if one else None


def _several(index: str) -> bool:
    """Tell whether a line is about several elements of an array that wait."""
    return index[:1].isdigit() and not _INDEX.fullmatch(index)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise SlurmError(f"squeue printed {text!r} where a number belongs.")
    return int(text)


def _time(text: str) -> datetime:
    try:
        return datetime.fromtimestamp(_number(text), UTC)
    except (ValueError, OverflowError, OSError):
        raise SlurmError(f"squeue printed {text!r} where a time belongs.") from None


def parse_time_left(text: str, limit: str) -> int | None:
    """Read squeue's TimeLeft: `[days-][hours:]minutes:seconds`, or a word.

    Args:
        text: TimeLeft.
        limit: TimeLimit.

    Returns:
        Seconds; 0 if the time is over; None if there is no limit (UNLIMITED, NOT_SET). squeue prints INVALID
        for less than nothing, which only what is left can be, and for more than a year: None.

    Raises:
        SlurmError: It is none of them.
    """
    if text in {"UNLIMITED", "NOT_SET"}:
        return None
    if text == "INVALID":
        return None if limit == "INVALID" else 0
    time = _TIME.fullmatch(text)
    if time is None:
        raise SlurmError(f"squeue printed {text!r} where a time belongs.")
    days, hours, minutes, seconds = (int(part or 0) for part in time.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
