# SPDX-License-Identifier: Apache-2.0
"""The object storage (S3) through which tasks' inputs, results and logs travel."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from qpu_slurm.errors import NotFoundError, RefusedError
from qpu_slurm.providers.ibm import answers
from qpu_slurm.providers.ibm.http import Http
from qpu_slurm.system.deadline import NEVER, Deadline

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from urllib3 import BaseHTTPResponse

    from qpu_slurm.providers.base import Pieces
    from qpu_slurm.providers.ibm import Patience
    from qpu_slurm.providers.ibm_system.access import Storage

T = TypeVar("T")

_OWN_SECONDS = 900
"""How long a URL is good that we use ourselves; more than any request lasts, its repetitions included."""

_SERVICE_SECONDS = 7 * 86_400
"""How long one is good that the service gets: its turn may come late, and S3 allows no more."""

_NOT_FOUND = 404

_KEY = re.compile(rb"<Key>([\x21-\x7e]{1,1024}?)</Key>")
"""An object's name in a listing."""


class Bucket:
    """One bucket.

    Every request carries its signature in the URL, so that the ordinary HTTP client sends it. Such a URL is
    as good as a key for its one object: it goes into no log and no error.

    Args:
        storage: Where it is, and its key.
        patience: How long is waited.
        deadline: When everything gives up at the latest.
        beside: Another one: they share connections.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        patience: Patience,
        deadline: Deadline = NEVER,
        beside: Bucket | None = None,
    ) -> None:
        self._storage = storage
        self._credentials = Credentials(storage.access_key_id, storage.secret.reveal())
        self._endpoint = storage.endpoint.rstrip("/")
        self._http: Http = Http(
            self._endpoint,
            {"Accept": "*/*"},
            patience=patience,
            deadline=deadline,
            beside=None if beside is None else beside._http,  # noqa: SLF001 - our own kind
        )

    @property
    def name(self) -> str:
        """Its name."""
        return self._storage.bucket

    def presign(self, method: str, key: str) -> str:
        """Return a URL by which the QPU's service reads (`GET`) or writes (`PUT`) an object."""
        endpoint = self._storage.service_endpoint or self._endpoint
        return self._signed(method, endpoint.rstrip("/"), key, _SERVICE_SECONDS)

    def put(self, key: str, body: bytes | Pieces) -> None:
        """Write an object."""
        self._call("PUT", key, answers.read, body=body)

    def open(self, key: str) -> BaseHTTPResponse:
        """Begin to read an object; the answer's body is streamed.

        Raises:
            NotFoundError: It is not there.
        """
        return self._call("GET", key, lambda response: response)

    def head(self, key: str, limit: int) -> bytes:
        """Read an object's first bytes; none if it is not there."""
        try:
            return self._call("GET", key, lambda response: answers.read_some(response, limit))
        except NotFoundError:
            return b""

    def delete(self, key: str) -> None:
        """Delete an object. Deleted already is fine."""
        self._call("DELETE", key, answers.read)

    def delete_all(self, prefix: str) -> None:
        """Delete every object whose name begins so; it has only signs that stand for themselves in XML."""
        while keys := self._listed(prefix):
            for key in keys:
                self.delete(key)

    def _listed(self, prefix: str) -> list[str]:
        """List the first objects, a thousand at most, whose names begin so."""
        listing = self._call("GET", "", answers.read, query={"list-type": "2", "prefix": prefix})
        found = (key.decode() for key in _KEY.findall(listing))
        return [key for key in found if key.startswith(prefix)]

    def _call(
        self,
        method: str,
        key: str,
        take: Callable[[BaseHTTPResponse], T],
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | Pieces | None = None,
    ) -> T:
        url = urlsplit(self._signed(method, self._endpoint, key, _OWN_SECONDS, query))
        path = url.path.removeprefix(urlsplit(self._endpoint).path)
        try:
            return self._http.call(method, path, take, params=dict(parse_qsl(url.query)), body=body)
        except RefusedError as error:
            # S3 explains itself in XML, to nobody's use: the path and the status say as much.
            if error.status == _NOT_FOUND:
                raise NotFoundError(f"The object storage has no {path}.", status=_NOT_FOUND) from None
            raise RefusedError(
                f"The object storage refuses {method} {path} ({error.status or error.message}).",
                status=error.status,
                admin_advice="Check the storage's endpoint, bucket and key, and that the clocks agree.",
            ) from None

    def _signed(
        self, method: str, endpoint: str, key: str, seconds: int, query: Mapping[str, str] | None = None
    ) -> str:
        path = f"/{quote(self.name)}/{quote(key, safe='/~')}" if key else f"/{quote(self.name)}"
        asked = f"?{urlencode(query)}" if query else ""
        request = AWSRequest(method, f"{endpoint}{path}{asked}")
        S3SigV4QueryAuth(self._credentials, "s3", self._storage.region, expires=seconds).add_auth(request)
        url: str = request.url
        return url
