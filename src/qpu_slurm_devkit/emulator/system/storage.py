# SPDX-License-Identifier: Apache-2.0
"""The object storage: moto's S3, in memory, behind a check of every request's signature.

moto takes any signature: a client that signs wrongly would pass here and fail at every real storage. So
each request is checked as S3 does (AWS Signature Version 4, in a header or in the query): who asks, what is
asked, and that a presigned URL has not expired. The signature is computed by botocore.
"""

from __future__ import annotations

import asyncio
import secrets
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit
from xml.sax.saxutils import escape

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from qpu_slurm_devkit.emulator.settings import Account

PREFIX = "/s3"

_HOP_BY_HOP = frozenset({"connection", "content-length", "transfer-encoding", "server", "date"})
_ALGORITHM = "AWS4-HMAC-SHA256"
_TIMESTAMP = "%Y%m%dT%H%M%SZ"
_SCOPE = 5  # access key id, day, region, service, "aws4_request"
_CLOCK_SKEW = 900.0


class StorageError(Exception):
    """The storage says no.

    Args:
        status: The HTTP status.
        code: S3's word for the error.
        message: What is wrong.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message

    def answer(self) -> web.Response:
        """Write it down as S3 does."""
        text = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{self.code}</Code><Message>{escape(self.message)}</Message>"
            f"<RequestId>{secrets.token_hex(8)}</RequestId></Error>"
        )
        return web.Response(status=self.status, text=text, content_type="application/xml")


class _Signed(NamedTuple):
    """What a request says of its signature."""

    scope: list[str]
    headers: str
    timestamp: str
    signature: str
    expires: float | None


class Storage:
    """One bucket for each account, which only that account's key opens.

    Args:
        accounts: Who may use it.
    """

    def __init__(self, accounts: Iterable[Account]) -> None:
        self._accounts = {account.storage.access_key_id: account for account in accounts}
        # One after another: what moto keeps is not made for several threads.
        self._thread = ThreadPoolExecutor(1, "storage")
        self._moto: Any = None

    def reset(self) -> None:
        """Forget every object; the buckets are made again when they are asked for."""
        self._moto = None

    async def answer(self, request: web.Request, now: float) -> web.Response:
        """Answer a request for an object or a bucket.

        Raises:
            StorageError: It is not signed by the owner of its bucket.
        """
        account = self._signer(request, now)
        request["account"] = account.name
        bucket = request.match_info["bucket"]
        if bucket != account.storage.bucket:
            raise StorageError(403, "AccessDenied", "Access Denied.")
        body = await request.read()
        path = request.raw_path.removeprefix(PREFIX)
        headers = dict(request.headers)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._ask, request.method, path, headers, body)

    def _ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> web.Response:
        """Ask moto."""
        client = self._client()
        response = client.open(path, method=method, data=body, headers=headers)
        kept = {name: value for name, value in response.headers if name.lower() not in _HOP_BY_HOP}
        return web.Response(status=response.status_code, body=response.get_data(), headers=kept)

    def _client(self) -> Any:  # noqa: ANN401 - werkzeug's test client, imported below
        """Return moto's server, with its buckets."""
        if self._moto is None:
            # It takes a second, and only tests of this API need it.
            from moto.backends import get_backend  # noqa: PLC0415
            from moto.moto_server.werkzeug_app import create_backend_app  # noqa: PLC0415
            from werkzeug.test import Client  # noqa: PLC0415

            get_backend("s3").reset()
            client = Client(create_backend_app("s3"))
            for account in self._accounts.values():
                client.open(f"/{account.storage.bucket}", method="PUT")
            self._moto = client
        return self._moto

    def _signer(self, request: web.Request, now: float) -> Account:
        """Find out who signed a request."""
        signed = _signed(request)
        account = self._accounts.get(signed.scope[0])
        if account is None:
            raise StorageError(403, "InvalidAccessKeyId", "The access key ID does not exist in our records.")
        begun = datetime.strptime(signed.timestamp, _TIMESTAMP).replace(tzinfo=UTC).timestamp()
        if signed.expires is None and abs(now - begun) > _CLOCK_SKEW:
            raise StorageError(
                403, "RequestTimeTooSkewed", "The request's time is too far from the server's."
            )
        if signed.expires is not None and now > begun + signed.expires:
            raise StorageError(403, "AccessDenied", "Request has expired.")
        expected = _signature(request, signed, account.storage.secret)
        if not secrets.compare_digest(expected.encode(), signed.signature.encode()):
            raise StorageError(
                403, "SignatureDoesNotMatch", "The signature we calculated does not match the one provided."
            )
        return account


def _signed(request: web.Request) -> _Signed:
    """Read where a request says who signed it, and how.

    Raises:
        StorageError: It does not say so, or not as S3 reads it.
    """
    try:
        signed = _in_query(request) if "X-Amz-Signature" in request.query else _in_header(request)
        if signed is not None:
            datetime.strptime(signed.timestamp, _TIMESTAMP).replace(tzinfo=UTC)
    except (KeyError, ValueError):
        signed = None
    if signed is None or len(signed.scope) != _SCOPE or "host" not in signed.headers.split(";"):
        raise StorageError(403, "AccessDenied", "Access Denied.")
    return signed


def _in_query(request: web.Request) -> _Signed:
    query = request.query
    return _Signed(
        query["X-Amz-Credential"].split("/"),
        query["X-Amz-SignedHeaders"],
        query["X-Amz-Date"],
        query["X-Amz-Signature"],
        float(query["X-Amz-Expires"]),
    )


def _in_header(request: web.Request) -> _Signed | None:
    algorithm, _, rest = request.headers["Authorization"].partition(" ")
    fields = dict(item.strip().split("=", 1) for item in rest.split(","))
    return (
        _Signed(
            fields["Credential"].split("/"),
            fields["SignedHeaders"],
            request.headers["X-Amz-Date"],
            fields["Signature"],
            None,
        )
        if algorithm == _ALGORITHM
        else None
    )


def _signature(request: web.Request, signed: _Signed, secret: str) -> str:
    """Compute what a request's signature has to be."""
    from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth  # noqa: PLC0415 - it takes a while
    from botocore.awsrequest import AWSRequest  # noqa: PLC0415 - likewise
    from botocore.credentials import Credentials  # noqa: PLC0415 - likewise

    access_key_id, _, region, service, _ = signed.scope
    kind = S3SigV4Auth if signed.expires is None else S3SigV4QueryAuth
    auth = kind(Credentials(access_key_id, secret), service, region)
    url = urlsplit(f"{request.scheme}://{request.host}{request.raw_path}")
    query = [
        (name, value)
        for name, value in parse_qsl(url.query, keep_blank_values=True)
        if name != "X-Amz-Signature"
    ]
    aws_request = AWSRequest(
        method=request.method,
        # S3 quotes the path anew before it compares, as long as it means the same.
        url=url._replace(path=quote(unquote(url.path), safe="/~"), query=urlencode(query)).geturl(),
        headers={name: request.headers.get(name, "") for name in signed.headers.split(";")},
    )
    aws_request.context["timestamp"] = signed.timestamp
    to_sign = auth.string_to_sign(aws_request, auth.canonical_request(aws_request))
    signature: str = auth.signature(to_sign, aws_request)
    return signature
