# SPDX-License-Identifier: Apache-2.0
"""What the gateway's routes share: the journal, the broker, job keys, the services behind it."""

from __future__ import annotations

import asyncio
import pwd
from collections import OrderedDict
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import aiohttp
import structlog
from aiohttp import web

from qpu_slurm.config.digest import digests
from qpu_slurm.errors import ConfigError, JournalDamagedError, JournalError
from qpu_slurm.gateway.callers import Callers
from qpu_slurm.gateway.connections import ConnectionLimiter
from qpu_slurm.gateway.keys import JobKeys
from qpu_slurm.gateway.limits import AtOnce, Credit, PerMinute
from qpu_slurm.gateway.metrics import Metrics
from qpu_slurm.gateway.pools import Pools
from qpu_slurm.gateway.starts import Starts
from qpu_slurm.gateway.state import State
from qpu_slurm.journal.database import set_aside
from qpu_slurm.journal.journal import Journal
from qpu_slurm.leases.broker import Broker
from qpu_slurm.leases.budgets import Budgets
from qpu_slurm.providers import Connections

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from qpu_slurm.config import Config, GatewayConfig
    from qpu_slurm.leases.availability import QpuReport

_READ_PATIENCE = 0.2
"""Seconds to wait for the journal in the event loop. Reading does not wait for writers."""

_REQUESTS = 64
"""Requests of one lease at once: several programs' worth of clients with a pool of connections each."""

_LOOKS_PER_MINUTE = 60
"""How often one user may query the QPUs within a minute: a bit more often than `watch` does."""

_HISTORIES = 2
_HISTORIES_PER_MINUTE = 30
"""Histories for one user, at once and within a minute. Each may need a query to Slurm."""

_TASKS_KNOWN = 100_000

_FINISH_SECONDS = 5.0
"""How long work in threads may still take when the gateway ends."""

_UNASKED = 64
"""Requests that the gateway may send for one lease without being asked, in a burst."""

_ADVANCE = 4
"""Requests that it may send before it has answered any by itself; a loop's first tasks pay them back."""

_log = structlog.get_logger(__name__)

T = TypeVar("T")


class Dialect(Protocol):
    """The state of the dialect for one kind of service, such as `ibm.dialect`."""

    def renew(self) -> None:
        """Apply the gateway's current keys, QPUs and connections."""


class Gateway:
    """The gateway's parts.

    Args:
        config: The configuration.

    Attributes:
        config: The current configuration.
        connections: The tokens and connections of the broker's accounts.
        broker: Grants leases and ends them. It blocks: see `pools`.
        reader: The journal, for the event loop, and for nothing else: reading takes no time there.
        observer: The journal, for whoever reads much of it: metrics, histories, how the QPUs are.
        background: The journal, for background work.
        budgets: What budgets say of jobs, for the event loop.
        callers: Finds the job that a request comes from.
        keys: Job keys.
        metrics: The metrics.
        tasks: The sessions of recent tasks, by QPU and task.
        pools: The threads for blocking work.
        starts: Starts jobs in the order in which they asked.
        limiter: Limits the connections.
        requests: Limits the requests of a lease at once.
        credit: Bounds what is asked for a lease unasked.
        sessions: Limits how often a lease opens a session.
        histories: Limits a user's queries for histories at once.
        histories_per_minute: Limits them within a minute.
        looks_per_minute: Limits a user's queries for the QPUs' state within a minute.
        dialects: The dialects of the services' clients. They are renewed with the gateway.
        ended: Set when sessions have ended: wakes the accountant.
        trusted: The users that may acquire and release.
        reports: The QPUs' state at the last check; None before the first one.
        certificate_ends: When the certificate ends, in seconds since the epoch; None without TLS.
        looked: Set after the first check.
        recovering: Whether the journal was lost, and the reaper has not restored its leases from Slurm yet.
        socket: Who holds the gateway's socket under systemd: `systemd` or `own`.
        finished: Whether all threads have ended, once the gateway has stopped.
        digests: The digests of `config`. `qpu-slurm check` compares them with those of the file.

    Raises:
        ConfigError: It cannot be used.
        JournalError: The journal cannot be opened.
    """

    def __init__(self, config: Config) -> None:
        settings = _settings(config)
        self.tasks = KnownTasks()
        self.pools = Pools()
        self.requests = AtOnce(_REQUESTS, f"The job has {_REQUESTS} requests", "requests_of_a_lease")
        self.credit = Credit(_UNASKED, _ADVANCE)
        self.sessions = PerMinute(
            settings.sessions_per_minute, "The job has opened {limit} sessions", "sessions_per_minute"
        )
        self.histories = AtOnce(_HISTORIES, "Several of your requests for a history are", "histories")
        self.histories_per_minute = PerMinute(
            _HISTORIES_PER_MINUTE, "You have asked for {limit} histories", "histories_per_minute"
        )
        self.looks_per_minute = PerMinute(
            _LOOKS_PER_MINUTE, "You have asked {limit} times for the state of the QPUs", "qpus_per_minute"
        )
        self.dialects: list[Dialect] = []
        self.ended = asyncio.Event()
        self.socket: Literal["systemd", "own", ""] = ""
        self.finished = True
        self.reports: tuple[QpuReport, ...] | None = None
        self.certificate_ends: float | None = None
        self.looked = asyncio.Event()
        self._exit = ExitStack()
        # A secret without its journal: jobs may have keys of leases that the journal has lost.
        lost = JobKeys.made(config.journal) and not config.journal.exists()
        self._losses = _made_sound(config.journal)
        self.recovering = lost or bool(self._losses)
        with ExitStack() as on_failure:
            self.journal = on_failure.enter_context(Journal(config.journal))
            # Requests read through their own connection, which never waits for a writer.
            self.reader = on_failure.enter_context(Journal(config.journal, patience=_READ_PATIENCE))
            # Who waits for SQLite keeps a connection's other users waiting: not an acquire, for the reaper.
            self.background = on_failure.enter_context(Journal(config.journal))
            # What takes a while to read keeps its connection's other users waiting: no request, for metrics.
            self.observer = on_failure.enter_context(Journal(config.journal, patience=_READ_PATIENCE))
            self.config = config  # which the metrics describe
            self.metrics = Metrics(State(self, self.observer))
            self.starts = Starts(self.pools.acquire, self.metrics)
            self.limiter = ConnectionLimiter(settings, self.metrics)
            self._client: aiohttp.ClientSession | None = None
            self.use(config)
            self._exit = on_failure.pop_all()
        self._tasks: set[asyncio.Task[None]] = set()
        self._given_up: set[asyncio.Task[Any]] = set()

    @property
    def losses(self) -> list[str]:
        """The times since its start that the gateway found the journal deleted or damaged."""
        return [*self._losses, *(loss for journal in self._journals for loss in journal.losses)]

    @property
    def damage(self) -> str:
        """The current damage of the journal's file; empty if there is none."""
        return next((journal.damage for journal in self._journals if journal.damage), "")

    def mend_journal(self) -> None:
        """Replace a damaged journal by a new one; see `leases/takeover.py`.

        Raises:
            JournalError: That is not possible.
        """
        self.recovering = True
        for journal in self._journals:
            if journal.damage:
                journal.begin_anew()

    @property
    def _journals(self) -> tuple[Journal, ...]:
        return self.journal, self.reader, self.background, self.observer

    def use(self, config: Config) -> None:
        """Apply a configuration, and read keys and secrets again.

        Requests under way end with the settings that they began with.

        Args:
            config: The configuration.

        Raises:
            ConfigError: It cannot be used. Nothing has changed then.
        """
        settings, trusted = _settings(config), _trusted(config)
        # Only this secret is read at once; the services' keys are read when they are needed.
        self.keys = JobKeys.beside(config.journal)
        self.config, self.settings, self.trusted = config, settings, trusted
        self.digests = digests(config)
        self.callers = Callers(config, self.reader, self.keys, lambda: self.recovering)
        # New ones, since the old ones have the old keys.
        self.connections = Connections()
        self.broker = Broker(config, self.journal, self.connections.connect)
        self.budgets = Budgets(config, self.reader)
        self.sessions.limit = settings.sessions_per_minute
        self.limiter.use_settings(settings)
        self.metrics.show(config)
        if self._client is not None:
            self._renew_dialects()

    async def start(self) -> None:
        """Open the connections to the services."""
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self.settings.max_connections, limit_per_host=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )
        self._renew_dialects()

    def _renew_dialects(self) -> None:
        for dialect in self.dialects:
            dialect.renew()

    @property
    def client(self) -> aiohttp.ClientSession:
        """The connections to the services, once the gateway has started."""
        if self._client is None:
            raise RuntimeError("the gateway has not started")
        return self._client

    async def stop(self) -> None:
        """Close everything, after background work and threads have finished.

        This does not wait for a service that does not answer. The journal has a record of unfinished work,
        which the next gateway continues, as after a crash.
        """
        for task in self._given_up:
            task.cancel()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_FINISH_SECONDS)
            for task in late:
                task.cancel()
        if self._client is not None:
            await self._client.close()
        self.finished = await self.pools.stop(_FINISH_SECONDS)
        if self.finished:
            self._exit.close()
        else:
            _log.warning("what waits for a service is cut off: the next gateway carries on")

    def later(self, what: Coroutine[None, None, None]) -> None:
        """Run something in the background, which finishes before the gateway ends."""
        task = asyncio.get_running_loop().create_task(what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def meanwhile(self, what: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run something in the background, which is cancelled when the gateway ends."""
        task = asyncio.get_running_loop().create_task(what)
        self._given_up.add(task)
        task.add_done_callback(self._given_up.discard)
        return task


def _made_sound(path: Path) -> list[str]:
    """Replace the journal if it is damaged, and log that."""
    try:
        with Journal(path) as journal:
            try:
                journal.check()
            except JournalDamagedError:
                journal.begin_anew()
            return list(journal.losses)
    except JournalDamagedError as error:
        # Even its first page cannot be read.
        try:
            aside = set_aside(path, "damaged")
        except OSError as failure:
            raise JournalError(f"{error} It cannot be renamed: {failure.strerror}.") from None
        _log.error("the journal is damaged", why=str(error), path=str(aside))
        return [f"It was damaged. It was renamed to {aside.name}, and a new one was made."]


def _settings(config: Config) -> GatewayConfig:
    if config.gateway is None:
        raise ConfigError(f"{config.path}: has no [gateway] table. The gateway needs one.")
    return config.gateway


def _trusted(config: Config) -> frozenset[int]:
    """Return the users that may acquire and release: root, the journal's owner, and `trusted_users`."""
    found = {0, config.journal.stat().st_uid}
    for user in _settings(config).trusted_users:
        try:
            found.add(user if isinstance(user, int) else pwd.getpwnam(user).pw_uid)
        except KeyError:
            raise ConfigError(
                f"{config.path}: [gateway] trusted_users: there is no user {user!r} on this host."
            ) from None
    return frozenset(found)


class KnownTasks:
    """Remembers the sessions of the tasks that were queried last. A task's session never changes."""

    def __init__(self, size: int = _TASKS_KNOWN) -> None:
        self._size = size
        self._sessions: OrderedDict[tuple[str, str], str] = OrderedDict()

    def session(self, qpu: str, task_id: str) -> str | None:
        """Return a task's session; None if it is not known."""
        key = (qpu, task_id)
        session_id = self._sessions.get(key)
        if session_id is not None:
            self._sessions.move_to_end(key)
        return session_id

    def learn(self, qpu: str, task_id: str, session_id: str) -> None:
        """Remember a task's session."""
        self._sessions[qpu, task_id] = session_id
        if len(self._sessions) > self._size:
            self._sessions.popitem(last=False)


GATEWAY = web.AppKey("gateway", Gateway)
