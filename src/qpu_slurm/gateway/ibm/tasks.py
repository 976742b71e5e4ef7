# SPDX-License-Identifier: Apache-2.0
"""The tasks of the lease's sessions, which the service calls jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from qpu_slurm.errors import QpuSlurmError
from qpu_slurm.gateway.answers import ApiError, CutOffError, forbidden, json_answer, of_error, too_large
from qpu_slurm.gateway.gateway import GATEWAY
from qpu_slurm.gateway.ibm.answers import invalid
from qpu_slurm.gateway.ibm.clients import client_headers, query_of, wait_of
from qpu_slurm.gateway.ibm.dialect import IBM
from qpu_slurm.gateway.ibm.requests import held, message, read_as
from qpu_slurm.gateway.ibm.sessions import session_for_tasks
from qpu_slurm.gateway.ibm.submission import ROOM, Submission
from qpu_slurm.gateway.ibm.watched import QUERIES
from qpu_slurm.gateway.relay import copy, relay
from qpu_slurm.gateway.requests import SMALL, pieces, small_body
from qpu_slurm.system.users import user_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from qpu_slurm.gateway.callers import Caller
    from qpu_slurm.gateway.gateway import Gateway
    from qpu_slurm.gateway.relay import Copy
    from qpu_slurm.gateway.upstream import Query, Upstream

ROUTES = web.RouteTableDef()

_TASK = "/jobs/{id:[A-Za-z0-9_-]{1,128}}"

_FILTERS = frozenset(
    {
        "limit",
        "offset",
        "skip",
        "pending",
        "program",
        "backend",
        "created_after",
        "created_before",
        "tags",
        "tags[]",
        "sort",
        "exclude_params",
        "include_mocks",
    }
)


_REFUSED = (400, 404, 409, 410)
"""How the service refuses a task for a session that takes no more."""

_PAGE = 200
_MOST = 10_000
"""How many tasks a listing covers at most if the gateway has to merge it."""


class _Task(msgspec.Struct):
    id: str
    session_id: str | None = None
    created: str = ""


class _Listing(msgspec.Struct):
    jobs: list[msgspec.Raw]
    count: int = 0


class _Tags(msgspec.Struct):
    """The body of `PUT /jobs/{id}/tags`."""

    tags: list[str]


@ROUTES.post("/jobs")
@held
async def submit(request: web.Request, caller: Caller) -> web.StreamResponse:
    """Submit a task to a session of the lease: the one that it names, or the one that takes tasks.

    Once a budget is used up, none takes any.
    """
    gateway = request.app[GATEWAY]
    gateway.budgets.refuse_task(caller.lease)
    # The audit has the user's name, and looking that up may take a request to a directory.
    request["submitter"] = await gateway.pools.short.run(user_name, caller.lease.user_id)
    limit = gateway.settings.max_body
    if (request.content_length or 0) > limit:
        raise too_large(limit)
    submission = request["submission"] = Submission(caller, limit)
    length = request.content_length
    try:
        if length is not None and length <= SMALL:
            found = await _submit_at_once(request, caller, submission)
        else:
            sent_length = None if length is None else length + ROOM
            body = _checked(request, caller, submission, sent_length)
            found = await _send(request, caller, body, sent_length)
    except (ApiError, CutOffError):
        # An aborted request looks like a lost connection.
        if submission.refusal is not None:
            raise submission.refusal from None
        raise
    if found.status in _REFUSED and gateway.budgets.limits(caller.lease):
        # The session's life was over with its budget.
        session_id = submission.session_id or ""
        await gateway.pools.sessions.run(gateway.broker.refuse_task, caller.lease.id, session_id)
    if found.status in range(200, 300):
        task_id = request["task"] = _learn(gateway, caller, submission.session_id or "", found.body)
        watch = request.app[IBM].watch(caller.qpu.name)
        watch.submitted(caller, submission.session_id or "", task_id, private=submission.private)
        gateway.metrics.tasks.labels(caller.qpu.name).inc()
        gateway.metrics.input_bytes.labels(caller.qpu.name).inc(submission.size)
    return found.response()


async def _submit_at_once(request: web.Request, caller: Caller, submission: Submission) -> Copy:
    """Submit a task that is small enough to be in memory.

    Where it names no session, and the lease's has just executed a task, nothing is asked before. If that
    session takes no more tasks after all, the service refuses the task, and it is submitted to another one.
    """
    body = await small_body(request)
    submission.feed(body)
    submission.finish()
    session_id = caller.lease.session_id
    watch = request.app[IBM].watch(caller.qpu.name)
    if submission.session_id is not None or session_id is None or not watch.is_at_work(caller, session_id):
        return await _send(request, caller, await _in_a_session(request, caller, submission, body))
    found = await _send(request, caller, submission.name_session(session_id, body))
    if found.status in _REFUSED:
        other = await session_for_tasks(request, caller)
        if other != session_id:
            found = await _send(request, caller, submission.name_session(other, body))
    return found


async def _send(
    request: web.Request, caller: Caller, body: bytes | AsyncIterator[bytes], length: int | None = None
) -> Copy:
    """Send a submission to the service; return its answer."""
    headers = client_headers(request) | {"Accept-Encoding": "identity"}
    if length is not None:
        headers["Content-Length"] = str(length)
    upstream = request.app[IBM].upstream(caller.qpu.name)
    async with upstream.send("POST", "jobs", headers=headers, body=body, once=True) as answer:
        return await copy(answer, SMALL)


@ROUTES.get("/jobs")
@held
async def list_tasks(request: web.Request, caller: Caller) -> web.StreamResponse:
    """List the tasks of the lease's sessions."""
    asked = set(request.query.getall("session_id", []))
    sessions = [session_id for session_id in caller.sessions if asked <= {session_id}]
    upstream = request.app[IBM].upstream(caller.qpu.name)
    query = [(name, value) for name, value in query_of(request) if name in _FILTERS]
    headers = client_headers(request)
    if len(sessions) != 1:
        return json_answer(await _tasks_of(upstream, sessions, query, headers))
    query.append(("session_id", sessions[0]))
    async with upstream.send("GET", "jobs", query=query, headers=headers) as answer:
        return await relay(request, answer)


@ROUTES.get(_TASK)
@ROUTES.delete(_TASK)
@ROUTES.get(_TASK + "/{what:results|logs|metrics|interim_results|transpiled_circuits}")
@ROUTES.post(_TASK + "/{what:cancel}")
@held
async def task(request: web.Request, caller: Caller) -> web.StreamResponse:
    """Pass a request about a task on, if the task is the job's."""
    task_id, what = request.match_info["id"], request.match_info.get("what")
    session_id = await _owned(request, caller, task_id)
    watch = request.app[IBM].watch(caller.qpu.name)
    if request.method == "GET" and what is None and query_of(request) in QUERIES:
        found = await watch.state(request, caller, session_id, task_id)
    elif what == "results":
        found = await watch.result(request, caller, session_id, task_id)
    else:
        found = None
    more = {"Preference-Applied": "wait"} if what == "results" and wait_of(request) else {}
    if found is not None:
        return found.response(more)
    parts = ("jobs", task_id) if what is None else ("jobs", task_id, what)
    query, headers = query_of(request), client_headers(request)
    upstream = request.app[IBM].upstream(caller.qpu.name)
    async with upstream.send(request.method, *parts, query=query, headers=headers) as answer:
        if request.method != "GET":
            watch.touched(caller, task_id)
        return await relay(request, answer, more)


@ROUTES.put(f"{_TASK}/tags")
@held
async def set_tags(request: web.Request, caller: Caller) -> web.StreamResponse:
    """Replace a task's tags."""
    task_id = request.match_info["id"]
    body = msgspec.json.encode(await message(request, _Tags))
    await _owned(request, caller, task_id)
    headers = client_headers(request)
    upstream = request.app[IBM].upstream(caller.qpu.name)
    async with upstream.send("PUT", "jobs", task_id, "tags", headers=headers, body=body) as answer:
        request.app[IBM].watch(caller.qpu.name).touched(caller, task_id)
        return await relay(request, answer)


async def _checked(
    request: web.Request, caller: Caller, submission: Submission, length: int | None
) -> AsyncIterator[bytes]:
    """Pass a submission on, one piece behind, and add a session to it if need be.

    Args:
        request: The submission's request.
        caller: The job that submits.
        submission: Checks it.
        length: Bytes to pass on; None for as many as there are.
    """
    held_back = b""
    handed_on = 0
    async for piece in pieces(request):
        ended = submission.ended
        submission.feed(piece)
        if ended:
            continue
        if held_back:
            yield held_back
            handed_on += len(held_back)
        held_back = piece
    submission.finish()
    try:
        request.app[GATEWAY].callers.still(caller)  # it may have taken minutes
        held_back = await _in_a_session(request, caller, submission, held_back)
    except QpuSlurmError as error:
        submission.refusal = of_error(error)
        raise
    except ApiError as error:
        submission.refusal = error
        raise
    yield held_back
    missing = 0 if length is None else length - handed_on - len(held_back)
    while missing:
        blanks = b" " * min(missing, SMALL)
        yield blanks
        missing -= len(blanks)


async def _in_a_session(request: web.Request, caller: Caller, submission: Submission, last: bytes) -> bytes:
    """Return the end of a submission, with the lease's session if the submission names none."""
    if submission.session_id is not None:
        return last
    return submission.name_session(await session_for_tasks(request, caller), last)


async def _tasks_of(
    upstream: Upstream, sessions: Sequence[str], query: Query, headers: Mapping[str, str]
) -> dict[str, object]:
    """List the tasks of several sessions as one. The service lists one session at a time."""
    limit, offset = _number(query, "limit", _PAGE), _number(query, "offset", 0)
    rest = [(name, value) for name, value in query if name not in {"limit", "offset", "skip"}]
    found: list[msgspec.Raw] = []
    count = 0
    for session_id in sessions:
        page = [*rest, ("session_id", session_id), ("limit", str(offset + limit))]
        own = {**headers, "Accept-Encoding": "identity"}
        async with upstream.send("GET", "jobs", query=page, headers=own) as answer:
            listing = await read_as(answer, _Listing)
        found += listing.jobs
        count += listing.count
    ascending = dict(query).get("sort", "").upper() == "ASC"
    found.sort(key=lambda task: msgspec.json.decode(task, type=_Task).created, reverse=not ascending)
    return {"jobs": found[offset : offset + limit], "count": count, "limit": limit, "offset": offset}


def _number(query: Query, name: str, default: int) -> int:
    """Read a number from the query.

    Raises:
        ApiError: It is not a number, or too large.
    """
    text = dict(query).get(name, str(default))
    if not (text.isascii() and text.isdigit() and int(text[:10]) <= _MOST):
        raise invalid(f"{name} is no number from 0 to {_MOST}")
    return int(text)


async def _owned(request: web.Request, caller: Caller, task_id: str) -> str:
    """Check that a task is in one of the lease's sessions; return that session.

    Raises:
        ApiError: It is not, or it does not exist.
    """
    caller.newest()
    qpu, gateway = caller.qpu.name, request.app[GATEWAY]
    session_id = gateway.tasks.session(qpu, task_id)
    if session_id is None:
        query = [("exclude_params", "true")]
        async with request.app[IBM].upstream(qpu).send("GET", "jobs", task_id, query=query) as answer:
            session_id = (await read_as(answer, _Task)).session_id or ""
        gateway.tasks.learn(qpu, task_id, session_id)
    if session_id not in caller.sessions:
        raise forbidden(
            f"The task {task_id!r} is not this job's.",
            "A job reaches the tasks that were submitted in its own session. Use the id of one of them.",
        )
    return session_id


def _learn(gateway: Gateway, caller: Caller, session_id: str, document: bytes) -> str:
    """Remember the session of a submitted task, which saves a query; return the task's id."""
    try:
        task_id = msgspec.json.decode(document, type=_Task).id
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""
    gateway.tasks.learn(caller.qpu.name, task_id, session_id)
    return task_id
