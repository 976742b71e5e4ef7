# SPDX-License-Identifier: Apache-2.0
"""Logs for machines: JSON, one event a line, UTC, and no credential in any of them.

    log = structlog.get_logger()
    log.info("session_opened", job_id=7, qpu="ibm_fez")

Whatever goes through the standard library's `logging` (our provider, urllib3) takes the same way. A line is
one write to a file opened for appending, so that hooks that run at once do not mix theirs.

Credentials are taken out of everything that is logged: fields named like one, `Secret`s, what looks like a
bearer token, a JWT or `apikey=…`, the signature of a presigned URL, and the value of every `Secret` that this
process holds, as it is or as a form field.

What an auditor asks for is logged with `audit`, whatever the level, and goes to the system's log as well if
the admin wants that:

    logs.audit("task submitted", user_id=1000, job_id=7, qpu="ibm_fez", task="…", bytes=1234)
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote_plus

import msgspec
import structlog

from qpu_slurm.errors import ConfigError
from qpu_slurm.system.secret import Secret, live_secrets

if TYPE_CHECKING:
    import socket
    from collections.abc import MutableMapping

_HIDDEN = "***"

_SECRET_NAME = re.compile(r"api_?-?key|token|authorization|passw|secret|credential|cookie", re.IGNORECASE)
"""A field of such a name is hidden, whatever is in it."""

_SECRET_TEXT = re.compile(
    r"""
    (?P<name>
        (?: api[_-]?key | token | authorization | password | secret | signature ) [\\"']* \s* [=:] \s* [\\"']*
    )?
    (?: \b (?: bearer | basic | apikey ) \s+ [\w.~+/=-]+
      | \b eyJ [\w-]{6,} \. [\w-]+ (?: \. [\w-]* )?
      # An error's code follows what it is about as a value follows its name: it is none.
      | (?(name) (?! \[ (?: Errno\ -?\d+ | SSL\b[^\]\s]* | SSL:\ \w+ ) \] ) [^\s\\"'&,;}]+ | (?!) )
    )
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""What looks like a credential in a text: after its scheme, a JWT, or after its name."""

_SHORTEST_KEY = 6
"""A shorter value is in so many words that hiding it would hide them all."""

_STDERR = 2
_LONGEST_TEXT = 8192
_DEEPEST = 8


def configure(level: str = "info", path: Path | None = None, syslog: Path | None = None) -> None:
    """Send logs to a file or to stderr, as the module says; called again, to another or to a new one.

    Args:
        level: The least severe events that are logged: `debug`, `info`, `warning` or `error`.
        path: The log file, made with mode 0640 if it is not there; None logs to stderr.
        syslog: The socket of the system's log, which gets what is logged with `audit` as well; None: not.

    Raises:
        ConfigError: The file cannot be written. Everything is logged as it was before.
    """
    global _syslog
    severity = logging.getLevelNamesMapping()[level.upper()]
    writer = _writer_to(_open(path))
    previous, _syslog = _syslog, None if syslog is None else _SystemLog(syslog)
    if previous is not None:
        previous.close()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            redact,
            _render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(severity),
        logger_factory=lambda *_names: writer,
        cache_logger_on_first_use=False,
    )
    logging.root.handlers[:] = [_ToStructlog()]
    logging.root.setLevel(severity)


def redact(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Take the credentials out of an event, and make plain JSON values of what it holds.

    A processor for structlog; the last but one, since what comes after it is logged.
    """
    return {_clean_text(str(name)): _clean(value, str(name)) for name, value in event.items()}


def audit(event: str, *, severity: Literal["info", "warning"] = "info", **fields: object) -> None:
    """Log what an auditor asks for: who did what, with which outcome. No level leaves it out.

    Args:
        event: What was done, or refused.
        severity: How it is marked.
        fields: To whom, by whom, how much; whatever is logged of it is redacted as everywhere.
    """
    # To where structlog was configured to log last: the file, or a test's list.
    logger = structlog.wrap_logger(None, wrapper_class=_AuditLogger).bind(audit=True)
    logger.log(severity, event, fields)


class _AuditLogger(structlog.BoundLoggerBase):
    """A logger that no level filters; what it logs goes to the system's log, too."""

    def log(self, severity: str, event: str, fields: dict[str, Any]) -> None:
        with contextlib.suppress(structlog.DropEvent):  # a test's capture_logs takes it
            (line,), _ = self._process_event(severity, event, fields)
            self._logger.msg(line)
            if _syslog is not None:
                _syslog.send(line, severity)


class _SystemLog(logging.handlers.SysLogHandler):
    """The system's log, as the standard library reaches it. One that is away, or stuck, is not waited for."""

    ident = "qpu-slurm: "
    socket: socket.socket

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), facility=self.LOG_AUTHPRIV)

    def send(self, line: bytes, severity: str) -> None:
        """Send a line of ours."""
        self.handle(logging.makeLogRecord({"msg": line.decode(), "levelname": severity.upper()}))

    def _connect_unixsocket(self, address: str) -> None:
        """Connect, at first and again: a daemon that takes nothing must stop nobody."""
        super()._connect_unixsocket(address)  # type: ignore[misc] # its name in every release; not in typeshed
        self.socket.settimeout(0)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the standard library's name
        """Lose it: the log file has it, and there is nowhere else to complain."""


_syslog: _SystemLog | None = None


class _ToStructlog(logging.Handler):
    """Hands the standard library's log records on to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            fields = {"logger": record.name, **getattr(record, "fields", {})}
            log = structlog.get_logger()
            log.log(record.levelno, record.getMessage(), exc_info=record.exc_info or None, **fields)
        except Exception:  # noqa: BLE001 - as every handler: a log record must not end what it reports
            self.handleError(record)


class _Writer:
    """What structlog logs to: each line is one write, and one that cannot be written is lost."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def turn_to(self, descriptor: int) -> None:
        """Write to another file from now on; takes the descriptor.

        A file's number stays: a thread that is about to write would find something else under a number that
        was closed meanwhile.
        """
        if self._descriptor == _STDERR:
            self._descriptor = descriptor
            return
        os.dup2(descriptor, self._descriptor, inheritable=False)
        if descriptor != _STDERR:
            os.close(descriptor)

    def msg(self, line: bytes) -> None:
        with contextlib.suppress(OSError):  # a full disk must not keep a job from its QPU
            os.write(self._descriptor, line + b"\n")

    debug = info = warning = error = critical = exception = fatal = log = msg


_writer: _Writer | None = None


def _writer_to(descriptor: int) -> _Writer:
    """Return this process's one writer, which writes to the descriptor's file from now on."""
    global _writer  # noqa: PLW0603 - one for the process, as structlog's configuration is
    if _writer is None:
        _writer = _Writer(descriptor)
    else:
        _writer.turn_to(descriptor)
    return _writer


def _open(path: Path | None) -> int:
    if path is None:
        return _STDERR
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise ConfigError(f"{path}: the log cannot be written ({error.strerror}).") from None


def _render(_logger: object, _method: str, event: MutableMapping[str, Any]) -> bytes:
    return msgspec.json.encode(event)


def _clean(value: object, name: str = "", depth: int = 0) -> object:
    """Make a plain, harmless value of one that was logged under a name."""
    if isinstance(value, bool | int | float | None):
        return value
    if isinstance(value, Secret) or _SECRET_NAME.search(name):
        return _HIDDEN
    if isinstance(value, str):
        return _clean_text(value)
    if depth < _DEEPEST and isinstance(value, dict):
        return {_clean_text(str(key)): _clean(item, str(key), depth + 1) for key, item in value.items()}
    if depth < _DEEPEST and isinstance(value, list | tuple | set | frozenset):
        return [_clean(item, "", depth + 1) for item in value]
    return _clean_text(str(value) if isinstance(value, BaseException | Path) else repr(value))


def _clean_text(text: str) -> str:
    for secret in live_secrets():
        # As a form field it is no shorter; most texts are, and need no further look.
        if _SHORTEST_KEY <= len(secret) <= len(text):
            text = text.replace(secret, _HIDDEN).replace(quote_plus(secret), _HIDDEN)
    text = _SECRET_TEXT.sub(lambda found: f"{found['name'] or ''}{_HIDDEN}", text)
    if len(text) > _LONGEST_TEXT:
        text = f"{text[:_LONGEST_TEXT]}… ({len(text)} characters)"
    # What came from the environment or a command line may hold bytes that are no text.
    return text.encode("utf-8", "backslashreplace").decode()
