# SPDX-License-Identifier: Apache-2.0
"""The gateway's process: it listens, reaps, notifies its supervisor, and stops cleanly."""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
import sys
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Self

import structlog
from aiohttp import web

from qpu_slurm.errors import QpuSlurmError
from qpu_slurm.gateway.accounting import keep_account
from qpu_slurm.gateway.app import build
from qpu_slurm.gateway.connections import Connection
from qpu_slurm.gateway.drain import drain
from qpu_slurm.gateway.gateway import Gateway
from qpu_slurm.gateway.jobs import JOBS
from qpu_slurm.gateway.listening import certificate_of, listen, load_certificate
from qpu_slurm.gateway.reload import Hangup
from qpu_slurm.gateway.requests import SMALL
from qpu_slurm.leases.availability import Availability
from qpu_slurm.leases.broker import Broker
from qpu_slurm.leases.reaper import Reaper
from qpu_slurm.slurm.control import Control
from qpu_slurm.slurm.licenses import Licenses
from qpu_slurm.slurm.query import connect
from qpu_slurm.system.certificates import ends_at
from qpu_slurm.system.systemd import notify, supervised, watchdog_seconds

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from qpu_slurm.config import Config, GatewayConfig
    from qpu_slurm.gateway.jobs import Jobs
    from qpu_slurm.leases.reaper import Report

_KEEP_ALIVE = 75.0
"""Seconds that a connection may be idle, also before its first request."""

_CUT_OFF_SECONDS = 0.5
"""Seconds in which a request may end that is cut off when the gateway stops."""

_OTHER_FILES = 256

_SWITCH_SECONDS = 0.0005
"""How long a thread that computes keeps the event loop from going on. Python's own 5 ms would come after
each read of the journal, and a request reads several times. The reaper computes for 0.3 s beside 10,000
leases."""

_log = structlog.get_logger(__name__)


async def serve(config: Config, *, stop: asyncio.Event, announce: Callable[[str], None]) -> bool:
    """Serve until `stop` is set.

    Args:
        config: What the admin wrote.
        stop: Set it to stop the gateway.
        announce: Called with the URL as soon as the gateway answers requests.

    Returns:
        Whether all work has finished. If not, the process has to exit without waiting for its threads.

    Raises:
        ConfigError: It cannot be used, or the address cannot be listened on.
        JournalError: The journal cannot be opened.
    """
    gateway = Gateway(config)
    settings = gateway.settings
    certificate = certificate_of(settings)
    gateway.certificate_ends = ends_at(certificate, settings.certificate)
    sys.setswitchinterval(_SWITCH_SECONDS)
    _allow_files(settings)
    app = build(gateway)
    runner = web.AppRunner(
        app,
        access_log=None,  # ours is a middleware
        auto_decompress=False,
        keepalive_timeout=_KEEP_ALIVE,
        read_bufsize=SMALL,
        shutdown_timeout=_CUT_OFF_SECONDS,
    )
    async with AsyncExitStack() as stack:
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        if runner.server is None:
            raise AssertionError("set up, and no server")
        server = runner.server
        listener = await listen(settings, certificate, lambda: Connection(gateway.limiter, server()))
        stack.push_async_callback(listener.close)
        if listener.held:
            gateway.socket = "systemd"
        elif supervised():
            gateway.socket = "own"
        for chore in (_reap(gateway, app[JOBS]), keep_account(gateway), _live()):
            stack.push_async_callback(_end, asyncio.create_task(chore))
        # What exists now stays. Scanning it in each garbage collection would stop the loop for long.
        gc.collect()
        gc.freeze()
        url = listener.url
        hangup = Hangup(gateway, url, partial(_certify, gateway, certificate) if certificate else None)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hangup)
        announce(url)
        notify(f"READY=1\nSTATUS=Listens on {url}")
        _log.info("gateway listens", url=url, held_by_systemd=listener.held)
        await stop.wait()
        notify("STOPPING=1\nSTATUS=Answers the last requests")
        _log.info("gateway stops")
        await listener.close()
        await drain(gateway.limiter)
    return gateway.finished


def _certify(gateway: Gateway, context: ssl.SSLContext, settings: GatewayConfig) -> None:
    """Use a renewed certificate; see `load_certificate` for the error."""
    load_certificate(settings, context)
    gateway.certificate_ends = ends_at(context, settings.certificate)


# Its background work.


class _Caretaker(NamedTuple):
    """The reaper and availability, by one configuration."""

    reaper: Reaper
    availability: Availability

    @classmethod
    def of(cls, gateway: Gateway) -> Self:
        config, journal = gateway.config, gateway.background
        to_service = gateway.connections.connect
        slurm = config.slurm
        return cls(
            Reaper(config, Broker(config, journal, to_service), journal, connect(slurm)),
            Availability(config, journal, Control(slurm), Licenses(slurm), to_service),
        )


async def _reap(gateway: Gateway, jobs: Jobs) -> None:
    """Run the reaper at its interval."""
    config, caretaker = gateway.config, _Caretaker.of(gateway)
    while True:
        if config is not gateway.config:  # it was reloaded
            config, caretaker = gateway.config, _Caretaker.of(gateway)
        report: Report | None = None
        try:
            if gateway.damage:
                await gateway.pools.background.run(gateway.mend_journal)
            report = await gateway.pools.background.run(caretaker.reaper.run)
        except QpuSlurmError as error:
            _log.error("the reaper failed", why=str(error))
        except Exception:  # noqa: BLE001 - it has to try again, whatever it was
            _log.exception("the reaper failed")
        else:
            # Of a lost journal, leases are restored once Slurm has answered.
            gateway.recovering &= bool(report.trouble)
            await jobs.write(caretaker.reaper.unwritten)
            if any(reaped.lease.state.final for reaped in report.reaped):
                gateway.ended.set()
        gateway.metrics.note_run(report, config.qpus)
        await _keep_available(gateway, *caretaker)
        await asyncio.sleep(gateway.settings.reap_every)


async def _keep_available(gateway: Gateway, reaper: Reaper, availability: Availability) -> None:
    """Have jobs wait in Slurm's queue for QPUs that are not available."""
    try:
        await gateway.pools.background.run(availability.keep, reaper.jobs)
    except QpuSlurmError as error:
        _log.warning("Slurm could not be told which QPUs are available", why=str(error))
    except Exception:  # noqa: BLE001 - it has to try again, whatever it was
        _log.exception("looking after the QPUs failed")
    # Users get the result even if Slurm could not be told.
    gateway.reports = availability.reports
    if gateway.reports is not None:
        gateway.looked.set()


async def _live() -> None:
    """Notify the supervisor's watchdog as long as the event loop runs."""
    seconds = watchdog_seconds()
    while seconds is not None:
        notify("WATCHDOG=1")
        await asyncio.sleep(seconds / 3)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _allow_files(settings: GatewayConfig) -> None:
    """Raise the limit of open files: one for each connection of a client, and as many to the services."""
    needed = 2 * (settings.max_connections + settings.reserved_connections) + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY in {soft, hard} or soft >= needed:
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(needed, hard), hard))
    if hard < needed:
        _log.warning(
            "too few open files for max_connections", allowed=hard, needed=needed, remedy="LimitNOFILE"
        )


def stop_on_signals(stop: asyncio.Event) -> None:
    """Set an event when the process is to end."""
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
