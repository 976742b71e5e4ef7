# SPDX-License-Identifier: Apache-2.0
"""What the API's routes share: who calls, and how a body or a query is read."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

import msgspec

from qpu_slurm_devkit.emulator import answers
from qpu_slurm_devkit.emulator.service import SERVICE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp import web

    from qpu_slurm_devkit.emulator.settings import Account

Body = TypeVar("Body")


def caller(request: web.Request) -> Account:
    """Tell whose request it is, and have the record know.

    Raises:
        ApiError: The credential is not good for the instance.
    """
    account = request.app[SERVICE].identity.instance(request)
    request["account"] = account.name
    return account


async def body(request: web.Request, type_: type[Body]) -> Body:
    """Read a JSON body.

    Raises:
        ApiError: It is not what it should be.
    """
    try:
        return msgspec.json.decode(await request.read(), type=type_)
    except msgspec.MsgspecError as error:
        raise answers.invalid(str(error)) from None


def number(request: web.Request, name: str, default: int) -> int:
    """Read a number from the query.

    Raises:
        ApiError: It is not a number, or negative.
    """
    text = request.query.get(name, str(default))
    if not text.isascii() or not text.isdigit():
        raise answers.invalid(f"{name} is not a number")
    return int(text)


def flag(request: web.Request, name: str) -> bool | None:
    """Read true or false from the query; None if it says nothing."""
    return {"true": True, "false": False}.get(request.query.get(name, "").lower())


def moment(request: web.Request, name: str) -> float | None:
    """Read a time from the query.

    Raises:
        ApiError: It is not ISO 8601.
    """
    text = request.query.get(name)
    if text is None:
        return None
    try:
        # A `+` of a zone that was not quoted arrives as a blank.
        return datetime.fromisoformat(text.replace(" ", "+")).timestamp()
    except ValueError:
        raise answers.invalid(f"{name} is not a time") from None


def many(request: web.Request, name: str) -> Sequence[str]:
    """Read a list from the query, given by repeating the name, with brackets or without."""
    return [*request.query.getall(name, []), *request.query.getall(f"{name}[]", [])]
