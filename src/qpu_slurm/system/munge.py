# SPDX-License-Identifier: Apache-2.0
"""Who is asking: MUNGE credentials, through the system's libmunge.

A credential is made by munged for whoever asks it, and names him. Every host of a Slurm cluster has a munged
with the same key, so any of them can tell who made a credential, within minutes, once. The interface is that
of munge(3), munge_ctx(3) and munge_enum(3).
"""

from __future__ import annotations

import ctypes
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from qpu_slurm.errors import QpuSlurmError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LIBRARY = "libmunge.so.2"

_OPT_SOCKET = 8
_OPT_UID_RESTRICTION = 9

_ERR_SOCKET = 6
_ERR_TIMEOUT = 7
_ERR_CRED_EXPIRED = 15
_ERR_CRED_REWOUND = 16
_ERR_CRED_REPLAYED = 17


class UnprovenError(QpuSlurmError):
    """A credential does not prove who asks."""


class ExpiredError(UnprovenError):
    """It is too old, or comes from a host whose clock is ahead."""


class ReplayedError(UnprovenError):
    """It was shown before."""


class InvalidError(UnprovenError):
    """It was not made by a munged of this cluster, or for somebody else to read."""


_UNPROVEN = {
    _ERR_CRED_EXPIRED: ExpiredError,
    _ERR_CRED_REWOUND: ExpiredError,
    _ERR_CRED_REPLAYED: ReplayedError,
}


class Caller(NamedTuple):
    """Who made a credential, and what he put into it."""

    uid: int
    gid: int
    payload: bytes


def encode(payload: bytes, *, socket: Path | None = None, restrict_uid: int | None = None) -> str:
    """Make a credential that names this process's effective user.

    Args:
        payload: What it shall hold; anybody on the cluster who gets it can read that.
        socket: Where munged listens; None leaves it to libmunge.
        restrict_uid: The only user who may decode it.

    Raises:
        UnavailableError: munged or libmunge is not there.
    """
    library = _library()
    text = ctypes.c_char_p()
    with _context(socket) as context:
        if restrict_uid is not None:
            _set(context, _OPT_UID_RESTRICTION, ctypes.c_int(restrict_uid))
        error = library.munge_encode(ctypes.byref(text), context, payload, len(payload))
        try:
            if error or text.value is None:
                raise UnavailableError(f"MUNGE made no credential: {_words(context, error)}.")
            return text.value.decode("ascii")
        finally:
            library.free(text)


def decode(credential: str, *, socket: Path | None = None) -> Caller:
    """Tell who made a credential; each is good for one time.

    Args:
        credential: What `encode` made, somewhere on the cluster; hostile.
        socket: Where munged listens; None leaves it to libmunge.

    Raises:
        UnprovenError: It proves nothing: see `ExpiredError`, `ReplayedError` and `InvalidError`.
        UnavailableError: munged or libmunge is not there.
    """
    library = _library()
    payload, length = ctypes.c_void_p(), ctypes.c_int()
    uid, gid = ctypes.c_uint32(), ctypes.c_uint32()
    try:
        text = credential.encode("ascii")
    except UnicodeEncodeError:
        text = b""
    if not text or b"\0" in text:
        raise InvalidError("This is no MUNGE credential.")
    with _context(socket) as context:
        error = library.munge_decode(text, context, *map(ctypes.byref, (payload, length, uid, gid)))
        try:
            if error in {_ERR_SOCKET, _ERR_TIMEOUT}:
                raise UnavailableError(f"MUNGE read no credential: {_words(context, error)}.")
            if error:
                raise _UNPROVEN.get(error, InvalidError)(
                    f"The MUNGE credential is refused: {_words(context, error)}."
                )
            content = ctypes.string_at(payload, length.value) if payload else b""
            return Caller(uid.value, gid.value, content)
        finally:
            # An expired or replayed one was unpacked as well.
            library.free(payload)


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise UnavailableError(
            f"MUNGE cannot be used: {error}. On Debian, its package is libmunge2."
        ) from None
    library.munge_ctx_create.restype = ctypes.c_void_p
    library.munge_ctx_create.argtypes = ()
    library.munge_ctx_destroy.restype = None
    library.munge_ctx_destroy.argtypes = (ctypes.c_void_p,)
    # The option's value follows, of a type of its own each.
    library.munge_ctx_set.argtypes = (ctypes.c_void_p, ctypes.c_int)
    library.munge_ctx_strerror.restype = ctypes.c_char_p
    library.munge_ctx_strerror.argtypes = (ctypes.c_void_p,)
    library.munge_strerror.restype = ctypes.c_char_p
    library.munge_strerror.argtypes = (ctypes.c_int,)
    library.munge_encode.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int)
    library.munge_decode.argtypes = (ctypes.c_char_p, *[ctypes.c_void_p] * 5)
    # The C library's: libmunge needs it, so it is found through libmunge.
    library.free.restype = None
    library.free.argtypes = (ctypes.c_void_p,)
    return library


@contextmanager
def _context(socket: Path | None) -> Iterator[int]:
    """Yield a munge_ctx_t, which belongs to one thread."""
    context = _library().munge_ctx_create()
    if not context:
        raise MemoryError
    try:
        if socket is not None:
            _set(context, _OPT_SOCKET, ctypes.c_char_p(bytes(socket)))
        yield context
    finally:
        _library().munge_ctx_destroy(context)


def _set(context: int, option: int, value: ctypes.c_char_p | ctypes.c_int) -> None:
    if error := _library().munge_ctx_set(context, option, value):
        raise UnavailableError(f"MUNGE cannot be used: {_words(context, error)}.")


def _words(context: int, error: int) -> str:
    """Return libmunge's own words; they hold nothing of the credential."""
    library = _library()
    said = library.munge_ctx_strerror(context) or library.munge_strerror(error) or b"an unknown error"
    return str(said.decode(errors="replace")).rstrip(".")
