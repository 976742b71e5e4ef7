# SPDX-License-Identifier: Apache-2.0
"""Big answers in pieces, so that their size costs no memory; one that breaks off is taken up where it did."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from urllib3.exceptions import HTTPError

from qpu_slurm.errors import UnavailableError
from qpu_slurm.providers.ibm.answers import quote
from qpu_slurm.providers.ibm.http import finished
from qpu_slurm.system.backoff import backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from urllib3 import BaseHTTPResponse

PIECE = 1 << 18

_STALLS = 2

_log = logging.getLogger(__name__)


def pieces(ask: Callable[[], BaseHTTPResponse], what: str) -> Iterator[bytes]:
    """Read an answer in pieces.

    Args:
        ask: Asks for the answer, from its beginning.
        what: What it is, at the beginning of a sentence.

    Raises:
        UnavailableError: It breaks off time and again, without a byte more.
    """
    delivered = stalled = 0
    while True:
        response = ask()
        before = delivered
        try:
            with finished(response):
                for piece in _skip(response.stream(PIECE, decode_content=True), delivered):
                    delivered += len(piece)
                    yield piece
        except HTTPError as error:
            stalled = 0 if delivered > before else stalled + 1
            if stalled > _STALLS:
                why = f"after {delivered} bytes: {quote(str(error))}"
                raise UnavailableError(f"{what} breaks off {why}.") from None
            _log.warning("%s broke off after %d bytes, and is read on.", what, delivered)
            time.sleep(backoff(stalled))
        else:
            return


def _skip(parts: Iterator[bytes], length: int) -> Iterator[bytes]:
    """Leave out the first bytes."""
    for piece in parts:
        rest = piece[length:]
        length = max(length - len(piece), 0)
        if rest:
            yield rest
